#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <gtest/gtest.h>

#include "tests/support/test_data.h"
#include "vision/io/dicom/dicom_series.h"
#include "vision/io/segmentation/dicom_output.h"

namespace vireo::test {

struct MadeSource {
  std::string patient_name = "Made^Series";
  std::string character_set = "ISO_IR 100";
  std::string patient_age = "056Y";
  bool placed = true;        ///< with a position in the patient and a frame of reference
  bool multi_frame = false;  ///< all slices in one file
};

/// Writes a series of black MR slices (photographs where they are not placed) that lies on `grid`,
/// in files whose order says nothing, and returns it as the reader would.
inline DicomSeries made_source(const std::filesystem::path& folder,
                               const Geometry& grid,
                               const MadeSource& how = {}) {
  DicomSeries series;
  series.name = "made";
  series.geometry = grid;
  std::filesystem::create_directories(folder);
  const int64_t count = grid.size_zyx[0];
  const std::string study = new_dicom_uid(), uid = new_dicom_uid(), frame_uid = new_dicom_uid();
  const auto& d = grid.direction_lps_from_zyx;
  const auto frame_at = [&](int64_t z, int64_t index) {
    DicomFrame frame;
    frame.index = index;
    if (!how.placed) return frame;
    frame.position_lps_mm = grid.lps_from_voxel({static_cast<double>(z), 0, 0});
    frame.axes_lps_xy = {Vector3{d[0][2], d[1][2], d[2][2]}, Vector3{d[0][1], d[1][1], d[2][1]}};
    return frame;
  };
  const auto write = [&](std::vector<DicomFrame> frames) {
    DicomFile file;
    file.path = folder / ("file" + std::to_string((7 * series.files.size() + 3) % 1009) + ".dcm");
    file.sop_class_uid = how.placed ? UID_MRImageStorage : UID_VLPhotographicImageStorage;
    if (how.multi_frame) file.sop_class_uid = UID_EnhancedMRImageStorage;
    file.sop_instance_uid = new_dicom_uid();
    file.series_uid = uid;
    file.study_uid = study;
    if (how.placed) file.frame_of_reference_uid = frame_uid;
    file.rows = grid.size_zyx[1];
    file.columns = grid.size_zyx[2];
    file.frames = std::move(frames);
    DcmFileFormat format;
    DcmDataset& set = *format.getDataset();
    const auto put = [&](const DcmTagKey& tag, const std::string& value) {
      EXPECT_TRUE(set.putAndInsertString(tag, value.c_str()).good()) << value;
    };
    if (!how.character_set.empty()) put(DCM_SpecificCharacterSet, how.character_set);
    put(DCM_SOPClassUID, file.sop_class_uid);
    put(DCM_SOPInstanceUID, file.sop_instance_uid);
    put(DCM_StudyInstanceUID, study);
    put(DCM_SeriesInstanceUID, uid);
    if (how.placed) put(DCM_FrameOfReferenceUID, frame_uid);
    put(DCM_PatientName, how.patient_name);
    put(DCM_PatientID, "made-1");
    put(DCM_PatientBirthDate, "19700102");
    put(DCM_PatientSex, "O");
    put(DCM_PatientAge, how.patient_age);
    put(DCM_StudyDate, "20261121");
    put(DCM_StudyTime, "120000");
    put(DCM_StudyID, "1");
    put(DCM_AccessionNumber, "");
    put(DCM_ReferringPhysicianName, "");
    EXPECT_TRUE(set.putAndInsertUint16(DCM_Rows, static_cast<Uint16>(file.rows)).good());
    EXPECT_TRUE(set.putAndInsertUint16(DCM_Columns, static_cast<Uint16>(file.columns)).good());
    const std::vector<Uint16> pixels(static_cast<size_t>(file.rows * file.columns), 0);
    EXPECT_TRUE(set.putAndInsertUint16Array(DCM_PixelData, pixels.data(), pixels.size()).good());
    EXPECT_TRUE(format.saveFile(file.path.c_str(), EXS_LittleEndianExplicit).good());
    series.files.push_back(std::move(file));
  };
  if (how.multi_frame) {
    std::vector<DicomFrame> frames;
    for (int64_t z = 0; z < count; ++z) frames.push_back(frame_at(count - 1 - z, z));
    write(std::move(frames));
    for (int64_t z = 0; z < count; ++z)
      series.slices.push_back({0, static_cast<size_t>(count - 1 - z), 0});
    return series;
  }
  // Every second slice first, then the others: files are in no order.
  for (const int64_t start : {1, 0})
    for (int64_t z = start; z < count; z += 2) write({frame_at(z, 0)});
  for (int64_t z = 0; z < count; ++z) {
    const int64_t file = z % 2 == 1 ? z / 2 : count / 2 + z / 2;
    series.slices.push_back({static_cast<size_t>(file), 0, 0});
  }
  return series;
}

inline constexpr const char* kDuplicateUid = "1.2.3.4";

/// The same, with another image, kDuplicateUid, where its second slice lies.
inline DicomSeries made_source_with_duplicate(const std::filesystem::path& folder,
                                              const Geometry& grid) {
  DicomSeries series = made_source(folder, grid);
  DicomFile copy = series.files[series.slices[1].file];
  copy.sop_instance_uid = kDuplicateUid;
  copy.instance_number = 99;
  series.files.push_back(copy);
  series.slices.push_back({series.files.size() - 1, 0, 0});
  arrange_slices(series);
  return series;
}

/// The errors that dciodvfy (Debian's dicom3tools) finds in a file; none where it is not installed.
inline std::string dicom_errors(const std::filesystem::path& path) {
  const std::string report = run_command("{ dciodvfy '" + path.string() + "' 2>&1; }").output;
  std::string errors;
  for (size_t start = 0; start < report.size();) {
    const size_t end = std::min(report.find('\n', start), report.size());
    const std::string line = report.substr(start, end - start);
    if (line.starts_with("Error")) errors += line + "\n";
    start = end + 1;
  }
  return errors;
}

inline bool has_dciodvfy() {
  return run_command("command -v dciodvfy").exit_code == 0;
}

}  // namespace vireo::test
