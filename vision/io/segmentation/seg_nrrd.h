#pragma once

#include <filesystem>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vision/image/geometry.h"
#include "vision/io/segmentation/segment_description.h"

namespace vireo {

/// Writes labels (integers [Z, Y, X]) as a segmentation of 3D Slicer (.seg.nrrd), atomically: NRRD
/// in LPS space, gzip, uint8 where all described values allow it, else uint16. Every description
/// becomes a segment with name, colour, value, extent and terminology, on one layer; one without
/// voxels is listed as empty. Throws DataError, ConfigError as find_segments does.
void write_seg_nrrd(const std::filesystem::path& path,
                    const at::Tensor& labels,
                    const Geometry& grid,
                    const std::vector<SegmentDescription>& descriptions);

}  // namespace vireo
