#include "vision/metrics/classification_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

double ratio(double part, double whole) {
  return whole > 0 ? part / whole : kUndefined;
}

template <typename Scores>
double mean_over(const std::vector<Scores>& classes, double Scores::*field) {
  std::vector<double> values;
  for (const Scores& one : classes) values.push_back(one.*field);
  return defined_mean(values);
}

// Cohen's kappa and Matthews' correlation from a (weighted) confusion matrix.
void agreement(const std::vector<double>& confusion, int64_t classes, OverallScores& into) {
  std::vector<double> truths(static_cast<size_t>(classes)), predictions(truths.size());
  double total = 0, agreed = 0;
  for (int64_t t = 0; t < classes; ++t)
    for (int64_t p = 0; p < classes; ++p) {
      const double n = confusion[static_cast<size_t>(t * classes + p)];
      truths[static_cast<size_t>(t)] += n;
      predictions[static_cast<size_t>(p)] += n;
      total += n;
      if (t == p) agreed += n;
    }
  double chance = 0, truth_squares = 0, prediction_squares = 0;
  for (size_t k = 0; k < truths.size(); ++k) {
    chance += truths[k] * predictions[k];
    truth_squares += truths[k] * truths[k];
    prediction_squares += predictions[k] * predictions[k];
  }
  const double square = total * total;
  into.kappa = ratio(agreed * total - chance, square - chance);
  const double spread = (square - truth_squares) * (square - prediction_squares);
  // Without spread on either side there is no correlation to speak of: 0 by convention.
  into.mcc = spread > 0 ? (agreed * total - chance) / std::sqrt(spread) : 0;
}

}  // namespace

const std::vector<ScoreField<OverallScores>>& overall_fields(bool multi_label) {
  using S = OverallScores;
  static const std::vector<ScoreField<S>> single = {
      {"top1", "Top-1 accuracy", "Share of samples whose most probable class is right.", &S::top1},
      {"top5",
       "Top-5 accuracy",
       "Share of samples whose class is among the five most probable; of equally probable classes "
       "the first counts as more probable.",
       &S::top5},
      {"balanced_accuracy",
       "Balanced accuracy",
       "Mean recall of the classes that occur.",
       &S::balanced_accuracy},
      {"macro_precision", "Macro precision", "Mean precision of the classes.", &S::macro_precision},
      {"macro_f1", "Macro F1", "Mean F1 of the classes that occur or are predicted.", &S::macro_f1},
      {"macro_auroc",
       "Macro AUROC",
       "Mean AUROC of the classes, each against the rest.",
       &S::macro_auroc},
      {"macro_auprc", "Macro AUPRC", "Mean average precision of the classes.", &S::macro_auprc},
      {"kappa",
       "Cohen's kappa",
       "Agreement beyond what the class frequencies give by chance.",
       &S::kappa},
      {"mcc", "MCC", "Matthews' correlation of prediction and truth, over all classes.", &S::mcc},
      {"ece",
       "ECE",
       "Expected calibration error: mean distance of confidence and accuracy over bins of equal "
       "width, weighted by their samples.",
       &S::ece},
      {"mce", "MCE", "Maximum calibration error: the worst bin.", &S::mce},
      {"brier",
       "Brier score",
       "Mean squared distance of probabilities and truth, summed over classes; for two classes, "
       "of one of them.",
       &S::brier},
      {"log_loss",
       "Log loss",
       "Mean negative logarithm of the true class's probability.",
       &S::log_loss},
  };
  static const std::vector<ScoreField<S>> multi = {
      {"exact_match", "Exact match", "Share of samples with every label right.", &S::exact_match},
      {"top1", "Label accuracy", "Share of all labels of all samples that are right.", &S::top1},
      {"balanced_accuracy",
       "Macro recall",
       "Mean recall of the labels that occur.",
       &S::balanced_accuracy},
      {"macro_precision", "Macro precision", "Mean precision of the labels.", &S::macro_precision},
      {"macro_f1", "Macro F1", "Mean F1 of the labels that occur or are predicted.", &S::macro_f1},
      {"micro_f1", "Micro F1", "F1 over all labels of all samples at once.", &S::micro_f1},
      {"macro_auroc", "Macro AUROC", "Mean AUROC of the labels.", &S::macro_auroc},
      {"macro_auprc", "Macro AUPRC", "Mean average precision of the labels.", &S::macro_auprc},
      {"ece", "ECE", "Expected calibration error over all labels of all samples.", &S::ece},
      {"mce", "MCE", "Maximum calibration error: the worst bin.", &S::mce},
      {"brier", "Brier score", "Mean squared distance of probability and label.", &S::brier},
      {"log_loss", "Log loss", "Mean binary cross entropy of a label.", &S::log_loss},
  };
  return multi_label ? multi : single;
}

