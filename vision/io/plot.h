#pragma once

#include <optional>
#include <string>
#include <vector>

#include "vision/io/canvas.h"

namespace vireo {

/// A line through (x[i], y[i]); points that are not finite break it.
struct PlotSeries {
  std::string name;  ///< in the legend; none when empty
  std::vector<double> x, y;
  Color color{0, 0, 0};
  double width_px = 1.6;
  bool dots = false;  ///< a disc at every point
};

struct PlotAxis {
  std::string label;
  std::optional<double> low, high;  ///< fixed ends; else those of the data, rounded outwards
  bool logarithmic = false;         ///< base 10; values of 0 and below are left out
};

struct Plot {
  std::string title;
  PlotAxis x, y;
  std::vector<PlotSeries> series;
};

/// Draws a line plot with axes, a grid and a legend. Plots without a finite point get empty axes.
Canvas draw_plot(const Plot& plot, int64_t width, int64_t height);

/// Round positions (steps of 1, 2 or 5 times a power of ten) within [low, high], about `count` of
/// them.
std::vector<double> axis_ticks(double low, double high, int count);

/// A tick's text, for example "0.05", "1200" or "1e-06".
std::string tick_text(double value);

}  // namespace vireo
