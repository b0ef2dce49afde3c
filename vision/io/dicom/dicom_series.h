#pragma once

#include <string>
#include <vector>

#include "vision/image/volume.h"
#include "vision/io/dicom/dicom_file.h"
#include "vision/io/image_file.h"

// From the files of a folder to volumes. Slices are put in order by their position along the normal
// of their plane alone: never by instance number, never by file name. Where every place holds
// several, volumes are told apart by their dimension indices, trigger, reference or acquisition
// times or, failing these, by instance numbers that run through one volume, or one place, after the
// other. What none of these tells apart is refused.
namespace vireo {

/// What may be mended on request where slices do not form a regular grid.
struct DicomAllowances {
  bool duplicates = false;  ///< of slices at one place, keep the first by instance number
  bool gaps = false;        ///< missing slices and uneven steps: linear in between, on even steps
  bool tilt = false;        ///< gantry tilt: slices shifted in their planes to a straight stack

  /// From names: "duplicates", "resample-gaps", "tilt". Throws UsageError for another.
  static DicomAllowances from_names(const std::vector<std::string>& names);
};

/// One frame's place in a stack.
struct DicomSlice {
  size_t file = 0;   ///< of DicomSeries::files
  size_t frame = 0;  ///< of its frames
  double along_normal_mm = 0;
};

/// Frames that belong together: of one series, study, patient, size, spacing, plane, image type and
/// kind.
struct DicomSeries {
  std::string name;  ///< for people and for file names; unique within a scan
  std::vector<DicomFile> files;
  std::vector<DicomSlice> slices;  ///< by position; of a flat picture one without position
  Geometry geometry;               ///< of the slices as they lie, evenly stepped
  /// Why the slices are no regular grid, each with the slices concerned; empty: they are. What an
  /// allowance mends names it.
  struct Problem {
    enum class Kind { kDuplicates, kGaps, kTilt, kOther } kind;
    std::string text;
  };
  std::vector<Problem> problems;

  const DicomFile& first_file() const { return files.at(slices.at(0).file); }
};

struct DicomScan {
  std::vector<DicomSeries> series;    ///< sorted by name
  std::vector<std::string> left_out;  ///< "file: reason": localisers, reports, broken files, links
};

/// Puts the slices in order and fills in geometry and problems, from the frames alone.
void arrange_slices(DicomSeries& series);

/// Slices no further apart lie at one place, where `step_mm` is the usual step.
double same_place_mm(double step_mm);

/// Finds the DICOM images of a file, or of a folder and all below it. Files that are not DICOM, by
/// name and content, are passed over in silence. A file that was left out as broken is a problem of
/// the series that it belongs to: by its SeriesInstanceUID or, where that cannot be read, as the
/// only series of its folder. Throws DataError when there is no such path.
DicomScan scan_dicom(const std::filesystem::path& path);

/// Throws DataError saying why nothing was found at `path`, where there are reasons.
void refuse_without_series(const std::filesystem::path& path, const DicomScan& scan);

/// Reads a series as float32 [C, Z, Y, X], z along the slices' normal. Throws DataError with all
/// problems that `allowed` does not mend, naming the option that would. `compact`: int16 where
/// every value is a whole number that it holds.
Volume read_dicom_series(const DicomSeries& series,
                         const DicomAllowances& allowed = {},
                         bool compact = false);

/// The grid that read_dicom_series() makes, and its memory where `compact`. Throws as it does.
ImageHeader read_series_header(const DicomSeries& series, const DicomAllowances& allowed = {});

}  // namespace vireo
