#pragma once

#include <map>
#include <string>
#include <vector>

#include "datasets/source.h"
#include "vision/image/volume.h"

namespace vireo {

/// A case's files as one volume and its label map.
struct RawCase {
  Volume image;
  Volume labels;
};

/// Reads a case; several files are one channel each. A picture is turned as its EXIF orientation
/// says where its masks have the size that it has then, and not the stored one. Throws DataError
/// (path first) when a file cannot be read, memory is not free for it, or the files' grids differ
/// by more than grid_tolerance_mm.
RawCase read_case(const SourceCase& source);

/// Intensities of one channel of a case.
struct ChannelScan {
  std::vector<float> foreground;  ///< at most kForegroundSamples, evenly strided over the labelled
  double sum = 0, sum_of_squares = 0;  ///< over all voxels, divided by full_scale where known
};
inline constexpr int64_t kForegroundSamples = 10'000;

/// What one look at a case's voxels tells.
struct CaseScan {
  std::string name;
  Geometry geometry;
  int64_t channels = 0;
  double full_scale = 0;
  std::map<int64_t, int64_t> label_voxels;  ///< voxels of each label value
  /// Of slices in files of their own: the file in which each label value is first.
  std::map<int64_t, std::filesystem::path> first_file;
  /// The picture's EXIF orientation where the sizes do not tell whether its masks follow it; it is
  /// not applied then. 1: none.
  int exif_orientation = 1;
  std::vector<ChannelScan> intensities;
  std::vector<Problem> problems;  ///< everything wrong with the case alone
};

/// Reads and checks a case, without throwing for what is wrong with it.
CaseScan scan_case(const SourceCase& source, std::optional<int64_t> ignore_value);

}  // namespace vireo
