#include "vision/io/segmentation/rtstruct.h"

#include <cmath>
#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_segments.h"
#include "tests/support/made_source.h"
#include "tests/support/test_data.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string text(DcmItem& item, const DcmTagKey& tag) {
  OFString value;
  item.findAndGetOFStringArray(tag, value);
  return value.c_str();
}

std::vector<DcmItem*> items(DcmItem& within, const DcmTagKey& sequence) {
  std::vector<DcmItem*> found;
  DcmItem* item = nullptr;
  for (long i = 0; within.findAndGetSequenceItem(sequence, item, i).good(); ++i)
    found.push_back(item);
  return found;
}

// The points of a contour as voxel indices.
std::vector<Vector3> points(DcmItem& contour, const Geometry& grid) {
  std::vector<Vector3> result;
  const std::string data = text(contour, DCM_ContourData);
  const char* here = data.c_str();
  std::vector<double> numbers;
  for (char* end = nullptr; *here != 0; here = *end == '\\' ? end + 1 : end)
    numbers.push_back(std::strtod(here, &end));
  for (size_t i = 0; i + 2 < numbers.size(); i += 3)
    result.push_back(grid.voxel_from_lps({numbers[i], numbers[i + 1], numbers[i + 2]}));
  return result;
}

// Turns the voxels over whose centres lie inside a contour.
void fill(at::Tensor& mask, const std::vector<Vector3>& contour) {
  const int64_t z = std::lround(contour[0][0]);
  auto inside = mask.accessor<int32_t, 3>();
  for (size_t i = 0; i < contour.size(); ++i) {
    const Vector3 &a = contour[i], &b = contour[(i + 1) % contour.size()];
    EXPECT_NEAR(a[0], static_cast<double>(z), 1e-4) << "the contour leaves its slice";
    for (int64_t y = 0; y < mask.size(1); ++y) {
      const auto level = static_cast<double>(y);
      if ((a[1] < level) == (b[1] < level)) continue;
      const double crossing = a[2] + (level - a[1]) / (b[1] - a[1]) * (b[2] - a[2]);
      for (int64_t x = 0; x < mask.size(2); ++x)
        if (static_cast<double>(x) < crossing) inside[z][y][x] ^= 1;
    }
  }
}

TEST(Rtstruct, ContoursFilledAgainAreTheMask) {
  const fs::path folder = test::scratch_folder();
  const SegmentationMetadata metadata = test::made_metadata();
  int count = 0;
  std::vector<Geometry> grids = test::straight_grids(3, 11, 13);
  grids.push_back(test::oblique_grid(5, 13, 11));
  grids.push_back(test::reversed_grid(4, 33, 17));
  grids.push_back(test::oblique_grid(1, 16, 16));
  for (const Geometry& grid : grids) {
    const auto& size = grid.size_zyx;
    const at::Tensor labels = test::made_labels(size[0], size[1], size[2]);
    const DicomSeries source = test::made_source(folder / std::to_string(count), grid);
    const fs::path path = folder / (std::to_string(count++) + ".dcm");
    ASSERT_TRUE(write_rtstruct(path, labels, grid, source, metadata, "0.1.0"));
    EXPECT_EQ(test::dicom_errors(path), "");
    DcmFileFormat file;
    ASSERT_TRUE(file.loadFile(path.c_str()).good());
    DcmDataset& dataset = *file.getDataset();
    const auto names = items(dataset, DCM_StructureSetROISequence);
    const auto regions = items(dataset, DCM_ROIContourSequence);
    ASSERT_EQ(regions.size(), 3U);
    for (size_t i = 0; i < regions.size(); ++i) {
      EXPECT_EQ(text(*regions[i], DCM_ReferencedROINumber), text(*names[i], DCM_ROINumber));
      int64_t value = 0;
      for (const SegmentDescription& segment : metadata.segments)
        if (segment.name == text(*names[i], DCM_ROIName)) value = segment.value;
      at::Tensor mask = at::zeros({size[0], size[1], size[2]}, at::kInt);
      for (DcmItem* contour : items(*regions[i], DCM_ContourSequence)) {
        EXPECT_EQ(text(*contour, DCM_ContourGeometricType), "CLOSED_PLANAR");
        const std::vector<Vector3> corners = points(*contour, grid);
        EXPECT_EQ(text(*contour, DCM_NumberOfContourPoints), std::to_string(corners.size()));
        fill(mask, corners);
        const auto z = static_cast<size_t>(std::lround(corners[0][0]));
        const auto images = items(*contour, DCM_ContourImageSequence);
        ASSERT_EQ(images.size(), 1U);
        EXPECT_EQ(text(*images[0], DCM_ReferencedSOPInstanceUID),
                  source.files[source.slices[z].file].sop_instance_uid);
      }
      EXPECT_TRUE(at::equal(mask, labels.eq(value).to(at::kInt))) << value;
    }
  }
}

