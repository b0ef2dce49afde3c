#include "apps/engine/slice_picture.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/zeros.h>

#include "vision/metrics/statistics.h"

namespace vireo {
namespace {

constexpr double kCtLow = -160, kCtHigh = 240;  // HU
constexpr double kAirHu = -500;

// The patient axis (0 = L, 1 = P, 2 = S) that an array axis runs along, and whether it runs
// forwards.
struct Course {
  size_t patient_axis;
  bool forwards;
};

Course course_of(const Geometry& geometry, size_t array_axis) {
  size_t best = 0;
  const auto along = [&](size_t i) { return geometry.direction_lps_from_zyx[i][array_axis]; };
  for (size_t i = 1; i < 3; ++i)
    if (std::abs(along(i)) > std::abs(along(best))) best = i;
  return {best, along(best) > 0};
}

// How a slice [rows, columns] is turned to stand upright.
struct Upright {
  bool transposed = false;
  std::vector<int64_t> flipped;

  at::Tensor operator()(at::Tensor plane) const {
    if (transposed) plane = plane.transpose(-2, -1);
    std::vector<int64_t> axes;
    for (const int64_t axis : flipped) axes.push_back(plane.dim() - 2 + axis);
    return axes.empty() ? plane : plane.flip(axes);
  }
};

Upright upright(const Geometry& geometry, size_t row_axis, size_t column_axis) {
  Course rows = course_of(geometry, row_axis), columns = course_of(geometry, column_axis);
  Upright result;
  // The later of L, P, S goes downwards.
  if (rows.patient_axis < columns.patient_axis) {
    result.transposed = true;
    std::swap(rows, columns);
  }
  const bool head_up = rows.patient_axis == 2;
  if (rows.forwards == head_up) result.flipped.push_back(0);
  if (!columns.forwards) result.flipped.push_back(1);
  return result;
}

}  // namespace

PictureSlice heaviest_slice(const at::Tensor& weight, const Geometry& geometry) {
  const int axis = geometry.coarsest_axis();
  std::vector<int64_t> others;
  for (int64_t other = 0; other < 3; ++other)
    if (other != axis) others.push_back(other);
  const at::Tensor sums = weight.sum(others, /*keepdim=*/false, at::kDouble);
  const auto heaviest = sums.argmax().item<int64_t>();
  if (sums[heaviest].item<double>() <= 0)
    return {axis, geometry.size_zyx[static_cast<size_t>(axis)] / 2};
  return {axis, heaviest};
}

std::array<double, 2> display_window(const at::Tensor& values) {
  const at::Tensor flat = values.reshape(-1);
  const int64_t step = std::max<int64_t>(1, flat.numel() / 100000);
  const at::Tensor some = flat.slice(0, 0, flat.numel(), step).to(at::kDouble).contiguous();
  std::vector<double> sample;
  for (int64_t i = 0; i < some.numel(); ++i) {
    const double value = some.const_data_ptr<double>()[i];
    if (std::isfinite(value)) sample.push_back(value);
  }
  if (sample.empty()) return {0, 1};
  const double low = percentile(sample, 0.5), high = percentile(sample, 99.5);
  if (low < kAirHu) return {kCtLow, kCtHigh};
  return {low, high > low ? high : low + 1};
}

Canvas draw_slice(const at::Tensor& image,
                  const at::Tensor& labels,
                  const Geometry& geometry,
                  const PictureSlice& slice,
                  int64_t width_px,
                  double fill,
                  const std::vector<Color>& colors) {
  const size_t row_axis = slice.axis == 0 ? 1 : 0, column_axis = slice.axis == 2 ? 1 : 2;
  const Upright turn = upright(geometry, row_axis, column_axis);
  double height_mm =
      static_cast<double>(geometry.size_zyx[row_axis]) * geometry.spacing_mm_zyx[row_axis];
  double width_mm =
      static_cast<double>(geometry.size_zyx[column_axis]) * geometry.spacing_mm_zyx[column_axis];
  if (turn.transposed) std::swap(height_mm, width_mm);
  const auto height_px = std::clamp<int64_t>(
      std::llround(static_cast<double>(width_px) * height_mm / width_mm), 1, 4 * width_px);

  at::Tensor plane = at::zeros({geometry.size_zyx[row_axis], geometry.size_zyx[column_axis]});
  if (image.defined()) plane = image.select(1 + slice.axis, slice.index);
  const bool colour = plane.dim() == 3 && plane.size(0) == 3;
  if (plane.dim() == 3 && !colour) plane = plane[0];
  const std::array<double, 2> window =
      image.defined() ? display_window(colour ? image : image[0]) : std::array<double, 2>{0, 1};
  plane = turn(plane);
  Canvas canvas = (colour ? Canvas::from_rgb(plane, window[0], window[1])
                          : Canvas::from_gray(plane, window[0], window[1]))
                      .resized(width_px, height_px);
  if (labels.defined())
    canvas.draw_labels(turn(labels.select(slice.axis, slice.index)), colors, fill);
  return canvas;
}

}  // namespace vireo
