#include "vision/io/segmentation/source_planes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "vision/core/error.h"

namespace vireo {
namespace {

double projection(const Vector3& a, const Vector3& b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

Vector3 plane_normal(const Geometry& grid) {
  const auto& d = grid.direction_lps_from_zyx;
  const Vector3 x{d[0][2], d[1][2], d[2][2]}, y{d[0][1], d[1][1], d[2][1]};
  return {x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]};
}

}  // namespace

bool lies_in_patient(const DicomSeries& source) {
  return !source.first_file().frame_of_reference_uid.empty() &&
         std::all_of(source.slices.begin(), source.slices.end(), [&](const DicomSlice& slice) {
           const DicomFrame& frame = source.frame(slice);
           return frame.position_lps_mm && frame.axes_lps_xy;
         });
}

std::vector<const DicomFile*> files_read(const DicomSeries& source) {
  std::set<size_t> indices;
  for (const DicomSlice& slice : slices_read(source)) indices.insert(slice.file);
  std::vector<const DicomFile*> files;
  for (const size_t index : indices) files.push_back(&source.files.at(index));
  return files;
}

std::vector<std::vector<DicomSlice>> sources_of_planes(const DicomSeries& source,
                                                       const Geometry& grid) {
  const auto planes = static_cast<size_t>(grid.size_zyx[0]);
  const std::vector<DicomSlice> slices = slices_read(source);
  std::vector<std::vector<DicomSlice>> result(planes);
  if (!lies_in_patient(source)) {
    if (slices.size() != planes)
      throw DataError(source.first_file().path,
                      "gives no place in the patient, so that its " +
                          std::to_string(slices.size()) + " slices and the " +
                          std::to_string(planes) + " of the label map cannot be matched");
    for (size_t z = 0; z < planes; ++z) result[z] = {slices[z]};
    return result;
  }
  const Vector3 normal = plane_normal(grid);
  std::vector<double> heights;
  for (const DicomSlice& slice : slices)
    heights.push_back(projection(normal, *source.frame(slice).position_lps_mm));
  const double start = projection(normal, grid.lps_from_voxel({0, 0, 0}));
  const double step = projection(normal, grid.lps_from_voxel({1, 0, 0})) - start;
  for (size_t z = 0; z < planes; ++z) {
    const double height = start + step * static_cast<double>(z);
    const DicomSlice* below = nullptr;
    const DicomSlice* above = nullptr;
    double to_below = std::numeric_limits<double>::infinity(), to_above = to_below;
    for (size_t i = 0; i < heights.size(); ++i) {
      const double offset = heights[i] - height;
      if (std::abs(offset) < std::abs(step) / 2) result[z].push_back(slices[i]);
      if (offset <= 0 && -offset < to_below) {
        below = &slices[i];
        to_below = -offset;
      } else if (offset > 0 && offset < to_above) {
        above = &slices[i];
        to_above = offset;
      }
    }
    if (!result[z].empty()) continue;
    if (below != nullptr) result[z].push_back(*below);
    if (above != nullptr) result[z].push_back(*above);
  }
  return result;
}

}  // namespace vireo
