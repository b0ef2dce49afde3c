#include "vision/io/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace vireo {
namespace {

constexpr Color kInk{45, 48, 54}, kMuted{120, 124, 132}, kGrid{232, 234, 238};
constexpr double kTextPx = 8, kTitlePx = 9.5, kTitleBaseline = 21;
constexpr double kFine = 2;  // everything is drawn this much larger, then reduced

// One axis: from values to a share 0..1 of its length.
class Scale {
 public:
  Scale(const PlotAxis& axis, const std::vector<const std::vector<double>*>& data, bool rounded)
      : logarithmic_(axis.logarithmic) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const auto* values : data)
      for (const double value : *values) {
        if (!usable(value)) continue;
        low = std::min(low, value);
        high = std::max(high, value);
      }
    if (low > high) low = logarithmic_ ? 0.1 : 0, high = 1;
    if (low == high) low -= std::abs(low) * 0.05 + 1e-12, high += std::abs(high) * 0.05 + 1e-12;
    if (logarithmic_) {
      low = std::pow(10, std::floor(std::log10(low)));
      high = std::pow(10, std::ceil(std::log10(high)));
    } else if (rounded) {
      const std::vector<double> ticks = axis_ticks(low, high, 5);
      const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : high - low;
      low = std::floor(low / step + 1e-9) * step;
      high = std::ceil(high / step - 1e-9) * step;
    }
    low_ = axis.low.value_or(low);
    high_ = axis.high.value_or(high);
    if (high_ <= low_) high_ = low_ + 1;
  }

  bool usable(double value) const { return std::isfinite(value) && (!logarithmic_ || value > 0); }
  double share(double value) const {
    if (logarithmic_) return std::log(value / low_) / std::log(high_ / low_);
    return (value - low_) / (high_ - low_);
  }
  std::vector<double> ticks(int count) const {
    if (!logarithmic_) return axis_ticks(low_, high_, count);
    std::vector<double> powers;
    for (double value = std::pow(10, std::ceil(std::log10(low_) - 1e-9));
         value <= high_ * (1 + 1e-9);
         value *= 10)
      powers.push_back(value);
    return powers;
  }

 private:
  bool logarithmic_;
  double low_ = 0, high_ = 1;
};

struct Frame {
  double left, top, right, bottom;
  double x(double share) const { return left + share * (right - left); }
  double y(double share) const { return bottom - share * (bottom - top); }
};

void draw_axes(
    Canvas& canvas, const Plot& plot, const Frame& frame, const Scale& x, const Scale& y) {
  const auto columns = std::max(2, static_cast<int>((frame.right - frame.left) / (70 * kFine)));
  const auto rows = std::max(2, static_cast<int>((frame.bottom - frame.top) / (36 * kFine)));
  for (const double tick : y.ticks(rows)) {
    const double at = frame.y(y.share(tick));
    canvas.draw_line(frame.left, at, frame.right, at, kGrid, kFine);
    canvas.draw_text(frame.left - 5 * kFine,
                     at + kTextPx * kFine / 2,
                     tick_text(tick),
                     kTextPx * kFine,
                     kMuted,
                     Canvas::Align::kRight);
  }
  for (const double tick : x.ticks(columns)) {
    const double at = frame.x(x.share(tick));
    canvas.draw_line(at, frame.bottom, at, frame.bottom + 4 * kFine, kMuted, kFine);
    canvas.draw_text(at,
                     frame.bottom + (6 + kTextPx) * kFine,
                     tick_text(tick),
                     kTextPx * kFine,
                     kMuted,
                     Canvas::Align::kCenter);
  }
  canvas.draw_line(frame.left, frame.bottom, frame.right, frame.bottom, kMuted, kFine);
  canvas.draw_text(
      frame.left, kTitleBaseline * kFine, plot.title, kTitlePx * kFine, kInk, Canvas::Align::kLeft);
  canvas.draw_text((frame.left + frame.right) / 2,
                   frame.bottom + (13 + 2 * kTextPx) * kFine,
                   plot.x.label,
                   kTextPx * kFine,
                   kInk,
                   Canvas::Align::kCenter);
  if (!plot.y.label.empty())
    canvas.draw_vertical_text(
        11 * kFine, (frame.top + frame.bottom) / 2, plot.y.label, kTextPx * kFine, kInk);
}

