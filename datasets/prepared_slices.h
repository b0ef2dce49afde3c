#pragma once

#include <array>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/preparation.h"
#include "vision/image/orientation.h"
#include "vision/image/volume.h"

namespace vireo {

/// The grid of the prepared image of a case that has the preparation's orientation, axes ordered as
/// prepared.
Geometry prepared_geometry(const Preparation& preparation, const Geometry& turned);

/// The prepared image of a case, made slab by slab from the image as it is stored: turned to the
/// preparation's orientation, cut along its slice axis, normalised, resampled (see prepare_case).
/// Which slices are asked for together does not change them.
class PreparedSlices {
 public:
  /// The values of `image`, float32 or int16, are shared, not copied; `turn` gives it the
  /// preparation's orientation. Looks through the image once. Throws DataError (path `name`) for a
  /// wrong channel count, non-finite voxels, and colours of an unknown depth.
  PreparedSlices(std::string name,
                 Volume image,
                 const Reorientation& turn,
                 const Preparation& preparation);

  int64_t channels() const { return static_cast<int64_t>(normalizations_.size()); }
  /// The prepared grid; its size is (D, H, W), D the number of slices.
  const Geometry& geometry() const { return geometry_; }
  /// From the image's axes to those of the prepared slices.
  const Reorientation& axes() const { return axes_; }
  /// The image's size along them, before resampling.
  const std::array<int64_t, 3>& stored_size() const { return stored_size_; }

  /// Slices first..first+count-1: float32 [C, count, H, W], contiguous.
  at::Tensor read(int64_t first, int64_t count) const;

 private:
  struct Normalization {
    ChannelNormalization how;
    int64_t channel = 0;  // of the image
    double mean = 0, sd = 1;
  };

  void read_stored(int64_t channel, int64_t first, const at::Tensor& into) const;
  at::Tensor normalised(int64_t first, int64_t count) const;
  void measure(Normalization& one) const;

  std::string name_;
  Volume image_;
  Reorientation axes_;
  Geometry geometry_;
  std::array<int64_t, 3> stored_size_{};
  bool averages_ = false;  // pictures brought to one size
  std::vector<Normalization> normalizations_;
};

}  // namespace vireo
