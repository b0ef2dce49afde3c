#pragma once

#include <string>
#include <vector>

#include "vision/image/geometry.h"
#include "vision/io/dicom/dicom_file.h"

// Frames that make a volume. They are put in order by their position along the normal of their
// plane alone: never by instance number, never by file name.
namespace vireo {

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
  const DicomFrame& frame(const DicomSlice& slice) const {
    return files.at(slice.file).frames.at(slice.frame);
  }
};

/// Puts the slices in order and fills in geometry and problems, from the frames alone.
void arrange_slices(DicomSeries& series);

/// The slices that read_dicom_series() takes: all, or, where several lie at one place, the first.
std::vector<DicomSlice> slices_read(const DicomSeries& series);

/// "FILE frame 3 at 12.500 mm", for messages.
std::string slice_text(const DicomSeries& series, const DicomSlice& slice);

/// The first few of a list, and how many more there are, for messages.
std::string listed(const std::vector<std::string>& items);

}  // namespace vireo
