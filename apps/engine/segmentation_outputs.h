#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "apps/engine/input_cases.h"
#include "datasets/preparation.h"
#include "vision/image/volume.h"
#include "vision/io/segmentation/dcmqi_metadata.h"
#include "vision/io/segmentation/dicom_seg.h"

namespace vireo {

/// What is written of a case beside its label map, and what these files say of it.
struct SegmentationOutputs {
  bool dicom_seg = false;  ///< CASE.seg.dcm; DICOM input only
  bool rtstruct = false;   ///< CASE.rtstruct.dcm; DICOM input only
  bool seg_nrrd = false;   ///< CASE.seg.nrrd
  bool pictures = false;   ///< CASE_pictures/: masks and overlays, slice by slice
  bool deflate = false;    ///< DICOM SEG
  /// A file of dcmqi's schema that describes the labels; empty: descriptions from their names.
  std::filesystem::path metadata_file;

  /// Sets the formats named: "dicom-seg", "rtstruct", "seg-nrrd", "pictures". Throws UsageError.
  void choose(const std::vector<std::string>& names);
  bool any() const { return dicom_seg || rtstruct || seg_nrrd || pictures; }
};

/// Descriptions of the labels: the file's, or made from their names and colours.
SegmentationMetadata describe_labels(const SegmentationOutputs& outputs,
                                     const std::vector<Label>& labels);

/// Throws DataError where a chosen format cannot be written of the case, before it is predicted.
void check_outputs(const SegmentationOutputs& outputs, const InputCase& input);

/// Writes the chosen files of a case to `folder`: `labels` (values, [Z, Y, X]) on the grid of
/// `image`, whose values only the pictures need. Returns their names, that of the pictures' folder
/// for all of them. Throws DataError.
std::vector<std::string> write_segmentation(const SegmentationOutputs& outputs,
                                            const std::filesystem::path& folder,
                                            const InputCase& input,
                                            const Volume& image,
                                            const at::Tensor& labels,
                                            const SegmentationMetadata& metadata,
                                            const AlgorithmIdentity& algorithm);

}  // namespace vireo
