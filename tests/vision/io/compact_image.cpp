#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/io/dicom/dicom_scan.h"
#include "vision/io/dicom/dicom_volume.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

class CompactImage : public ::testing::Test {
 protected:
  // Holds what read_image() holds, in a type, within what the header promised.
  void expect_type(const fs::path& path, at::ScalarType type) const {
    SCOPED_TRACE(path.filename());
    const Volume compact = read_compact_image(path), whole = read_image(path);
    EXPECT_EQ(compact.values.scalar_type(), type);
    EXPECT_TRUE(at::equal(compact.values.to(at::kFloat), whole.values));
    EXPECT_EQ(difference(compact.geometry, whole.geometry, 0), "");
    EXPECT_EQ(compact.full_scale, whole.full_scale);
    const ImageHeader header = read_image_header(path);
    EXPECT_LE(static_cast<int64_t>(compact.values.nbytes()), header.memory.held);
  }
  fs::path put(const std::string& name, const at::Tensor& values) const {
    Geometry grid;
    grid.size_zyx = {values.size(1), values.size(2), values.size(3)};
    write_image(folder_ / name, values, grid);
    return folder_ / name;
  }

  fs::path folder_ = test::scratch_folder();
  at::Tensor ramp_ = at::arange(-60, 60).view({1, 4, 5, 6});
};

TEST_F(CompactImage, KeepsWholeNumbersAsInt16) {
  for (const char* name : {"a.nii", "b.nii.gz", "c.nrrd", "d.mha"}) {
    expect_type(put(name, ramp_.to(at::kShort)), at::kShort);
    expect_type(put(name, ramp_.abs().to(at::kByte)), at::kShort);
    expect_type(put(name, ramp_.to(at::kInt)), at::kShort);
    expect_type(put(name, ramp_.to(at::kDouble)), at::kShort);
    expect_type(put(name, (ramp_ * 1000).to(at::kInt)), at::kFloat);
    expect_type(put(name, ramp_ / 7.0), at::kFloat);
  }
  expect_type(put("channels.nii.gz", at::cat({ramp_, ramp_ + 3}).to(at::kShort)), at::kShort);
  expect_type(put("grey.png", ramp_.narrow(1, 0, 1).abs().to(at::kByte)), at::kShort);
}

TEST_F(CompactImage, TakesStoredVoxelsOverWithoutACopy) {
  for (const auto type : {at::kShort, at::kFloat}) {
    const VoxelMemory memory = read_image_header(put("a.nii", ramp_.to(type))).memory;
    EXPECT_EQ(memory.held, ramp_.numel() * static_cast<int64_t>(c10::elementSize(type)));
    EXPECT_EQ(memory.reading, 0);
  }
}

TEST_F(CompactImage, FollowsSlopeAndIntercept) {
  const fs::path path = put("scaled.nii", ramp_.to(at::kShort));
  const auto set = [&](float slope, float intercept) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    const float both[] = {slope, intercept};
    file.seekp(112);
    file.write(reinterpret_cast<const char*>(both), sizeof both);
  };
  set(1, -1024);
  expect_type(path, at::kShort);
  set(0.5, 0);
  expect_type(path, at::kFloat);
  set(2, -40000);
  expect_type(path, at::kFloat);
}

TEST_F(CompactImage, ReadsDicomSeries) {
  Geometry grid;
  grid.size_zyx = {3, 4, 5};
  const auto expect_series = [&](const char* slope, const char* intercept, at::ScalarType type) {
    fs::remove_all(folder_ / "series");
    fs::create_directories(folder_ / "series");
    std::vector<test::MadeSlice> slices = test::slices_of(grid, -30);
    for (size_t z = 0; z < slices.size(); ++z) {
      slices[z].slope = slope;
      slices[z].intercept = intercept;
      test::write_slice(folder_ / "series" / std::to_string(z), slices[z]);
    }
    const DicomScan scan = scan_dicom(folder_ / "series");
    ASSERT_EQ(scan.series.size(), 1u);
    const Volume compact = read_dicom_series(scan.series[0], {}, true);
    EXPECT_EQ(compact.values.scalar_type(), type);
    EXPECT_TRUE(at::equal(compact.values.to(at::kFloat), read_dicom_series(scan.series[0]).values));
    const ImageHeader header = read_series_header(scan.series[0]);
    EXPECT_EQ(difference(header.geometry, compact.geometry, 0), "");
    EXPECT_LE(static_cast<int64_t>(compact.values.nbytes()), header.memory.held);
  };
  expect_series("1", "-1024", at::kShort);
  expect_series("0.1", "0", at::kFloat);
  expect_series("1", "40000", at::kFloat);
}

TEST_F(CompactImage, TellsTheGridThatMendingMakes) {
  Geometry grid;
  grid.size_zyx = {6, 4, 5};
  grid.spacing_mm_zyx = {2, 1, 1};
  const std::vector<test::MadeSlice> slices = test::slices_of(grid, 0);
  for (const size_t z : {0, 1, 3, 4, 5}) test::write_slice(folder_ / std::to_string(z), slices[z]);
  const DicomScan scan = scan_dicom(folder_);
  const DicomAllowances allowed = DicomAllowances::from_names({"resample-gaps"});
  const Volume volume = read_dicom_series(scan.series.at(0), allowed, true);
  const ImageHeader header = read_series_header(scan.series.at(0), allowed);
  EXPECT_EQ(volume.geometry.size_zyx[0], 6);
  EXPECT_EQ(difference(header.geometry, volume.geometry, 0), "");
  EXPECT_LE(static_cast<int64_t>(volume.values.nbytes()), header.memory.held);
}

}  // namespace
}  // namespace vireo
