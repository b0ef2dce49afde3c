#include "vision/io/segmentation/label_segments.h"

#include <algorithm>

#include "vision/core/error.h"

namespace vireo {

std::vector<const LabelSegment*> LabelSegments::present() const {
  std::vector<const LabelSegment*> found;
  for (const LabelSegment& segment : segments)
    if (!segment.empty()) found.push_back(&segment);
  return found;
}

at::Tensor LabelSegments::slice(int64_t z) const {
  return labels.select(0, z).to(at::kInt).contiguous();
}

LabelSegments find_segments(const std::filesystem::path& path,
                            const at::Tensor& labels,
                            const Geometry& grid,
                            const std::vector<SegmentDescription>& descriptions) {
  const auto& size = grid.size_zyx;
  if (labels.dim() != 3 || labels.is_floating_point() || labels.size(0) != size[0] ||
      labels.size(1) != size[1] || labels.size(2) != size[2])
    throw DataError(path,
                    "cannot be written: labels must be integers of the grid's shape " +
                        c10::str(at::IntArrayRef(size.data(), size.size())) + ", but are " +
                        c10::toString(labels.scalar_type()) + " " + c10::str(labels.sizes()));
  constexpr int64_t kMostInt32 = 2147483647;
  if (labels.scalar_type() == at::kLong && labels.numel() > 0 &&
      (labels.max().item<int64_t>() > kMostInt32 || labels.min().item<int64_t>() < -kMostInt32))
    throw DataError(path, "cannot be written: the label map holds values beyond 65535");
  check_segments("segments", descriptions);
  LabelSegments result;
  result.labels = labels.cpu();
  constexpr int kMostValues = 65536;
  std::vector<LabelSegment*> segment_of(kMostValues, nullptr);
  result.segments.resize(descriptions.size());
  for (size_t i = 0; i < descriptions.size(); ++i) {
    result.segments[i].description = descriptions[i];
    segment_of[static_cast<size_t>(descriptions[i].value)] = &result.segments[i];
  }

  for (int64_t z = 0; z < size[0]; ++z) {
    const at::Tensor slice = result.slice(z);
    const int32_t* value = slice.const_data_ptr<int32_t>();
    for (int64_t y = 0; y < size[1]; ++y)
      for (int64_t x = 0; x < size[2]; ++x, ++value) {
        if (*value == 0) continue;
        LabelSegment* segment =
            *value > 0 && *value < kMostValues ? segment_of[static_cast<size_t>(*value)] : nullptr;
        if (segment == nullptr)
          throw DataError(path,
                          "cannot be written: the label map holds the value " +
                              std::to_string(*value) +
                              ", which no segment describes. Describe it, or map it to 0");
        const std::array<int64_t, 3> at{z, y, x};
        if (segment->empty()) segment->first_zyx = segment->last_zyx = at;
        for (size_t i = 0; i < 3; ++i) {
          segment->first_zyx[i] = std::min(segment->first_zyx[i], at[i]);
          segment->last_zyx[i] = std::max(segment->last_zyx[i], at[i]);
        }
        if (segment->slices.empty() || segment->slices.back() != z) segment->slices.push_back(z);
        ++segment->voxels;
      }
  }
  return result;
}

}  // namespace vireo
