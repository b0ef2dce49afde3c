#include "apps/engine/evaluation.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include <nlohmann/json.hpp>

namespace vireo {
namespace {

std::string number(double value, int digits) {
  if (std::isnan(value)) return "-";
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

nlohmann::ordered_json json_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  return value;
}

bool is_count(const std::string& key) {
  static const std::vector<std::string> keys{"TP", "FP", "FN", "TN", "n_pred", "n_ref"};
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

nlohmann::ordered_json json_metric(const Metric& metric, const ClassScores& scores) {
  const double value = metric.value(scores);
  if (is_count(metric.key)) return static_cast<int64_t>(value);
  return json_number(value);
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"') result += '"';
    result += c;
  }
  return result + "\"";
}

// The metric's values, [class][case].
std::vector<std::vector<double>> values_of(const Metric& metric, const Summary& summary) {
  std::vector<std::vector<double>> values(summary.classes.size());
  for (size_t k = 0; k < values.size(); ++k)
    for (const CaseScores& scores : summary.cases)
      values[k].push_back(metric.value(scores.classes[k]));
  return values;
}

int64_t defined_count(const std::vector<double>& values) {
  return std::count_if(values.begin(), values.end(), [](double v) { return !std::isnan(v); });
}

MetricSummary summarize_foreground(const std::vector<std::vector<double>>& values,
                                   const Summary& summary) {
  const auto mean_over_classes = [&values](const std::vector<int64_t>& cases) {
    double total = 0;
    int64_t classes = 0;
    for (const auto& of_class : values) {
      double sum = 0;
      int64_t count = 0;
      for (const int64_t index : cases) {
        const double value = of_class[static_cast<size_t>(index)];
        if (std::isnan(value)) continue;
        sum += value;
        ++count;
      }
      if (count == 0) continue;
      total += sum / static_cast<double>(count);
      ++classes;
    }
    return classes > 0 ? total / static_cast<double>(classes)
                       : std::numeric_limits<double>::quiet_NaN();
  };
  std::vector<double> class_means, case_means;
  for (const auto& of_class : values) class_means.push_back(defined_mean(of_class));
  for (size_t i = 0; i < summary.cases.size(); ++i) {
    std::vector<double> of_case;
    for (const auto& of_class : values) of_case.push_back(of_class[i]);
    case_means.push_back(defined_mean(of_case));
  }
  return {defined_mean(class_means),
          defined_sd(case_means),
          bootstrap_interval(static_cast<int64_t>(summary.cases.size()),
                             mean_over_classes,
                             summary.bootstrap_seed,
                             summary.bootstrap_resamples),
          defined_count(class_means)};
}

nlohmann::ordered_json json_interval(const MetricSummary& of_metric) {
  return {json_number(of_metric.interval.low), json_number(of_metric.interval.high)};
}

std::string protocol_text(const ScoringOptions& options) {
  return options.protocol == Protocol::kStrict ? "strict" : "transunet";
}

std::string convention(const ScoringOptions& options) {
  if (options.protocol == Protocol::kStrict)
    return "A class empty in prediction and truth is not counted for that case. Empty in one of "
           "them: "
           "Dice, IoU and NSD 0, distances the image's diagonal.";
  return "As published with TransUNet: truth empty and prediction not: Dice 1, HD95 0; otherwise, "
         "both "
         "empty included: Dice 0, HD95 0. Other metrics as under the strict protocol.";
}

}  // namespace

std::string ScoredClass::key() const {
  if (values.size() == 1) return std::to_string(values.front());
  std::string text = "(";
  for (const int64_t value : values) text += (text.size() > 1 ? ", " : "") + std::to_string(value);
  return text + ")";
}

std::vector<Metric> reported_metrics(const ScoringOptions& options) {
  using S = const ClassScores&;
  std::string tolerance = number(options.nsd_tolerance_mm, 3);
  tolerance.erase(tolerance.find_last_not_of('0') + 1);
  if (tolerance.back() == '.') tolerance.pop_back();
  const std::string surface =
      "Surfaces are the voxels that one face-connected erosion removes, outside the image counting "
      "as "
      "background; distances go from voxel centre to nearest voxel centre of the other surface. ";
  std::vector<Metric> metrics{
      {"Dice", "Dice", "2 TP / (2 TP + FP + FN)", 4, [](S s) { return s.dice; }},
      {"IoU", "IoU", "TP / (TP + FP + FN)", 4, [](S s) { return s.iou; }},
      {"Precision",
       "Precision",
       "TP / (TP + FP); undefined for an empty prediction",
       4,
       [](S s) { return s.precision; }},
      {"Recall",
       "Recall",
       "TP / (TP + FN); undefined for an empty truth",
       4,
       [](S s) { return s.recall; }},
      {"Specificity", "Specificity", "TN / (TN + FP)", 4, [](S s) { return s.specificity; }},
      {"HD95",
       "HD95 (mm)",
       surface +
           "95th percentile, linearly interpolated, of the distances in both directions pooled",
       2,
       [](S s) { return s.hd95_mm; }},
      {"HD",
       "HD (mm)",
       "Largest of the distances in both directions",
       2,
       [](S s) { return s.hausdorff_mm; }},
      {"ASSD",
       "ASSD (mm)",
       "Mean of the distances in both directions pooled",
       3,
       [](S s) { return s.assd_mm; }},
      {"NSD",
       "NSD (" + tolerance + " mm)",
       "Share of both surfaces' voxels whose distance is at most " + tolerance + " mm",
       4,
       [](S s) { return s.nsd; }},
      {"VolumeError",
       "Volume error (ml)",
       "Predicted minus true volume",
       3,
       [](S s) { return s.volume_error_ml; }},
      {"RelativeVolumeError",
       "Rel. volume error",
       "Predicted minus true volume, over the true volume",
       4,
       [](S s) { return s.relative_volume_error; }},
      {"VolumePrediction",
       "Volume, predicted (ml)",
       "Voxels times voxel volume",
       2,
       [](S s) { return s.predicted_ml; }},
      {"VolumeReference", "Volume, true (ml)", "Voxels times voxel volume", 2, [](S s) {
         return s.actual_ml;
       }}};
  if (options.protocol == Protocol::kTransUnet)
    metrics.push_back({"HD95_voxels",
                       "HD95 (voxels)",
                       "HD95 with a spacing of 1 on every axis, as the published code computes it",
                       2,
                       [](S s) { return s.hd95_voxels; }});
  const std::vector<Metric> counts{
      {"TP",
       "TP",
       "Voxels found",
       0,
       [](S s) { return static_cast<double>(s.counts.true_positive); }},
      {"FP",
       "FP",
       "Voxels invented",
       0,
       [](S s) { return static_cast<double>(s.counts.false_positive); }},
      {"FN",
       "FN",
       "Voxels missed",
       0,
       [](S s) { return static_cast<double>(s.counts.false_negative); }},
      {"TN",
       "TN",
       "Voxels rightly left out",
       0,
       [](S s) { return static_cast<double>(s.counts.true_negative); }},
      {"n_pred",
       "n_pred",
       "Voxels of the prediction",
       0,
       [](S s) { return static_cast<double>(s.counts.predicted()); }},
      {"n_ref", "n_ref", "Voxels of the truth", 0, [](S s) {
         return static_cast<double>(s.counts.actual());
       }}};
  metrics.insert(metrics.end(), counts.begin(), counts.end());
  return metrics;
}

double CaseScores::mean_dice() const {
  std::vector<double> values;
  for (const ClassScores& scores : classes) values.push_back(scores.dice);
  return defined_mean(values);
}

CaseScores score_case(const std::string& name,
                      const at::Tensor& prediction,
                      const at::Tensor& truth,
                      const Geometry& geometry,
                      const std::vector<ScoredClass>& classes,
                      const ScoringOptions& options) {
  TORCH_CHECK(truth.dim() == 3 && truth.sizes() == c10::IntArrayRef(geometry.size_zyx),
              "score_case: truth ",
              truth.sizes(),
              " is not [Z, Y, X] of its grid");
  at::Tensor predicted = prediction, actual = truth;
  std::vector<double> spacing;
  double thickness = 1;
  for (size_t axis = 0; axis < 3; ++axis) {
    const auto position = static_cast<int64_t>(spacing.size());
    if (geometry.size_zyx[axis] == 1 && actual.dim() > 2) {
      predicted = predicted.squeeze(position);
      actual = actual.squeeze(position);
      thickness *= geometry.spacing_mm_zyx[axis];
    } else {
      spacing.push_back(geometry.spacing_mm_zyx[axis]);
    }
  }
  std::vector<std::vector<int64_t>> values;
  for (const ScoredClass& scored : classes) values.push_back(scored.values);
  CaseScores result{name, "", "", score_label_map(predicted, actual, values, spacing, options)};
  for (ClassScores& scores : result.classes) {
    scores.predicted_ml *= thickness;
    scores.actual_ml *= thickness;
    scores.volume_error_ml *= thickness;
  }
  return result;
}

Summary summarize(std::vector<CaseScores> cases,
                  const std::vector<ScoredClass>& classes,
                  const ScoringOptions& options,
                  uint64_t bootstrap_seed) {
  std::sort(cases.begin(), cases.end(), [](const CaseScores& a, const CaseScores& b) {
    return a.name < b.name;
  });
  Summary summary;
  summary.options = options;
  summary.classes = classes;
  summary.cases = std::move(cases);
  summary.bootstrap_seed = bootstrap_seed;
  summary.of_class.resize(classes.size());
  for (const Metric& metric : reported_metrics(options)) {
    const std::vector<std::vector<double>> values = values_of(metric, summary);
    for (size_t k = 0; k < classes.size(); ++k)
      summary.of_class[k][metric.key] = {
          defined_mean(values[k]),
          defined_sd(values[k]),
          bootstrap_mean_interval(values[k], bootstrap_seed, summary.bootstrap_resamples),
          defined_count(values[k])};
    summary.foreground[metric.key] = summarize_foreground(values, summary);
  }
  return summary;
}

nlohmann::ordered_json to_summary_json(const Summary& summary) {
  const std::vector<Metric> metrics = reported_metrics(summary.options);
  nlohmann::ordered_json json, labels, definitions;
  for (const Metric& metric : metrics) {
    const MetricSummary& whole = summary.foreground.at(metric.key);
    json["foreground_mean"][metric.key] = json_number(whole.mean);
    json["foreground_sd"][metric.key] = json_number(whole.sd);
    json["foreground_interval_95"][metric.key] = json_interval(whole);
    definitions[metric.key] = metric.definition;
  }
  for (size_t k = 0; k < summary.classes.size(); ++k) {
    const std::string key = summary.classes[k].key();
    labels[key] = summary.classes[k].name;
    for (const Metric& metric : metrics) {
      const MetricSummary& of_class = summary.of_class[k].at(metric.key);
      json["mean"][key][metric.key] = json_number(of_class.mean);
      json["sd"][key][metric.key] = json_number(of_class.sd);
      json["interval_95"][key][metric.key] = json_interval(of_class);
      json["count"][key][metric.key] = of_class.count;
    }
  }
  json["metric_per_case"] = nlohmann::ordered_json::array();
  for (const CaseScores& scores : summary.cases) {
    nlohmann::ordered_json of_case;
    of_case["metrics"] = nlohmann::ordered_json::object();
    for (size_t k = 0; k < summary.classes.size(); ++k)
      for (const Metric& metric : metrics)
        of_case["metrics"][summary.classes[k].key()][metric.key] =
            json_metric(metric, scores.classes[k]);
    of_case["prediction_file"] = scores.prediction_file;
    of_case["reference_file"] = scores.reference_file;
    json["metric_per_case"].push_back(of_case);
  }
  json["labels"] = labels;
  json["cases"] = summary.cases.size();
  json["protocol"] = {{"name", protocol_text(summary.options)},
                      {"empty_masks", convention(summary.options)}};
  json["nsd_tolerance_mm"] = summary.options.nsd_tolerance_mm;
  json["bootstrap"] = {{"kind", "percentile, cases drawn with replacement"},
                       {"resamples", summary.bootstrap_resamples},
                       {"seed", summary.bootstrap_seed},
                       {"confidence", 0.95}};
  json["definitions"] = definitions;
  return json;
}

std::string to_csv(const Summary& summary) {
  const std::vector<Metric> metrics = reported_metrics(summary.options);
  std::string text = "case,label,class";
  for (const Metric& metric : metrics) text += "," + metric.key;
  text += "\n";
  for (const CaseScores& scores : summary.cases)
    for (size_t k = 0; k < summary.classes.size(); ++k) {
      text += quoted(scores.name) + "," + quoted(summary.classes[k].key()) + "," +
              quoted(summary.classes[k].name);
      for (const Metric& metric : metrics) {
        const double value = metric.value(scores.classes[k]);
        char cell[48] = "";
        if (!std::isnan(value))
          std::snprintf(cell, sizeof cell, is_count(metric.key) ? "%.0f" : "%.8g", value);
        text += "," + std::string(cell);
      }
      text += "\n";
    }
  return text;
}

std::string to_table(const Summary& summary) {
  size_t width = 4;
  for (const ScoredClass& scored : summary.classes) width = std::max(width, scored.name.size());
  const auto padded = [](std::string text, size_t length, bool right) {
    if (text.size() < length) text.insert(right ? 0 : text.size(), length - text.size(), ' ');
    return text;
  };
  std::string text = padded("class", width, false);
  // The published tables give distances in voxels.
  const bool voxels = summary.options.protocol == Protocol::kTransUnet;
  const char *distance = voxels ? "HD95_voxels" : "HD95",
             *distance_title = voxels ? "HD95 vox" : "HD95 mm";
  for (const char* title : {"Dice", "95 % interval", "IoU", distance_title, "ASSD mm", "NSD", "n"})
    text += "  " + padded(title, 8, true);
  text += "\n";
  const auto row = [&](const std::string& name,
                       const std::map<std::string, MetricSummary>& of,
                       int64_t cases) {
    const MetricSummary& dice = of.at("Dice");
    text += padded(name, width, false) + "  " + padded(number(dice.mean, 4), 8, true) + "  " +
            padded(number(dice.interval.low, 3) + "-" + number(dice.interval.high, 3), 13, true);
    for (const auto& [key, digits] :
         {std::pair{"IoU", 4}, std::pair{distance, 2}, std::pair{"ASSD", 3}, std::pair{"NSD", 4}})
      text += "  " + padded(number(of.at(key).mean, digits), 8, true);
    text += "  " + padded(std::to_string(cases), 8, true) + "\n";
  };
  for (size_t k = 0; k < summary.classes.size(); ++k)
    row(summary.classes[k].name, summary.of_class[k], summary.of_class[k].at("Dice").count);
  if (summary.classes.size() > 1)
    row("mean", summary.foreground, static_cast<int64_t>(summary.cases.size()));
  return text;
}

}  // namespace vireo