TEST(Rtstruct, RefersToTheSourceAndNamesItsRegions) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(3, 12, 12);
  const DicomSeries source = test::made_source(folder / "source", grid);
  const fs::path path = folder / "rs.dcm";
  SegmentationMetadata metadata = test::made_metadata();
  metadata.segments[0].color = {1, 20, 255};
  ASSERT_TRUE(write_rtstruct(path, test::made_labels(3, 12, 12), grid, source, metadata, "0.1.0"));
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  DcmDataset& dataset = *file.getDataset();
  EXPECT_EQ(text(dataset, DCM_PatientID), "made-1");
  EXPECT_EQ(text(dataset, DCM_StudyInstanceUID), source.first_file().study_uid);
  EXPECT_EQ(text(dataset, DCM_FrameOfReferenceUID), source.first_file().frame_of_reference_uid);
  EXPECT_EQ(text(*items(dataset, DCM_ROIContourSequence).at(0), DCM_ROIDisplayColor), "1\\20\\255");
  EXPECT_EQ(text(*items(dataset, DCM_StructureSetROISequence).at(1), DCM_ROIName), "left kidney");
  DcmItem& frame = *items(dataset, DCM_ReferencedFrameOfReferenceSequence).at(0);
  DcmItem& study = *items(frame, DCM_RTReferencedStudySequence).at(0);
  DcmItem& series = *items(study, DCM_RTReferencedSeriesSequence).at(0);
  EXPECT_EQ(text(series, DCM_SeriesInstanceUID), source.first_file().series_uid);
  const auto images = items(series, DCM_ContourImageSequence);
  ASSERT_EQ(images.size(), source.files.size());
  for (size_t i = 0; i < images.size(); ++i)
    EXPECT_EQ(text(*images[i], DCM_ReferencedSOPInstanceUID), source.files[i].sop_instance_uid);
}

TEST(Rtstruct, HoldsContoursOfMoreThan64KiB) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(1, 64, 64);
  const DicomSeries source = test::made_source(folder / "source", grid);
  // A comb: one region whose outline turns thousands of times.
  at::Tensor labels = at::zeros({1, 64, 64}, at::kInt);
  labels.slice(1, 0, 1).fill_(1);
  for (int64_t x = 0; x < 64; x += 2)
    for (int64_t y = 0; y < 64; ++y) labels[0][y][x] = 1;
  for (int64_t x = 1; x < 64; x += 2)
    for (int64_t y = 2 + x % 4 / 2; y < 62; y += 4) labels[0][y][x] = 1;
  const fs::path path = folder / "rs.dcm";
  ASSERT_TRUE(write_rtstruct(path, labels, grid, source, test::made_metadata(), "0.1.0"));
  EXPECT_EQ(test::dicom_errors(path), "");
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  DcmItem& region = *items(*file.getDataset(), DCM_ROIContourSequence).at(0);
  DcmItem& contour = *items(region, DCM_ContourSequence).at(0);
  EXPECT_GT(text(contour, DCM_ContourData).size(), 65536U);
  at::Tensor mask = at::zeros({1, 64, 64}, at::kInt);
  fill(mask, points(contour, grid));
  EXPECT_TRUE(at::equal(mask, labels));
}

TEST(Rtstruct, IsNotWrittenForAnEmptyLabelMap) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(2, 12, 12);
  const DicomSeries source = test::made_source(folder / "source", grid);
  const fs::path path = folder / "rs.dcm";
  std::ofstream(path) << "of an earlier run";
  EXPECT_FALSE(write_rtstruct(
      path, at::zeros({2, 12, 12}, at::kByte), grid, source, test::made_metadata(), "0.1.0"));
  EXPECT_FALSE(fs::exists(path));
}

