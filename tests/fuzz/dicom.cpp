#include "tests/fuzz/fuzz.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/dicom/dicom_scan.h"
#include "vision/io/dicom/dicom_volume.h"

void vireo::fuzz::one_input(std::string_view bytes) {
  const auto path = write_bytes("a.dcm", bytes);
  if (!is_dicom(path)) return;
  read_or_refuse([&] {
    const DicomScan scan = scan_dicom(path);
    for (const DicomSeries& series : scan.series)
      read_or_refuse([&] { look_at(read_dicom_series(series, {true, true, true}).values); });
    // What is no image of a patient is left out there.
    if (scan.series.empty()) look_at(read_dicom_pixels(read_dicom_header(path)));
  });
}
