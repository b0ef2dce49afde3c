#include "apps/engine/scaling_plot.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "vision/io/plot.h"

namespace vireo {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kPanelWidth = 620, kPanelHeight = 400;
constexpr double kMargin = 1.3;  // of the axis beyond the first and the last point
constexpr double kWidest = std::numeric_limits<double>::max();

// Halfway to white.
Color paler(Color color) {
  for (auto& part : color) part = static_cast<uint8_t>(part + (255 - part) / 2);
  return color;
}

Plot per_pixel(const Json& report,
               const std::string& title,
               const std::string& label,
               const std::function<double(const Json& point)>& value) {
  Plot plot;
  plot.title = title;
  plot.x = {"image area, megapixels", kWidest, 0, true};
  plot.y = {label, {}, {}, true};
  std::map<std::string, int64_t> colors;
  for (const Json& series : report.at("series")) {
    const std::string name = series.at("name");
    const bool attention = series.at("form") == "attention";
    const auto color = colors.emplace(name, static_cast<int64_t>(colors.size()) + 1).first->second;
    PlotSeries line;
    line.name = attention ? name + " with attention" : name;
    line.color = attention ? paler(label_color(color)) : label_color(color);
    line.width_px = attention ? 1.4 : 2.4;
    line.dots = true;
    for (const Json& point : series.at("points")) {
      const double megapixels = point.at("pixels").get<double>() / 1e6;
      plot.x.low = std::min(*plot.x.low, megapixels / kMargin);
      plot.x.high = std::max(*plot.x.high, megapixels * kMargin);
      line.x.push_back(megapixels);
      line.y.push_back(value(point));
    }
    plot.series.push_back(line);
  }
  return plot;
}

}  // namespace

void draw_scaling(const Json& report, const std::filesystem::path& png) {
  const Plot time = per_pixel(report, "Time", "microseconds per pixel", [](const Json& point) {
    return point.at("ns_per_pixel").get<double>() / 1e3;
  });
  const Plot memory = per_pixel(report, "Peak memory", "bytes per pixel", [](const Json& point) {
    const Json& peak = point.at("peak_bytes");
    return peak.is_null() ? std::numeric_limits<double>::quiet_NaN()
                          : peak.get<double>() / point.at("pixels").get<double>();
  });
  tile({draw_plot(time, kPanelWidth, kPanelHeight), draw_plot(memory, kPanelWidth, kPanelHeight)},
       2)
      .write_png(png);
}

}  // namespace vireo
