#pragma once

#include <array>
#include <functional>

#include <ATen/core/Tensor.h>

namespace vireo {

enum class Interpolation {
  kNearest,
  kLinear,
  kCubic,  ///< Keys' cubic convolution with a = -1/2 (Catmull-Rom), separable
};

/// An image [C, Z, Y, X] (floating point, CPU) on another grid over the same region: the volume's
/// outer faces stay, as Geometry::resized has it, and values beyond the outermost centres repeat
/// them. Sampling is at points: nothing is smoothed before it is made smaller. Axes whose size
/// stays are not touched. Threaded; the same result for any number of threads. Returns float32.
at::Tensor resample_image(const at::Tensor& image,
                          const std::array<int64_t, 3>& size_zyx,
                          Interpolation interpolation);

/// Gives slices first..first+count-1 of an image as [C, count, Y, X].
using SliceReader = std::function<at::Tensor(int64_t first, int64_t count)>;

/// Slices first..first+count-1 of what resample_image() makes of an image of size `from_zyx`, equal
/// to the bit, from the few slices that they depend on: [C, count, Y, X].
at::Tensor resample_slices(const SliceReader& read,
                           const std::array<int64_t, 3>& from_zyx,
                           const std::array<int64_t, 3>& to_zyx,
                           Interpolation interpolation,
                           int64_t first,
                           int64_t count);

/// Labels [Z, Y, X] (any integer type, kept) on another grid. kNearest takes the nearest voxel;
/// kLinear interpolates each label's mask and takes the label that weighs most, the smaller value
/// where two weigh the same. kCubic is refused.
at::Tensor resample_labels(const at::Tensor& labels,
                           const std::array<int64_t, 3>& size_zyx,
                           Interpolation interpolation = Interpolation::kLinear);

}  // namespace vireo