const std::vector<ScoreField<OneClassScores>>& class_fields() {
  using S = OneClassScores;
  static const std::vector<ScoreField<S>> fields = {
      {"precision",
       "Precision",
       "Share of the samples predicted as this class that are of it.",
       &S::precision},
      {"recall",
       "Recall",
       "Share of this class's samples that are found (sensitivity).",
       &S::recall},
      {"specificity",
       "Specificity",
       "Share of the other samples that are not taken for it.",
       &S::specificity},
      {"f1", "F1", "Harmonic mean of precision and recall.", &S::f1},
      {"auroc",
       "AUROC",
       "Chance that a sample of the class has a higher probability of it than another one; equal "
       "probabilities count half.",
       &S::auroc},
      {"auprc",
       "AUPRC",
       "Average precision: mean precision over the recall gained at each threshold.",
       &S::auprc},
      {"sensitivity_at_specificity",
       "Sensitivity at specificity",
       "Highest sensitivity of a threshold with at least the specificity asked for.",
       &S::sensitivity_at_specificity},
  };
  return fields;
}

ClassificationScorer::ClassificationScorer(const ClassifiedSamples& samples,
                                           const ClassificationOptions& options)
    : samples_(samples), options_(options) {
  const int64_t classes = samples.class_count;
  if (classes < 1) throw Error("classification scores need at least one class");
  const int64_t count = samples.count();
  const auto n = static_cast<size_t>(count), all = n * static_cast<size_t>(classes);
  if (count == 0) throw Error("there is no sample to score");
  if (samples.probabilities.size() != all ||
      (samples.multi_label() ? samples.labels.size() != all || !samples.truth.empty()
                             : samples.truth.size() != n) ||
      (!samples.groups.empty() && samples.groups.size() != n))
    throw Error("probabilities, truth and groups do not have the same number of samples");
  for (const double p : samples.probabilities)
    if (!(p >= 0 && p <= 1)) throw Error("a probability is not a number between 0 and 1");
  for (const int64_t t : samples.truth)
    if (t < 0 || t >= classes)
      throw Error("class " + std::to_string(t) + " does not exist: there are " +
                  std::to_string(classes) + ", numbered from 0");

  if (!samples.multi_label())
    for (int64_t i = 0; i < count; ++i) {
      const auto row = samples.probabilities.begin() + i * classes;
      predicted_.push_back(std::max_element(row, row + classes) - row);
    }
  order_.resize(static_cast<size_t>(classes));
  for (int64_t k = 0; k < classes; ++k) {
    auto& order = order_[static_cast<size_t>(k)];
    order.resize(n);
    std::iota(order.begin(), order.end(), 0);
    const double* p = samples.probabilities.data() + k;
    std::stable_sort(order.begin(), order.end(), [p, classes](int32_t a, int32_t b) {
      return p[a * classes] > p[b * classes];
    });
  }
}

int64_t ClassificationScorer::predicted(int64_t sample) const {
  return predicted_[static_cast<size_t>(sample)];
}

// Walks down the thresholds of a class: visit(positives, negatives) with what came in with each.
struct ClassificationScorer::Ranking {
  template <typename Visit>
  static void walk(const ClassifiedSamples& samples,
                   const std::vector<int32_t>& order,
                   int64_t label,
                   const std::vector<double>& weights,
                   const Visit& visit) {
    const int64_t classes = samples.class_count;
    const double* p = samples.probabilities.data() + label;
    size_t i = 0;
    while (i < order.size()) {
      const double threshold = p[order[i] * classes];
      double positives = 0, negatives = 0;
      for (; i < order.size() && p[order[i] * classes] == threshold; ++i) {
        const double weight = weights.empty() ? 1 : weights[static_cast<size_t>(order[i])];
        (samples.holds(order[i], label) ? positives : negatives) += weight;
      }
      if (positives + negatives > 0) visit(positives, negatives);
    }
  }
};

