#include "apps/engine/progress_plot.h"

#include <algorithm>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "vision/io/plot.h"

namespace vireo {
namespace {

using nlohmann::json;

constexpr int64_t kWidth = 560, kHeight = 320;
constexpr Color kMeanColor{45, 48, 54};

PlotSeries series(const json& history, const std::string& key, const std::string& name, int color) {
  PlotSeries s;
  s.name = name;
  s.color = label_color(color);
  for (const json& record : history) {
    // Epochs without validation leave no gap in the line.
    const auto value = record.find(key);
    if (value == record.end()) continue;
    s.x.push_back(record.at("epoch").get<double>());
    s.y.push_back(value->is_number() ? value->get<double>()
                                     : std::numeric_limits<double>::quiet_NaN());
  }
  return s;
}

Plot plot(const std::string& title, std::vector<PlotSeries> lines) {
  Plot p;
  p.title = title;
  p.x.label = "epoch";
  p.series = std::move(lines);
  return p;
}

}  // namespace

void draw_progress(const json& history, const std::filesystem::path& png) {
  Plot loss = plot("Loss",
                   {series(history, "loss", "training", 1),
                    series(history, "validation_loss", "validation", 2)});

  std::vector<PlotSeries> scores;
  std::set<std::string> classes;
  for (const json& record : history)
    for (const auto& [key, value] : record.items())
      if (key.rfind("pseudo_dice/", 0) == 0) classes.insert(key);
  int color = 1;
  for (const std::string& key : classes)
    scores.push_back(series(history, key, key.substr(key.find('/') + 1), color++));
  scores.push_back(series(history, "pseudo_dice", "mean", 0));
  scores.back().color = kMeanColor;
  scores.back().width_px = 2.6;
  const bool classifies = std::any_of(
      history.begin(), history.end(), [](const json& r) { return r.contains("auroc"); });
  if (classifies)
    scores = {series(history, "accuracy", "accuracy", 1),
              series(history, "balanced_accuracy", "balanced", 2),
              series(history, "auroc", "AUROC", 3)};
  Plot score = plot(classifies ? "Scores of held-out pictures" : "Pseudo-Dice on held-out slices",
                    std::move(scores));
  score.y.high = 1;

  Plot rate = plot("Learning rate", {series(history, "learning_rate", "", 1)});
  Plot seconds = plot("Seconds per epoch", {series(history, "seconds", "", 1)});
  seconds.y.low = 0;

  tile({draw_plot(loss, kWidth, kHeight),
        draw_plot(score, kWidth, kHeight),
        draw_plot(rate, kWidth, kHeight),
        draw_plot(seconds, kWidth, kHeight)},
       2)
      .write_png(png);
}

}  // namespace vireo
