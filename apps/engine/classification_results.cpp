#include "apps/engine/classification_results.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

namespace vireo {
namespace {

using nlohmann::ordered_json;

std::string cell(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string number(const char* format, double value) {
  if (std::isnan(value)) return "";
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

ordered_json value_or_null(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

template <typename Scores>
ordered_json scores_json(const std::vector<ScoreField<Scores>>& fields,
                         const Scores& scores,
                         const Scores& low,
                         const Scores& high) {
  ordered_json json = ordered_json::object();
  for (const auto& field : fields) {
    const auto member = field.value;
    ordered_json interval = nullptr;
    if (std::isfinite(low.*member)) interval = {low.*member, high.*member};
    json[field.key] = {{"value", value_or_null(scores.*member)}, {"interval_95", interval}};
  }
  return json;
}

}  // namespace

std::string predictions_csv(const std::vector<std::string>& names,
                            const std::vector<std::string>& class_names,
                            const ClassifiedSamples& samples,
                            double decision) {
  const bool known = !samples.truth.empty() || samples.multi_label();
  std::string csv = known ? "name,truth,predicted" : "name,predicted";
  for (const std::string& name : class_names) csv += "," + cell(name);
  csv += "\n";
  const int64_t classes = samples.class_count;
  for (int64_t i = 0; i < samples.count(); ++i) {
    const double* p = samples.probabilities.data() + i * classes;
    const auto joined = [&](const auto& holds) {
      std::string text;
      for (int64_t k = 0; k < classes; ++k)
        if (holds(k)) text += (text.empty() ? "" : "|") + class_names[static_cast<size_t>(k)];
      return cell(text);
    };
    const int64_t best = std::max_element(p, p + classes) - p;
    csv += cell(names[static_cast<size_t>(i)]);
    if (known) csv += "," + joined([&](int64_t k) { return samples.holds(i, k); });
    csv += "," +
           joined([&](int64_t k) { return samples.multi_label() ? p[k] >= decision : k == best; });
    for (int64_t k = 0; k < classes; ++k) csv += "," + number("%.9g", p[k]);
    csv += "\n";
  }
  return csv;
}

ordered_json results_json(const ClassificationResults& r) {
  const bool multi = r.samples.multi_label();
  ordered_json json = {{"model", r.model},
                       {"data", r.data},
                       {"part", r.part},
                       {"pictures", r.samples.count()},
                       {"by_patient", !r.samples.groups.empty()},
                       {"bootstrap_resamples", r.bootstrap_resamples},
                       {"specificity", r.options.specificity},
                       {"calibration_bins", r.options.bins}};
  json["overall"] = scores_json(
      overall_fields(multi), r.scores.overall, r.intervals.low.overall, r.intervals.high.overall);
  json["classes"] = ordered_json::array();
  for (size_t k = 0; k < r.class_names.size(); ++k)
    json["classes"].push_back({{"name", r.class_names[k]},
                               {"support", r.scores.classes[k].support},
                               {"scores",
                                scores_json(class_fields(),
                                            r.scores.classes[k],
                                            r.intervals.low.classes[k],
                                            r.intervals.high.classes[k])}});
  if (!multi) {
    json["confusion"] = ordered_json::array();
    const auto matrix = ClassificationScorer(r.samples, r.options).confusion();
    const auto classes = static_cast<std::ptrdiff_t>(r.class_names.size());
    for (auto row = matrix.begin(); row != matrix.end(); row += classes)
      json["confusion"].push_back(std::vector<int64_t>(row, row + classes));
  }
  json["temperature"] = nullptr;
  if (r.temperature)
    json["temperature"] = {{"value", *r.temperature},
                           {"ece", r.at_temperature.ece},
                           {"mce", r.at_temperature.mce},
                           {"brier", r.at_temperature.brier},
                           {"log_loss", r.at_temperature.log_loss}};
  json["param_count"] = r.parameter_count;
  json["img_size"] = r.size_yx;
  json["pictures_per_second"] = value_or_null(r.pictures_per_second);
  json["network_pictures_per_second"] = value_or_null(r.network_pictures_per_second);
  json["peak_memory_mib"] = static_cast<double>(r.peak_memory_bytes) / (1 << 20);
  ordered_json definitions = ordered_json::object();
  for (const auto& field : overall_fields(multi)) definitions[field.key] = field.definition;
  for (const auto& field : class_fields()) definitions[field.key] = field.definition;
  json["definitions"] = definitions;
  return json;
}

std::string results_csv(const ClassificationResults& r) {
  const OverallScores& s = r.scores.overall;
  std::string header =
      "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation";
  std::string row = cell(r.model) + "," + std::to_string(r.size_yx[0]) + "," +
                    number("%.3f", 100 * s.top1) + "," + number("%.3f", 100 - 100 * s.top1) + "," +
                    number("%.3f", 100 * s.top5) + "," + number("%.3f", 100 - 100 * s.top5) + "," +
                    number("%.2f", static_cast<double>(r.parameter_count) / 1e6) + "," +
                    number("%.3f", r.crop_share) + "," + r.filter;
  for (const auto& field : overall_fields(r.samples.multi_label())) {
    const std::string key = field.key;
    if (key == "top1" || key == "top5") continue;
    header += "," + key;
    row += "," + number("%.6f", s.*field.value);
  }
  header += ",temperature,pictures_per_second,peak_memory_mib";
  row += "," + (r.temperature ? number("%.4f", *r.temperature) : "") + "," +
         number("%.1f", r.pictures_per_second) + "," +
         number("%.0f", static_cast<double>(r.peak_memory_bytes) / (1 << 20));
  return header + "\n" + row + "\n";
}

std::string results_table(const ClassificationResults& r) {
  std::string table;
  char line[160];
  for (const auto& field : overall_fields(r.samples.multi_label())) {
    const auto member = field.value;
    const double low = r.intervals.low.overall.*member, high = r.intervals.high.overall.*member;
    std::snprintf(line, sizeof line, "%-20s %8.4f", field.title, r.scores.overall.*member);
    table += line;
    if (std::isfinite(low)) {
      std::snprintf(line, sizeof line, "   95 %% interval %.4f - %.4f", low, high);
      table += line;
    }
    table += "\n";
  }
  if (r.temperature) {
    std::snprintf(line,
                  sizeof line,
                  "%-20s %8.4f   with it ECE %.4f, Brier score %.4f, log loss %.4f\n",
                  "Temperature",
                  *r.temperature,
                  r.at_temperature.ece,
                  r.at_temperature.brier,
                  r.at_temperature.log_loss);
    table += line;
  }
  std::snprintf(line,
                sizeof line,
                "%ld pictures, %.1f per second, peak memory %ld MiB\n",
                static_cast<long>(r.samples.count()),
                r.pictures_per_second,
                static_cast<long>(r.peak_memory_bytes >> 20));
  return table + line;
}

}  // namespace vireo
