#pragma once

#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>

#include "vision/io/dicom/dicom_series.h"
#include "vision/io/segmentation/dcmqi_metadata.h"

namespace vireo {

/// What made a segmentation.
struct AlgorithmIdentity {
  std::string name;              ///< of the model; at most 64 characters
  std::string version;           ///< of the model; at most 64 characters
  std::string weights_sha256;    ///< may be empty
  std::string software_version;  ///< Vireo's own
};

/// Throws the DataError that write_dicom_seg would throw for the source, before there are labels.
void check_dicom_seg_source(const DicomSeries& source);

struct DicomSegOptions {
  bool deflate = false;  ///< Deflated Explicit VR Little Endian: smaller, read by fewer programs
};

/// Writes labels (integers [Z, Y, X]) as a DICOM Segmentation of type BINARY, atomically.
///
/// Segments are the described labels that have voxels, numbered 1, 2, ... in the descriptions'
/// order; frames are the slices where a segment has voxels, segment by segment. `grid` says where
/// the labels lie: source.geometry, or, where gaps or a tilt were mended, the geometry of the
/// volume that was read. Each frame names the source images it was made from, and the object all
/// of the series. Patient, study and frame of reference are the source's. The weights' SHA-256
/// stands in the algorithm's parameters. A source without a place in the patient (a photograph,
/// ultrasound) gives frames without one.
///
/// Returns false when no voxel carries a label: DICOM knows no segmentation without segments, so
/// none is written, and a file that an earlier run left at `path` is removed.
///
/// Throws DataError and ConfigError as find_segments does, and DataError naming the source when its
/// first file cannot be read again.
bool write_dicom_seg(const std::filesystem::path& path,
                     const at::Tensor& labels,
                     const Geometry& grid,
                     const DicomSeries& source,
                     const SegmentationMetadata& metadata,
                     const AlgorithmIdentity& algorithm,
                     const DicomSegOptions& options = {});

}  // namespace vireo