void ClassificationScorer::add_ranking(int64_t label,
                                       const std::vector<double>& weights,
                                       OneClassScores& into) const {
  double all_positives = 0, all_negatives = 0;
  for (int64_t i = 0; i < samples_.count(); ++i)
    (samples_.holds(i, label) ? all_positives : all_negatives) +=
        weights.empty() ? 1 : weights[static_cast<size_t>(i)];
  double hits = 0, alarms = 0, area = 0, average_precision = 0, sensitivity = 0;
  const double allowed = (1 - options_.specificity) * (1 + 1e-12) * all_negatives;
  Ranking::walk(samples_,
                order_[static_cast<size_t>(label)],
                label,
                weights,
                [&](double positives, double negatives) {
                  area += negatives * (hits + positives / 2);
                  hits += positives;
                  alarms += negatives;
                  if (positives > 0) average_precision += positives * hits / (hits + alarms);
                  if (alarms <= allowed) sensitivity = hits;
                });
  into.support = all_positives;
  into.auroc = ratio(area, all_positives * all_negatives);
  into.auprc = ratio(average_precision, all_positives);
  into.sensitivity_at_specificity =
      all_negatives > 0 ? ratio(sensitivity, all_positives) : kUndefined;
}

void ClassificationScorer::add_decisions(const std::vector<double>& weights,
                                         ClassificationScores& into) const {
  const int64_t count = samples_.count(), classes = samples_.class_count;
  const bool multi = samples_.multi_label();
  const double* p = samples_.probabilities.data();
  std::vector<double> confusion(multi ? 0 : static_cast<size_t>(classes * classes));
  std::vector<double> hits(static_cast<size_t>(classes)), found(hits.size()), truths(hits.size());
  double total = 0, first = 0, fifth = 0, squares = 0, logarithms = 0, exact = 0;
  constexpr double kSmallest = std::numeric_limits<double>::epsilon();
  for (int64_t i = 0; i < count; ++i) {
    const double weight = weights.empty() ? 1 : weights[static_cast<size_t>(i)];
    if (weight == 0) continue;
    const double* row = p + i * classes;
    total += weight;
    double square = 0, logarithm = 0;
    bool all_right = true;
    for (int64_t k = 0; k < classes; ++k) {
      const auto at = static_cast<size_t>(k);
      const bool truth = samples_.holds(i, k);
      const bool says =
          multi ? row[k] >= options_.decision : predicted_[static_cast<size_t>(i)] == k;
      square += (row[k] - truth) * (row[k] - truth);
      if (truth || multi)
        logarithm -= std::log(std::clamp(truth ? row[k] : 1 - row[k], kSmallest, 1.0));
      truths[at] += weight * truth;
      found[at] += weight * says;
      hits[at] += weight * (truth && says);
      if (truth != says) all_right = false;
      if (multi && truth == says) first += weight / static_cast<double>(classes);
    }
    if (!multi) {
      const int64_t truth = samples_.truth[static_cast<size_t>(i)];
      int64_t before = 0;
      for (int64_t k = 0; k < classes; ++k)
        before += row[k] > row[truth] || (row[k] == row[truth] && k < truth);
      first += weight * (before < 1);
      fifth += weight * (before < 5);
      confusion[static_cast<size_t>(truth * classes + predicted_[static_cast<size_t>(i)])] +=
          weight;
    }
    const auto labels = static_cast<double>(classes);
    squares += weight * (multi ? square / labels : classes == 2 ? square / 2 : square);
    logarithms += weight * (multi ? logarithm / labels : logarithm);
    exact += weight * all_right;
  }

  for (size_t k = 0; k < hits.size(); ++k) {
    OneClassScores& one = into.classes[k];
    one.recall = ratio(hits[k], truths[k]);
    one.precision = found[k] > 0 ? hits[k] / found[k] : truths[k] > 0 ? 0 : kUndefined;
    one.f1 = ratio(2 * hits[k], found[k] + truths[k]);
    one.specificity = ratio(total - truths[k] - (found[k] - hits[k]), total - truths[k]);
  }
  OverallScores& overall = into.overall;
  overall.top1 = ratio(first, total);
  overall.top5 = multi ? kUndefined : ratio(fifth, total);
  overall.exact_match = ratio(exact, total);
  overall.brier = ratio(squares, total);
  overall.log_loss = ratio(logarithms, total);
  overall.balanced_accuracy = mean_over(into.classes, &OneClassScores::recall);
  overall.macro_precision = mean_over(into.classes, &OneClassScores::precision);
  overall.macro_f1 = mean_over(into.classes, &OneClassScores::f1);
  const auto sum = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0);
  };
  overall.micro_f1 = ratio(2 * sum(hits), sum(found) + sum(truths));
  if (multi)
    overall.kappa = overall.mcc = kUndefined;
  else
    agreement(confusion, classes, overall);
}

