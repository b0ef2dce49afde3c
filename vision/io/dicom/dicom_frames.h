#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "vision/io/dicom/dicom_file.h"

class DcmItem;

// What a data set says of its frames: where they lie, what their values mean, what keeps them
// apart.
namespace vireo {

/// The `count` frames of a data set, by its functional groups or, without these, by the attributes
/// of plain images, of nuclear medicine (FrameIncrementPointer) and of doses
/// (GridFrameOffsetVector). Throws DataError naming `path` where a place, a spacing or a rescaling
/// is written as no number or is none, and where as many groups are not there.
std::vector<DicomFrame> read_dicom_frames(const std::filesystem::path& path,
                                          DcmItem& item,
                                          int64_t count);

/// How far the next slice lies, of a slice by itself: SpacingBetweenSlices or else SliceThickness;
/// 0: not told.
double slice_thickness_mm(const std::filesystem::path& path, DcmItem& item);

}  // namespace vireo
