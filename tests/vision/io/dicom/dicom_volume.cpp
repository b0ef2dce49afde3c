#include "vision/io/dicom/dicom_volume.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/io/dicom/dicom_scan.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::vector<Geometry> all_directions() {
  std::vector<Geometry> grids;
  std::array<int, 3> world{0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs) {
      Geometry grid = test::plain_grid();
      grid.direction_lps_from_zyx = {};
      for (int j = 0; j < 3; ++j)
        grid.direction_lps_from_zyx[world[j]][j] = (signs >> j & 1) != 0 ? -1 : 1;
      grids.push_back(grid);
    }
  } while (std::next_permutation(world.begin(), world.end()));
  // Oblique: turned about two axes.
  Geometry oblique = test::plain_grid();
  const double c = std::cos(0.3), s = std::sin(0.3), d = std::cos(-0.8), t = std::sin(-0.8);
  oblique.direction_lps_from_zyx = {{{s, -c * t, c * d}, {0, d, t}, {c, s * t, -s * d}}};
  grids.push_back(oblique);
  return grids;
}

float value_at(const Volume& volume, const Vector3& point_lps_mm) {
  const Vector3 at = volume.geometry.voxel_from_lps(point_lps_mm);
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(at[i], std::round(at[i]), 1e-6);
    if (at[i] < -0.5 || at[i] > static_cast<double>(volume.geometry.size_zyx[i]) - 0.5) return NAN;
  }
  return volume.values[0][std::lround(at[0])][std::lround(at[1])][std::lround(at[2])].item<float>();
}

TEST(DicomVolume, PutsEveryVoxelAtItsPlaceInAll48DirectionsAndObliquely) {
  for (const Geometry& grid : all_directions()) {
    SCOPED_TRACE(grid.orientation_xyz());
    const fs::path folder = test::scratch_folder() / ("d" + std::to_string(std::rand()));
    fs::create_directory(folder);
    test::write_shuffled(folder, test::slices_of(grid));
    const DicomScan scan = scan_dicom(folder);
    ASSERT_THAT(scan.series, SizeIs(1));
    EXPECT_THAT(scan.series[0].problems, SizeIs(0));
    const Volume volume = read_dicom_series(scan.series[0]);
    ASSERT_EQ(volume.values.numel(), grid.voxel_count());
    int wrong = 0;
    float value = 0;
    for (int64_t z = 0; z < grid.size_zyx[0]; ++z)
      for (int64_t y = 0; y < grid.size_zyx[1]; ++y)
        for (int64_t x = 0; x < grid.size_zyx[2]; ++x)
          wrong += value_at(volume,
                            grid.lps_from_voxel({static_cast<double>(z),
                                                 static_cast<double>(y),
                                                 static_cast<double>(x)})) != value++;
    EXPECT_EQ(wrong, 0);
    fs::remove_all(folder);
  }
}

TEST(DicomVolume, RescalesEverySliceByItsOwnSlope) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(test::plain_grid());
  for (size_t z = 0; z < slices.size(); ++z) {
    slices[z].slope = test::decimals({0.5 * static_cast<double>(z + 1)});
    slices[z].intercept = "-3";
  }
  test::write_shuffled(folder, slices);
  const Volume volume = read_dicom_series(scan_dicom(folder).series.at(0));
  const at::Tensor stored = at::arange(120, at::kFloat).view({5, 4, 6});
  const at::Tensor slopes = at::tensor({0.5f, 1.f, 1.5f, 2.f, 2.5f}).view({5, 1, 1});
  EXPECT_TRUE(at::equal(volume.values[0], stored * slopes - 3));
}

TEST(DicomVolume, ListsMissingSlicesAndFillsThemOnRequest) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(test::plain_grid());
  slices.erase(slices.begin() + 2);
  test::write_shuffled(folder, slices);
  const DicomSeries series = scan_dicom(folder).series.at(0);
  EXPECT_THAT(test::refusal(series),
              AllOf(HasSubstr("slices are missing"),
                    HasSubstr("5.000 mm after"),
                    HasSubstr("at 32.625 mm"),
                    HasSubstr("--allow resample-gaps")));
  DicomAllowances allowed;
  allowed.gaps = true;
  const Volume volume = read_dicom_series(series, allowed);
  // The values grow evenly from slice to slice, so the blend is the slice that was lost.
  EXPECT_EQ(difference(volume.geometry, test::plain_grid()), "");
  EXPECT_TRUE(at::allclose(volume.values.flatten(), at::arange(120, at::kFloat), 0, 1e-4));
}

