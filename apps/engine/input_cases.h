#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "vision/image/volume.h"
#include "vision/io/dicom/dicom_volume.h"
#include "vision/io/image_file.h"

namespace vireo {

/// One image to be segmented: one file, one file per channel, or a DICOM series.
struct InputCase {
  std::string name;                          ///< names the outputs
  std::vector<std::filesystem::path> files;  ///< in channel order; of a series all
  std::optional<DicomSeries> series;         ///< where the files are DICOM
};

struct InputCases {
  std::vector<InputCase> cases;       ///< sorted by name
  std::vector<std::string> problems;  ///< one line per case that cannot be formed
};

/// Finds the cases of a file, or of a folder: its own image files (not those of folders below), and
/// the DICOM series in it and in folders below, each a case named after its folder. Pictures beside
/// DICOM series, and masks beside their pictures (X_mask.png), are left out, with a warning.
///
/// Names as nnU-Net's: CASE_0000, CASE_0001, ... are the channels of CASE, as many as the model
/// takes (`channel_count`). A file whose name has no such ending, or no CASE_0000 beside it when
/// the model takes one channel, is a case of its own that holds all channels; so is every file
/// under `plain_names`. A picture CASE_0000 without others holds the channels itself. A missing or
/// superfluous channel, and two files of one case name, are problems. Throws DataError when the
/// path does not exist, is no image, or holds none.
InputCases find_cases(const std::filesystem::path& input,
                      int64_t channel_count,
                      bool plain_names = false);

/// Reads a case's files into one volume, int16 where that holds every value (see
/// read_compact_image). Throws DataError where the channels' grids differ, or a series is no
/// regular volume and `allowed` does not mend it.
Volume read_case(const InputCase& input, const DicomAllowances& allowed = {});

/// The grid, channels and memory of what read_case() gives, from headers alone.
ImageHeader read_case_header(const InputCase& input, const DicomAllowances& allowed = {});

}  // namespace vireo