TEST(Rtstruct, IsRefusedWithoutAPlaceInThePatient) {
  const fs::path folder = test::scratch_folder();
  Geometry grid;
  grid.size_zyx = {1, 12, 12};
  const DicomSeries source = test::made_source(folder / "source", grid, {.placed = false});
  const fs::path path = folder / "rs.dcm";
  try {
    write_rtstruct(
        path, at::ones({1, 12, 12}, at::kInt), grid, source, test::made_metadata(), "0.1.0");
    FAIL() << "accepted";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("gives no place in the patient"));
    EXPECT_THAT(error.what(), ::testing::StartsWith(source.first_file().path.string()));
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(Rtstruct, SourcesAreCheckedBeforeThereAreLabels) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(2, 12, 12);
  DicomSeries source = test::made_source(folder / "source", grid);
  EXPECT_NO_THROW(check_rtstruct_source(source));
  const auto refusal = [&]() -> std::string {
    try {
      check_rtstruct_source(source);
    } catch (const DataError& error) {
      return error.what();
    }
    return "accepted";
  };
  const std::string uid = source.files[1].sop_instance_uid;
  source.files[1].sop_instance_uid.clear();
  EXPECT_THAT(refusal(), HasSubstr(source.files[1].path.string() + ": has no SOPInstanceUID"));
  source.files[1].sop_instance_uid = uid;
  for (DicomFile& file : source.files) file.frame_of_reference_uid.clear();
  EXPECT_THAT(refusal(), HasSubstr("gives no place in the patient"));
}

TEST(Rtstruct, HoldsNothingInvalidOfItsSource) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(2, 12, 12);
  const DicomSeries source = test::made_source(
      folder / "source", grid, {.patient_name = "M\xfcller", .character_set = ""});
  const fs::path first = source.first_file().path;
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(first.c_str()).good());
  for (const auto& [tag, value] : {std::pair{DCM_StudyDate, "2025.02.03"},
                                   {DCM_PatientSex, "Female"},
                                   {DCM_AccessionNumber, "12345678901234567"},
                                   {DCM_PatientSpeciesDescription, "Felis"}})
    ASSERT_TRUE(file.getDataset()->putAndInsertString(tag, value).good());
  ASSERT_TRUE(file.saveFile(first.c_str()).good());
  SegmentationMetadata metadata = test::made_metadata();
  metadata.trial_series_id = "Session1";
  const fs::path path = folder / "rs.dcm";
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(write_rtstruct(path, test::made_labels(2, 12, 12), grid, source, metadata, "0.1.0"));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("its AccessionNumber is not valid (it is longer than 16 characters)"));
  EXPECT_EQ(test::dicom_errors(path), "");
  DcmFileFormat written;
  ASSERT_TRUE(written.loadFile(path.c_str()).good());
  EXPECT_EQ(text(*written.getDataset(), DCM_PatientName), "M\xc3\xbcller");
  EXPECT_EQ(text(*written.getDataset(), DCM_StudyDate), "20250203");
  EXPECT_EQ(text(*written.getDataset(), DCM_PatientSex), "F");
}

TEST(Rtstruct, DoesNotReferToDuplicatesThatWereDropped) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(3, 12, 12);
  const DicomSeries source = test::made_source_with_duplicate(folder / "source", grid);
  const fs::path path = folder / "rs.dcm";
  ASSERT_TRUE(write_rtstruct(
      path, test::made_labels(3, 12, 12), grid, source, test::made_metadata(), "0.1.0"));
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  EXPECT_THAT(bytes, HasSubstr(source.files[0].sop_instance_uid));
  EXPECT_THAT(bytes, ::testing::Not(HasSubstr(test::kDuplicateUid)));
}

TEST(Rtstruct, PassesDciodvfy) {
  if (!test::has_dciodvfy())
    VIREO_SKIP(
        "no dciodvfy: the files of these tests were not validated; apt-get install "
        "dicom3tools");
}

}  // namespace
}  // namespace vireo
