#pragma once

#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>

#include "vision/io/dicom/dicom_series.h"
#include "vision/io/segmentation/dcmqi_metadata.h"

namespace vireo {

/// Throws the DataError that write_rtstruct would throw for the source, before there are labels.
void check_rtstruct_source(const DicomSeries& source);

/// Writes labels (integers [Z, Y, X]) as a DICOM RT Structure Set, atomically: a region of interest
/// for each described label that has voxels, with closed planar contours in every slice of `grid`
/// (as for write_dicom_seg) where it lies.
///
/// Contours run along the edges of voxels: a voxel belongs to the region exactly when its centre
/// lies inside one of the slice's contours. Holes are joined by keyholes (see outlines()).
/// Coordinates have 5 decimals of a millimetre. Every contour names the source images of its slice,
/// and the object all of the series. The transfer syntax is Implicit VR Little Endian, because an
/// explicit one limits a contour to 64 KiB.
///
/// Returns false when no voxel carries a label: none is written then, and a file that an earlier
/// run left at `path` is removed. Throws as write_dicom_seg does, and DataError naming the source
/// when it has no place in the patient, where contours would have to lie.
bool write_rtstruct(const std::filesystem::path& path,
                    const at::Tensor& labels,
                    const Geometry& grid,
                    const DicomSeries& source,
                    const SegmentationMetadata& metadata,
                    const std::string& software_version);

}  // namespace vireo
