#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json_fwd.hpp>

#include "vision/image/geometry.h"
#include "vision/metrics/segmentation_scores.h"
#include "vision/metrics/statistics.h"

// Scores of many cases, and their summary in the form that nnU-Net's users know. Needs no image
// files: training scores its validation cases with it, `vireo evaluate` whole folders.
namespace vireo {

/// A class to be scored: one label value, or several that make up a region.
struct ScoredClass {
  std::string name;
  std::vector<int64_t> values;

  /// "1", or "(1, 2)" for a region: the key that nnU-Net uses.
  std::string key() const;
};

/// A number that is reported for each case and class.
struct Metric {
  std::string key;         ///< in JSON and CSV, for example "HD95"
  std::string title;       ///< for people, for example "HD95 (mm)"
  std::string definition;  ///< one sentence
  int digits;              ///< after the point, for people
  double (*value)(const ClassScores&);
};
/// Dice, IoU, Precision, Recall, Specificity, HD95, HD, ASSD, NSD, VolumeError, ...; then the
/// counts TP, FP, FN, TN, n_pred, n_ref. HD95_voxels comes with kTransUnet alone.
std::vector<Metric> reported_metrics(const ScoringOptions& options);

struct CaseScores {
  std::string name;
  std::string prediction_file, reference_file;
  std::vector<ClassScores> classes;  ///< one per ScoredClass

  /// Mean Dice of the classes where it is defined; NaN when it is nowhere.
  double mean_dice() const;
};

/// Scores a label map [Z, Y, X] against the truth on the same grid. Axes of a single voxel do not
/// count for surfaces and distances: one slice is scored as a 2-D image. Volumes are those of
/// voxels.
CaseScores score_case(const std::string& name,
                      const at::Tensor& prediction,
                      const at::Tensor& truth,
                      const Geometry& geometry,
                      const std::vector<ScoredClass>& classes,
                      const ScoringOptions& options = {});

struct MetricSummary {
  double mean = 0, sd = 0;
  Interval interval;  ///< 95 % bootstrap interval of the mean, by case
  int64_t count = 0;  ///< cases (for the foreground: classes) where it is defined
};

struct Summary {
  ScoringOptions options;
  std::vector<ScoredClass> classes;
  std::vector<CaseScores> cases;  ///< by name
  uint64_t bootstrap_seed = 1;
  int64_t bootstrap_resamples = 2000;
  std::vector<std::map<std::string, MetricSummary>> of_class;  ///< per class, by Metric::key
  /// Mean over classes of the class means. sd: between cases, of a case's mean over its classes.
  std::map<std::string, MetricSummary> foreground;
};

Summary summarize(std::vector<CaseScores> cases,
                  const std::vector<ScoredClass>& classes,
                  const ScoringOptions& options = {},
                  uint64_t bootstrap_seed = 1);

/// nnU-Net's summary.json: foreground_mean, mean {label}, metric_per_case [{reference_file,
/// prediction_file, metrics {label}}] with its keys and ours; beside them foreground_sd,
/// foreground_interval_95, sd, interval_95, count, labels, protocol and definitions. What is not
/// defined is null.
nlohmann::ordered_json to_summary_json(const Summary& summary);

/// One row per case and class.
std::string to_csv(const Summary& summary);

/// A table for the terminal: a row per class and their mean.
std::string to_table(const Summary& summary);

}  // namespace vireo
