#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vision/metrics/statistics.h"

// Scores of classifiers, single- and multi-label. Everything is computed in double precision from
// probabilities; NaN marks what is not defined (the AUROC of a class that never occurs).
namespace vireo {

/// What a classifier said of N samples, and what is true.
struct ClassifiedSamples {
  int64_t class_count = 0;
  std::vector<double> probabilities;  ///< [N, K]
  std::vector<int64_t> truth;         ///< [N], the class; empty for multi-label
  std::vector<uint8_t> labels;        ///< [N, K], 0 or 1; empty for single-label
  /// [N], samples of one patient share a number; empty: each sample stands for itself.
  std::vector<int64_t> groups;

  bool multi_label() const { return !labels.empty(); }
  int64_t count() const { return static_cast<int64_t>(probabilities.size()) / class_count; }
  bool holds(int64_t sample, int64_t label) const {
    return multi_label() ? labels[static_cast<size_t>(sample * class_count + label)] != 0
                         : truth[static_cast<size_t>(sample)] == label;
  }
};

struct ClassificationOptions {
  double specificity = 0.9;  ///< at which the sensitivity is told
  int64_t bins = 15;         ///< of the calibration errors, equally wide
  double decision = 0.5;     ///< multi-label: probability from which a label counts as predicted
};

struct OverallScores {
  double top1 = 0, top5 = 0, balanced_accuracy = 0, macro_precision = 0, macro_f1 = 0;
  double macro_auroc = 0, macro_auprc = 0, kappa = 0, mcc = 0;
  double ece = 0, mce = 0, brier = 0, log_loss = 0;
  double exact_match = 0, micro_f1 = 0;  ///< multi-label
};

/// One class against the rest.
struct OneClassScores {
  double precision = 0, recall = 0, specificity = 0, f1 = 0;
  double auroc = 0, auprc = 0, sensitivity_at_specificity = 0;
  double support = 0;  ///< samples (or their weight) that hold the class
};

struct ClassificationScores {
  OverallScores overall;
  std::vector<OneClassScores> classes;
};

/// How a score is named in files and explained to people.
template <typename Scores>
struct ScoreField {
  const char* key;
  const char* title;
  const char* definition;
  double Scores::*value;
};
/// The scores that are defined for the kind of task, in the order of reports.
const std::vector<ScoreField<OverallScores>>& overall_fields(bool multi_label);
const std::vector<ScoreField<OneClassScores>>& class_fields();

struct CurvePoint {
  double x = 0, y = 0;
};

struct ReliabilityBin {
  double confidence = 0, accuracy = 0;  ///< means; NaN in an empty bin
  double count = 0;
};

/// Scores samples, also with weights: the sorting is done once. The samples must outlive it.
class ClassificationScorer {
 public:
  /// Throws Error for sizes that do not go together, classes out of range and probabilities
  /// outside [0, 1].
  explicit ClassificationScorer(const ClassifiedSamples& samples,
                                const ClassificationOptions& options = {});

  ClassificationScores scores() const;
  /// `weights` [N], >= 0: as though every sample occurred that often.
  ClassificationScores scores(const std::vector<double>& weights) const;

  /// [K, K], truth by row; of the most probable class. Single-label.
  std::vector<int64_t> confusion() const;
  /// x = 1 - specificity, y = sensitivity; from (0, 0) to (1, 1). Empty when not defined.
  std::vector<CurvePoint> roc(int64_t label) const;
  /// x = recall, y = precision.
  std::vector<CurvePoint> precision_recall(int64_t label) const;
  /// Single-label: confidence of the most probable class; multi-label: of every label.
  std::vector<ReliabilityBin> reliability() const;
  /// The most probable class, the first of equal ones.
  int64_t predicted(int64_t sample) const;

  const ClassifiedSamples& samples() const { return samples_; }

 private:
  struct Ranking;
  void add_ranking(int64_t label, const std::vector<double>& weights, OneClassScores& into) const;
  void add_decisions(const std::vector<double>& weights, ClassificationScores& into) const;
  std::vector<ReliabilityBin> bins(const std::vector<double>& weights) const;

  const ClassifiedSamples& samples_;
  ClassificationOptions options_;
  std::vector<int64_t> predicted_;           // [N], single-label
  std::vector<std::vector<int32_t>> order_;  // per class, by falling probability
};

struct ScoreIntervals {
  ClassificationScores low, high;
};

/// 95 % percentile bootstrap intervals of every score, by group where groups are known. With more
/// than `limit` numbers to rank over all resamples the scores that need a ranking get none (NaN).
ScoreIntervals bootstrap_scores(const ClassificationScorer& scorer,
                                uint64_t seed = 1,
                                int64_t resamples = 2000,
                                double limit = 2e10);

/// The temperature T in [0.01, 100] at which softmax(logits / T) (multi-label: the logistic
/// function) gives the samples' truth the highest likelihood. `logits` [N, K]. The likelihood is
/// convex in 1 / T: its derivative's root is found by bisection.
double fit_temperature(const std::vector<double>& logits, const ClassifiedSamples& truth);

/// softmax or logistic function of logits / temperature, [N, K].
std::vector<double> probabilities_at(const std::vector<double>& logits,
                                     int64_t class_count,
                                     bool multi_label,
                                     double temperature = 1);

}  // namespace vireo
