#include <limits>

#include <nlohmann/json.hpp>

#include "apps/engine/golden_files.h"
#include "apps/engine/schedule.h"
#include "vision/losses/cross_entropy_dice.h"
#include "vision/metrics/segmentation_scores.h"

namespace vireo {
namespace {

using nlohmann::json;

constexpr double kScoreTolerance = 1e-6;
constexpr double kLossTolerance = 1e-10;
constexpr double kLossGradientTolerance = 1e-6;  // stored in float32
constexpr double kRateTolerance = 1e-10;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double number_of(const json& value) {
  return value.is_string() ? kNan : value.get<double>();  // "nan"
}

void check_pair(const SafetensorsFile& file, const json& pair, std::vector<Comparison>& results) {
  const std::string id = pair.at("id");
  const at::Tensor prediction = file.tensor("mask/" + id + "/pred");
  const at::Tensor truth = file.tensor("mask/" + id + "/truth");
  std::vector<double> spacing;
  if (!pair.at("spacing").is_null()) spacing = pair.at("spacing").get<std::vector<double>>();

  for (const auto& [metric, found] : medpy_scores(prediction, truth, spacing)) {
    if (!pair.contains(metric)) continue;
    const json& expected = pair.at(metric);
    const std::string name = id + "/" + metric;
    if (expected.contains("raises") == found.has_value())
      results.push_back({.group = "scores",
                         .name = name,
                         .problem = found ? "a number was found, none is defined"
                                          : "no number was found, one is expected"});
    else if (found)
      results.push_back(
          compare_number("scores", name, *found, number_of(expected.at("value")), kScoreTolerance));
  }
  const auto [dice, hd95] = transunet_scores(prediction, truth);
  const json& published = pair.at("calculate_metric_percase");
  results.push_back(compare_number(
      "published scores", id + "/dice", dice, number_of(published.at(0)), kScoreTolerance));
  results.push_back(compare_number(
      "published scores", id + "/hd95", hd95, number_of(published.at(1)), kScoreTolerance));
}

void check_label_map(const SafetensorsFile& file,
                     const json& item,
                     std::vector<Comparison>& results) {
  const std::string id = item.at("id");
  const at::Tensor prediction = file.tensor("multi/" + id + "/pred");
  const at::Tensor truth = file.tensor("multi/" + id + "/truth");
  const json& per_class = item.at("per_class_1..");
  for (size_t i = 0; i < per_class.size(); ++i) {
    const auto label = static_cast<int64_t>(i) + 1;
    const auto [dice, hd95] = transunet_scores(prediction.eq(label), truth.eq(label));
    const std::string name = "label map " + id + ", class " + std::to_string(label);
    results.push_back(compare_number(
        "published scores", name + " dice", dice, number_of(per_class[i].at(0)), kScoreTolerance));
    results.push_back(compare_number(
        "published scores", name + " hd95", hd95, number_of(per_class[i].at(1)), kScoreTolerance));
  }
}

void check_loss(const SafetensorsFile& file, const json& item, std::vector<Comparison>& results) {
  const std::string prefix = "loss/" + item.at("id").get<std::string>() + "/";
  const at::Tensor logits = file.tensor(prefix + "logits").to(at::kDouble).clone().requires_grad_();
  const CrossEntropyDice settings{.cross_entropy_weight = item.at("w_ce"),
                                  .dice_weight = item.at("w_dice")};
  const auto loss =
      cross_entropy_dice(logits, file.tensor(prefix + "target").to(at::kLong), settings);
  loss.total.backward();
  const auto expect = [&](const char* field, const at::Tensor& found, double tolerance) {
    results.push_back(
        compare("losses", prefix + field, found, file.tensor(prefix + field), tolerance));
  };
  expect("value", loss.total, kLossTolerance);
  expect("ce", loss.cross_entropy, kLossTolerance);
  expect("dice", loss.dice, kLossTolerance);
  expect("grad", logits.grad(), kLossGradientTolerance);
}

}  // namespace

GoldenReport verify_scores(const SafetensorsFile& file, const json& golden) {
  GoldenReport report;
  report.subject = "scores and losses";
  for (const auto& pair : golden.at("pairs")) check_pair(file, pair, report.comparisons);
  for (const auto& item : golden.value("multiclass", json::array()))
    check_label_map(file, item, report.comparisons);
  for (const auto& item : golden.value("loss", json::array()))
    check_loss(file, item, report.comparisons);
  return report;
}

GoldenReport verify_schedules(const json& golden) {
  GoldenReport report;
  report.subject = "learning rates";
  const auto expect = [&](const std::string& name, int64_t iteration, double found, double rate) {
    report.comparisons.push_back(
        compare_number(name, name + " " + std::to_string(iteration), found, rate, kRateTolerance));
  };
  using Rates = std::vector<std::pair<int64_t, double>>;

  const json& poly = golden.at("poly");
  const double base = poly.at("base_lr");
  for (const auto& [iteration, rate] : poly.at("assigned").get<Rates>())
    expect("poly", iteration, poly_rate(base, iteration, poly.at("max_iterations")), rate);
  for (const auto& extra : golden.value("poly_extra", json::array()))
    for (const auto& [iteration, rate] : extra.at("values").get<Rates>())
      expect(
          "poly_extra",
          iteration,
          poly_rate(extra.at("base_lr"), iteration, extra.at("max_iterations"), extra.at("power")),
          rate);

  const int64_t epochs = poly.at("epochs");
  if (golden.contains("synapse_effective"))
    for (const auto& [iteration, rate] : golden.at("synapse_effective").at("used").get<Rates>())
      expect("synapse_effective",
             iteration,
             published_synapse_rate(base, iteration, poly.at("iters_per_epoch"), epochs),
             rate);
  if (golden.contains("acdc_effective"))
    for (const auto& [key, value] : golden.at("acdc_effective").items()) {
      if (!key.starts_with("used")) continue;
      const auto rates = value.get<std::vector<double>>();
      for (size_t i = 0; i < rates.size(); ++i)
        expect("acdc_effective",
               static_cast<int64_t>(i),
               published_acdc_rate(base, static_cast<int64_t>(i), epochs),
               rates[i]);
    }
  return report;
}

}  // namespace vireo
