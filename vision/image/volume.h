#pragma once

#include <ATen/core/Tensor.h>

#include "vision/image/geometry.h"

namespace vireo {

/// An image with its place in space. `values` is a contiguous CPU tensor [C, Z, Y, X]: float32 for
/// images, an integer type for label maps (C = 1). geometry.size_zyx equals the last three sizes.
struct Volume {
  at::Tensor values;
  Geometry geometry;
  /// The value of full brightness where the stored type tells it: 255 for 8-bit and 65535 for
  /// 16-bit pictures; 0 where there is none (measurements, such as CT and MR).
  double full_scale = 0;
};

}  // namespace vireo
