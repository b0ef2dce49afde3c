#pragma once

#include <ATen/core/Tensor.h>

#include "vision/image/geometry.h"

namespace vireo {

/// An image with its place in space. `values` is a contiguous CPU tensor [C, Z, Y, X]: float32 for
/// images, an integer type for label maps (C = 1). geometry.size_zyx equals the last three sizes.
struct Volume {
  at::Tensor values;
  Geometry geometry;
};

}  // namespace vireo