void draw_series(
    Canvas& canvas, const PlotSeries& series, const Frame& frame, const Scale& x, const Scale& y) {
  std::vector<std::array<double, 2>> run;
  const auto finish_run = [&] {
    canvas.draw_polyline(run, series.color, series.width_px * kFine);
    if (series.dots || run.size() == 1)
      for (const auto& [px, py] : run)
        canvas.draw_disc(px, py, 1.5 * series.width_px * kFine, series.color);
    run.clear();
  };
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    if (!x.usable(series.x[i]) || !y.usable(series.y[i])) {
      finish_run();
      continue;
    }
    const double limit = 1.02;  // what a fixed axis cuts off stays near its edge
    run.push_back({frame.x(std::clamp(x.share(series.x[i]), -0.02, limit)),
                   frame.y(std::clamp(y.share(series.y[i]), -0.02, limit))});
  }
  finish_run();
}

constexpr double kLegendLine = 14, kLegendGap = 5, kLegendSpace = 12, kLegendRow = 14;

using LegendRow = std::vector<const PlotSeries*>;

double legend_width(const PlotSeries& series) {
  return (kLegendLine + kLegendGap + kLegendSpace) * kFine +
         Canvas::text_width(series.name, kTextPx * kFine);
}

double legend_width(const LegendRow& row) {
  double width = 0;
  for (const PlotSeries* series : row) width += legend_width(*series);
  return width;
}

// One row, which goes beside the title where there is room; otherwise as many below it as it takes.
std::vector<LegendRow> legend_rows(const Plot& plot, double width) {
  std::vector<LegendRow> rows(1);
  for (const PlotSeries& series : plot.series) {
    if (series.name.empty()) continue;
    if (!rows.back().empty() && legend_width(rows.back()) + legend_width(series) > width)
      rows.emplace_back();
    rows.back().push_back(&series);
  }
  return rows;
}

bool fits_beside_title(const Plot& plot, const std::vector<LegendRow>& rows, double width) {
  return rows.size() == 1 &&
         Canvas::text_width(plot.title, kTitlePx * kFine) + 20 * kFine + legend_width(rows[0]) <=
             width;
}

void draw_legend(Canvas& canvas, const LegendRow& row, double left, double baseline) {
  const double size = kTextPx * kFine, middle = baseline - size / 2;
  for (const PlotSeries* series : row) {
    const double end = left + kLegendLine * kFine;
    canvas.draw_line(left, middle, end, middle, series->color, 2 * kFine);
    canvas.draw_text(
        end + kLegendGap * kFine, baseline, series->name, size, kInk, Canvas::Align::kLeft);
    left += legend_width(*series);
  }
}

}  // namespace

std::vector<double> axis_ticks(double low, double high, int count) {
  const double rough = (high - low) / std::max(1, count);
  if (!(rough > 0) || !std::isfinite(rough)) return {low};
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * (1 - 1e-9)) {
      step = factor * power;
      break;
    }
  std::vector<double> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k)
    ticks.push_back(k == 0 ? 0 : k * step);
  return ticks;
}

std::string tick_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

Canvas draw_plot(const Plot& plot, int64_t width, int64_t height) {
  std::vector<const std::vector<double>*> all_x, all_y;
  for (const PlotSeries& series : plot.series) {
    all_x.push_back(&series.x);
    all_y.push_back(&series.y);
  }
  const Scale x(plot.x, all_x, false), y(plot.y, all_y, true);
  double tick_width = 0;
  for (const double tick : y.ticks(6))
    tick_width = std::max(tick_width, Canvas::text_width(tick_text(tick), kTextPx * kFine));

  const auto fine = static_cast<int64_t>(kFine);
  Canvas canvas(width * fine, height * fine);
  const double label_px = plot.y.label.empty() ? 10 : 26;
  Frame frame{label_px * kFine + tick_width,
              (kTitleBaseline + 9) * kFine,
              static_cast<double>(width) * kFine - 16 * kFine,
              static_cast<double>(height) * kFine - (plot.x.label.empty() ? 24 : 40) * kFine};
  const std::vector<LegendRow> legend = legend_rows(plot, frame.right - frame.left);
  if (fits_beside_title(plot, legend, frame.right - frame.left)) {
    const double left = frame.right - legend_width(legend[0]) + kLegendSpace * kFine;
    draw_legend(canvas, legend[0], left, kTitleBaseline * kFine);
  } else {
    for (const LegendRow& row : legend) {
      draw_legend(canvas, row, frame.left, frame.top + 5 * kFine);
      frame.top += kLegendRow * kFine;
    }
  }
  draw_axes(canvas, plot, frame, x, y);
  for (const PlotSeries& series : plot.series) draw_series(canvas, series, frame, x, y);
  return canvas.resized(width, height);
}

}  // namespace vireo