std::vector<ReliabilityBin> ClassificationScorer::bins(const std::vector<double>& weights) const {
  std::vector<ReliabilityBin> bins(static_cast<size_t>(options_.bins));
  const int64_t classes = samples_.class_count;
  const auto add = [&](double confidence, bool right, double weight) {
    // Bins are open below and closed above; 0 belongs to the first.
    const double place = std::ceil(confidence * static_cast<double>(options_.bins)) - 1;
    ReliabilityBin& bin =
        bins[static_cast<size_t>(std::clamp(place, 0.0, static_cast<double>(options_.bins - 1)))];
    bin.confidence += weight * confidence;
    bin.accuracy += weight * right;
    bin.count += weight;
  };
  for (int64_t i = 0; i < samples_.count(); ++i) {
    const double weight = weights.empty() ? 1 : weights[static_cast<size_t>(i)];
    const double* row = samples_.probabilities.data() + i * classes;
    if (samples_.multi_label()) {
      for (int64_t k = 0; k < classes; ++k) add(row[k], samples_.holds(i, k), weight);
    } else {
      const int64_t says = predicted(i);
      add(row[says], samples_.holds(i, says), weight);
    }
  }
  for (ReliabilityBin& bin : bins) {
    bin.confidence = ratio(bin.confidence, bin.count);
    bin.accuracy = ratio(bin.accuracy, bin.count);
  }
  return bins;
}

ClassificationScores ClassificationScorer::scores() const {
  return scores({});
}

ClassificationScores ClassificationScorer::scores(const std::vector<double>& weights) const {
  ClassificationScores result;
  result.classes.resize(static_cast<size_t>(samples_.class_count));
  for (int64_t k = 0; k < samples_.class_count; ++k)
    add_ranking(k, weights, result.classes[static_cast<size_t>(k)]);
  add_decisions(weights, result);
  result.overall.macro_auroc = mean_over(result.classes, &OneClassScores::auroc);
  result.overall.macro_auprc = mean_over(result.classes, &OneClassScores::auprc);
  double total = 0;
  result.overall.ece = result.overall.mce = 0;
  for (const ReliabilityBin& bin : bins(weights)) {
    if (bin.count == 0) continue;
    const double gap = std::abs(bin.confidence - bin.accuracy);
    result.overall.ece += bin.count * gap;
    result.overall.mce = std::max(result.overall.mce, gap);
    total += bin.count;
  }
  result.overall.ece = ratio(result.overall.ece, total);
  return result;
}

std::vector<int64_t> ClassificationScorer::confusion() const {
  std::vector<int64_t> matrix(static_cast<size_t>(samples_.class_count * samples_.class_count));
  for (size_t i = 0; i < predicted_.size(); ++i)
    ++matrix[static_cast<size_t>(samples_.truth[i] * samples_.class_count + predicted_[i])];
  return matrix;
}

std::vector<CurvePoint> ClassificationScorer::roc(int64_t label) const {
  double hits = 0, alarms = 0;
  std::vector<CurvePoint> points{{0, 0}};
  Ranking::walk(
      samples_, order_[static_cast<size_t>(label)], label, {}, [&](double more, double wrong) {
        points.push_back({alarms += wrong, hits += more});
      });
  if (hits == 0 || alarms == 0) return {};
  for (CurvePoint& point : points) point = {point.x / alarms, point.y / hits};
  return points;
}

std::vector<CurvePoint> ClassificationScorer::precision_recall(int64_t label) const {
  double hits = 0, alarms = 0;
  std::vector<CurvePoint> points;
  Ranking::walk(
      samples_, order_[static_cast<size_t>(label)], label, {}, [&](double more, double wrong) {
        hits += more;
        alarms += wrong;
        points.push_back({hits, hits / (hits + alarms)});
      });
  if (hits == 0) return {};
  for (CurvePoint& point : points) point.x /= hits;
  return points;
}

std::vector<ReliabilityBin> ClassificationScorer::reliability() const {
  return bins({});
}

