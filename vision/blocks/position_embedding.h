#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vireo {

enum class Interpolation { kBilinear, kBicubic };

/// Learned positions [1, from_height·from_width, C] of one grid of tokens, row by row, resampled to
/// another (align_corners = false): [1, height·width, C]. The same tensor where the grids are
/// equal.
at::Tensor resize_positions(const at::Tensor& positions,
                            int64_t from_height,
                            int64_t from_width,
                            int64_t height,
                            int64_t width,
                            Interpolation interpolation = Interpolation::kBicubic);

}  // namespace vireo
