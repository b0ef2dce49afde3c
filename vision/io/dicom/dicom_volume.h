#pragma once

#include <string>
#include <vector>

#include "vision/image/volume.h"
#include "vision/io/dicom/dicom_series.h"
#include "vision/io/image_file.h"

// A series' pixels as a volume.
namespace vireo {

/// What may be mended on request where slices do not form a regular grid.
struct DicomAllowances {
  bool duplicates = false;  ///< of slices at one place, keep the first by instance number
  bool gaps = false;        ///< missing slices and uneven steps: linear in between, on even steps
  bool tilt = false;        ///< gantry tilt: slices shifted in their planes to a straight stack

  /// From names: "duplicates", "resample-gaps", "tilt". Throws UsageError for another.
  static DicomAllowances from_names(const std::vector<std::string>& names);
};

/// Reads a series as float32 [C, Z, Y, X], z along the slices' normal. Throws DataError with all
/// problems that `allowed` does not mend, naming the option that would. `compact`: int16 where
/// every value is a whole number that it holds.
Volume read_dicom_series(const DicomSeries& series,
                         const DicomAllowances& allowed = {},
                         bool compact = false);

/// The grid that read_dicom_series() makes, and its memory where `compact`. Throws as it does.
ImageHeader read_series_header(const DicomSeries& series, const DicomAllowances& allowed = {});

}  // namespace vireo
