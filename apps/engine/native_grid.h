#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

namespace vireo {

/// Carries class probabilities from the prepared grid to a grid of another size over the same
/// region of space (Geometry::resized), and takes the most probable class there. It is given slab
/// after slab and keeps one slice of each slab; the probabilities of the whole never exist at once.
class NativeGrid {
 public:
  /// Receives the probabilities [K, H, W] of one slice of the target grid, in order; the tensor's
  /// memory is reused for the next.
  using SliceSink = std::function<void(int64_t slice, const at::Tensor& probabilities)>;

  /// Sizes are (D, H, W), axes ordered as prepared. `probabilities` may be empty.
  NativeGrid(std::array<int64_t, 3> prepared_size,
             std::array<int64_t, 3> native_size,
             SliceSink probabilities = nullptr);

  /// Probabilities float32 [S, K, H, W] of prepared slices first..first+S-1, following the last
  /// call's. Trilinear, sample positions at voxel centres, the border extended.
  void add(int64_t first, const at::Tensor& probabilities);

  /// uint8 [D, H, W] class numbers on the native grid, once every slice was added.
  const at::Tensor& labels() const;

 private:
  at::Tensor slice(int64_t prepared_index) const;
  void emit(int64_t native_index, int64_t lower, int64_t upper, float upper_weight);

  std::array<int64_t, 3> from_, to_;
  SliceSink sink_;
  at::Tensor labels_;
  at::Tensor slab_, carried_;  // probabilities at hand: those just added, and the slice before them
  at::Tensor resampled_;       // [K, H, W] for the sink
  int64_t slab_first_ = 0, available_ = 0, emitted_ = 0;
};

}  // namespace vireo
