#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vision/image/volume.h"

namespace vireo {

/// One image to be segmented: one file, or one file per channel.
struct InputCase {
  std::string name;                             ///< names the outputs
  std::vector<std::filesystem::path> channels;  ///< in channel order
};

struct InputCases {
  std::vector<InputCase> cases;       ///< sorted by name
  std::vector<std::string> problems;  ///< one line per case that cannot be formed
};

/// Finds the cases of a file or of a folder's own image files (not of folders below).
///
/// Names as nnU-Net's: CASE_0000, CASE_0001, ... are the channels of CASE, as many as the model
/// takes (`channel_count`). A file whose name has no such ending, or no CASE_0000 beside it when
/// the model takes one channel, is a case of its own that holds all channels; so is every file
/// under `plain_names`. A missing or superfluous channel, and two files of one case name, are
/// problems. Throws DataError when the path does not exist, is no image, or holds none.
InputCases find_cases(const std::filesystem::path& input,
                      int64_t channel_count,
                      bool plain_names = false);

/// Reads a case's files into one volume. Throws DataError where the channels' grids differ.
Volume read_case(const InputCase& input);

}  // namespace vireo
