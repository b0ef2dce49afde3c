#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

namespace vireo {

/// Squared Euclidean distance, in the square of the spacing's unit, from every voxel's centre to
/// the nearest voxel of `mask` that is not zero. Exact: one lower envelope of parabolas per line
/// and axis (Felzenszwalb and Huttenlocher, 2012), in float64, threaded over lines.
///
/// mask: CPU, any number of axes, any integer type or bool. spacing: one positive number per axis.
/// Returns float64 of mask's shape; infinity everywhere when the mask is empty.
at::Tensor squared_distance_transform(const at::Tensor& mask, c10::ArrayRef<double> spacing);

}  // namespace vireo
