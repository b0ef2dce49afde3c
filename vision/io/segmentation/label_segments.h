#pragma once

#include <array>
#include <filesystem>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vision/image/geometry.h"
#include "vision/io/segmentation/segment_description.h"

namespace vireo {

/// A described label and where it lies in a label map.
struct LabelSegment {
  SegmentDescription description;
  int64_t voxels = 0;
  std::array<int64_t, 3> first_zyx{}, last_zyx{};  ///< of its bounding box, inclusive
  std::vector<int64_t> slices;                     ///< z of each slice with a voxel of it

  bool empty() const { return voxels == 0; }
};

struct LabelSegments {
  at::Tensor labels;                   ///< [Z, Y, X], as they were given
  std::vector<LabelSegment> segments;  ///< one for each description, in their order, empty or not

  /// A slice of the labels: int32 [Y, X], contiguous.
  at::Tensor slice(int64_t z) const;

  /// The segments that have voxels.
  std::vector<const LabelSegment*> present() const;
};

/// Finds the described labels (integers [Z, Y, X], 0 = none) that are to be written to `path`.
/// Throws DataError naming `path` when the shape is not the grid's or a value has no description,
/// ConfigError when the descriptions are not sound (see check_segments).
LabelSegments find_segments(const std::filesystem::path& path,
                            const at::Tensor& labels,
                            const Geometry& grid,
                            const std::vector<SegmentDescription>& descriptions);

}  // namespace vireo