TEST(DicomVolume, RefusesTiltAndStraightensItOnRequest) {
  const fs::path folder = test::scratch_folder();
  Geometry grid = test::plain_grid();
  grid.spacing_mm_zyx = {2, 1, 1};
  auto slices = test::slices_of(grid);
  // Every slice one pixel further down its columns: what lies at (y, x) there lies at y + z.
  for (size_t z = 0; z < slices.size(); ++z) slices[z].position_lps_mm[1] += static_cast<double>(z);
  test::write_shuffled(folder, slices);
  const DicomSeries series = scan_dicom(folder).series.at(0);
  EXPECT_THAT(test::refusal(series), AllOf(HasSubstr("26.57 degrees"), HasSubstr("--allow tilt")));
  DicomAllowances allowed;
  allowed.tilt = true;
  const Volume volume = read_dicom_series(series, allowed);
  EXPECT_EQ(volume.geometry.size_zyx, (std::array<int64_t, 3>{5, 8, 6}));
  for (size_t z = 0; z < slices.size(); ++z) {
    Vector3 point = slices[z].position_lps_mm;
    EXPECT_EQ(value_at(volume, point), slices[z].pixels[0]);
    point[1] += 3;
    point[0] += 5;
    EXPECT_EQ(value_at(volume, point), slices[z].pixels[23]);
  }
}

TEST(DicomVolume, NeverStraightensTiltWhenOnlyGapsAreAllowed) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(test::plain_grid());
  for (size_t z = 0; z < slices.size(); ++z) slices[z].position_lps_mm[1] += static_cast<double>(z);
  slices.push_back(slices[1]);
  test::write_shuffled(folder, slices);
  DicomAllowances allowed;
  allowed.gaps = allowed.duplicates = true;
  EXPECT_THAT(test::refusal(scan_dicom(folder).series.at(0), allowed), HasSubstr("leans by"));
}

TEST(DicomVolume, RefusesCopiedSlicesAndDropsThemOnRequest) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(test::plain_grid());
  slices.push_back(slices[3]);
  for (size_t i = 0; i < slices.size(); ++i) slices[i].sop_uid = "1.2.3." + std::to_string(i % 5);
  test::write_shuffled(folder, slices);
  const DicomSeries series = scan_dicom(folder).series.at(0);
  EXPECT_THAT(test::refusal(series),
              AllOf(HasSubstr("slices at one place"), HasSubstr("37.625 mm")));
  DicomAllowances allowed;
  allowed.duplicates = true;
  const Volume volume = read_dicom_series(series, allowed);
  EXPECT_EQ(difference(volume.geometry, test::plain_grid()), "");
  EXPECT_TRUE(at::equal(volume.values.flatten(), at::arange(120, at::kFloat)));
}

TEST(DicomVolume, MendsDuplicatesThatLieSomewhatApart) {
  const fs::path folder = test::scratch_folder();
  Geometry grid = test::plain_grid();
  grid.size_zyx[0] = 6;
  auto slices = test::slices_of(grid);
  const double places[] = {0, 0.00006, 0.005, 0.010, 0.015, 0.020};
  for (size_t z = 0; z < slices.size(); ++z) {
    slices[z].position_lps_mm = {0, 0, places[z]};
    slices[z].spacing_y_mm = slices[z].spacing_x_mm = 0.005;
  }
  test::write_shuffled(folder, slices);
  DicomAllowances allowed;
  allowed.duplicates = true;
  const Volume volume = read_dicom_series(scan_dicom(folder).series.at(0), allowed);
  EXPECT_EQ(volume.geometry.size_zyx[0], 5);
  EXPECT_NEAR(volume.geometry.spacing_mm_zyx[0], 0.005, 2e-5);
}

TEST(DicomVolume, RefusesToMendWhatWouldGrowWithoutBound) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(test::plain_grid());
  slices.back().position_lps_mm[2] = 900'000;
  test::write_shuffled(folder, slices);
  DicomAllowances allowed;
  allowed.gaps = allowed.tilt = true;
  EXPECT_THAT(test::refusal(scan_dicom(folder).series.at(0), allowed),
              HasSubstr("more than 16 times its pixels"));
}

}  // namespace
}  // namespace vireo
