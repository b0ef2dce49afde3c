#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vision/io/dicom/dicom_series.h"

// What a folder holds of DICOM images, as series.
namespace vireo {

struct DicomScan {
  std::vector<DicomSeries> series;    ///< sorted by name
  std::vector<std::string> left_out;  ///< "file: reason": localisers, reports, broken files, links
};

/// Finds the DICOM images of a file, or of a folder and all below it. Files that are not DICOM, by
/// name and content, are passed over in silence. A file that was left out as broken is a problem of
/// the series that it belongs to: by its SeriesInstanceUID or, where that cannot be read, as the
/// only series of its folder. Throws DataError when there is no such path.
DicomScan scan_dicom(const std::filesystem::path& path);

/// Throws DataError saying why nothing was found at `path`, where there are reasons.
void refuse_without_series(const std::filesystem::path& path, const DicomScan& scan);

}  // namespace vireo