ScoreIntervals bootstrap_scores(const ClassificationScorer& scorer,
                                uint64_t seed,
                                int64_t resamples,
                                double limit) {
  const ClassifiedSamples& samples = scorer.samples();
  const auto count = static_cast<size_t>(samples.count());
  std::vector<int64_t> group(count);
  int64_t groups = 0;
  if (samples.groups.empty()) {
    std::iota(group.begin(), group.end(), int64_t{0});
    groups = samples.count();
  } else {
    std::vector<int64_t> known = samples.groups;
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    groups = static_cast<int64_t>(known.size());
    for (size_t i = 0; i < count; ++i)
      group[i] = std::lower_bound(known.begin(), known.end(), samples.groups[i]) - known.begin();
  }

  ScoreIntervals intervals;
  intervals.low.classes.resize(static_cast<size_t>(samples.class_count));
  intervals.high = intervals.low;
  const double work =
      static_cast<double>(samples.probabilities.size()) * static_cast<double>(resamples);
  std::vector<ClassificationScores> drawn;
  if (work <= limit) {
    std::vector<double> weights(count), of_group(static_cast<size_t>(groups));
    const auto score = [&](const std::vector<int64_t>& draw) {
      std::fill(of_group.begin(), of_group.end(), 0.0);
      for (const int64_t g : draw) of_group[static_cast<size_t>(g)] += 1;
      for (size_t i = 0; i < count; ++i) weights[i] = of_group[static_cast<size_t>(group[i])];
      drawn.push_back(scorer.scores(weights));
      return drawn.back().overall.top1;
    };
    bootstrap_interval(groups, score, seed, resamples);
  }
  const auto interval = [&](const auto& value_of) {
    std::vector<double> values;
    for (const ClassificationScores& scores : drawn)
      if (const double value = value_of(scores); !std::isnan(value)) values.push_back(value);
    return values.empty() ? Interval{kUndefined, kUndefined}
                          : Interval{percentile(values, 2.5), percentile(values, 97.5)};
  };
  for (const auto& field : overall_fields(samples.multi_label())) {
    const Interval of =
        interval([&](const ClassificationScores& scores) { return scores.overall.*field.value; });
    intervals.low.overall.*field.value = of.low;
    intervals.high.overall.*field.value = of.high;
  }
  for (size_t k = 0; k < intervals.low.classes.size(); ++k)
    for (const auto& field : class_fields()) {
      const Interval of = interval(
          [&](const ClassificationScores& scores) { return scores.classes[k].*field.value; });
      intervals.low.classes[k].*field.value = of.low;
      intervals.high.classes[k].*field.value = of.high;
    }
  return intervals;
}

std::vector<double> probabilities_at(const std::vector<double>& logits,
                                     int64_t class_count,
                                     bool multi_label,
                                     double temperature) {
  std::vector<double> result(logits.size());
  const auto classes = static_cast<size_t>(class_count);
  for (size_t begin = 0; begin + classes <= logits.size(); begin += classes) {
    const auto row = logits.begin() + static_cast<std::ptrdiff_t>(begin);
    const double highest = *std::max_element(row, row + class_count);
    double sum = 0;
    for (size_t k = begin; k < begin + classes; ++k) {
      result[k] = multi_label ? 1 / (1 + std::exp(-logits[k] / temperature))
                              : std::exp((logits[k] - highest) / temperature);
      sum += result[k];
    }
    if (!multi_label)
      for (size_t k = begin; k < begin + classes; ++k) result[k] /= sum;
  }
  return result;
}

double fit_temperature(const std::vector<double>& logits, const ClassifiedSamples& truth) {
  const bool multi = truth.multi_label();
  const int64_t classes = truth.class_count;
  const auto count = static_cast<int64_t>(logits.size()) / classes;
  // d(negative log-likelihood) / d(1 / T): the logits' expectation minus the true class's logit.
  const auto slope = [&](double inverse) {
    const auto p = probabilities_at(logits, classes, multi, 1 / inverse);
    double sum = 0;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t k = 0; k < classes; ++k) {
        const auto at = static_cast<size_t>(i * classes + k);
        sum += (p[at] - truth.holds(i, k)) * logits[at];
      }
    return sum;
  };
  double low = std::log(0.01), high = std::log(100.0);  // of 1 / T
  for (int step = 0; step < 60; ++step) {
    const double middle = (low + high) / 2;
    (slope(std::exp(middle)) < 0 ? low : high) = middle;
  }
  return std::exp(-(low + high) / 2);
}

}  // namespace vireo
