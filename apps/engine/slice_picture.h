#pragma once

#include <cstdint>
#include <vector>

#include "vision/image/volume.h"
#include "vision/io/canvas.h"

namespace vireo {

/// One slice of a volume: `index` along the array axis `axis` (0 = z, 1 = y, 2 = x).
struct PictureSlice {
  int axis = 0;
  int64_t index = 0;
};

/// Across the coarsest axis, the slice where `weight` [Z, Y, X] (numbers or bool) sums highest; the
/// middle one when it is zero everywhere.
PictureSlice heaviest_slice(const at::Tensor& weight, const Geometry& geometry);

/// The values at black and white: a soft-tissue window for CT (values down to air), else the 0.5th
/// and 99.5th percentile.
std::array<double, 2> display_window(const at::Tensor& values);

/// Draws a slice of `image` ([C, Z, Y, X]; three channels: colour; undefined values: black) in true
/// proportions, `width_px` wide, as radiologists look at it: the patient's right on the left, front
/// or head on top. `labels` [Z, Y, X], where defined, are drawn over it.
Canvas draw_slice(const at::Tensor& image,
                  const at::Tensor& labels,
                  const Geometry& geometry,
                  const PictureSlice& slice,
                  int64_t width_px,
                  double fill = 0.3,
                  const std::vector<Color>& colors = {});

}  // namespace vireo
