#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <numeric>
#include <random>
#include <set>

#include <ATen/Functions.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <zlib.h>

#include "tests/support/made_dicom.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/dicom/dicom_file.h"
#include "vision/io/dicom/dicom_series.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

Geometry plain_grid() {
  Geometry grid;
  grid.size_zyx = {5, 4, 6};
  grid.spacing_mm_zyx = {2.5, 0.75, 1.25};
  grid.origin_lps_mm = {-10.5, 20.25, 30.125};
  return grid;
}

std::vector<Geometry> all_directions() {
  std::vector<Geometry> grids;
  std::array<int, 3> world{0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs) {
      Geometry grid = plain_grid();
      grid.direction_lps_from_zyx = {};
      for (int j = 0; j < 3; ++j)
        grid.direction_lps_from_zyx[world[j]][j] = (signs >> j & 1) != 0 ? -1 : 1;
      grids.push_back(grid);
    }
  } while (std::next_permutation(world.begin(), world.end()));
  // Oblique: turned about two axes.
  Geometry oblique = plain_grid();
  const double c = std::cos(0.3), s = std::sin(0.3), d = std::cos(-0.8), t = std::sin(-0.8);
  oblique.direction_lps_from_zyx = {{{s, -c * t, c * d}, {0, d, t}, {c, s * t, -s * d}}};
  grids.push_back(oblique);
  return grids;
}

// Written under names that say nothing, with instance numbers that mislead.
void write_shuffled(const fs::path& folder, std::vector<test::MadeSlice> slices) {
  std::mt19937 random(7);
  std::shuffle(slices.begin(), slices.end(), random);
  for (size_t i = 0; i < slices.size(); ++i) {
    slices[i].instance = static_cast<int>(i) + 1;
    test::write_slice(folder / ("IM" + std::to_string(random() % 100000)), slices[i]);
  }
}

std::string refusal(const DicomSeries& series, const DicomAllowances& allowed = {}) {
  try {
    read_dicom_series(series, allowed);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

float value_at(const Volume& volume, const Vector3& point_lps_mm) {
  const Vector3 at = volume.geometry.voxel_from_lps(point_lps_mm);
  for (int i = 0; i < 3; ++i) {
    EXPECT_NEAR(at[i], std::round(at[i]), 1e-6);
    if (at[i] < -0.5 || at[i] > static_cast<double>(volume.geometry.size_zyx[i]) - 0.5) return NAN;
  }
  return volume.values[0][std::lround(at[0])][std::lround(at[1])][std::lround(at[2])].item<float>();
}

TEST(DicomSeries, PutsEveryVoxelAtItsPlaceInAll48DirectionsAndObliquely) {
  for (const Geometry& grid : all_directions()) {
    SCOPED_TRACE(grid.orientation_xyz());
    const fs::path folder = test::scratch_folder() / ("d" + std::to_string(std::rand()));
    fs::create_directory(folder);
    write_shuffled(folder, test::slices_of(grid));
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

TEST(DicomSeries, RescalesEverySliceByItsOwnSlope) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(plain_grid());
  for (size_t z = 0; z < slices.size(); ++z) {
    slices[z].slope = test::decimals({0.5 * static_cast<double>(z + 1)});
    slices[z].intercept = "-3";
  }
  write_shuffled(folder, slices);
  const Volume volume = read_dicom_series(scan_dicom(folder).series.at(0));
  const at::Tensor stored = at::arange(120, at::kFloat).view({5, 4, 6});
  const at::Tensor slopes = at::tensor({0.5f, 1.f, 1.5f, 2.f, 2.5f}).view({5, 1, 1});
  EXPECT_TRUE(at::equal(volume.values[0], stored * slopes - 3));
}

TEST(DicomSeries, ListsMissingSlicesAndFillsThemOnRequest) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(plain_grid());
  slices.erase(slices.begin() + 2);
  write_shuffled(folder, slices);
  const DicomSeries series = scan_dicom(folder).series.at(0);
  EXPECT_THAT(refusal(series),
              AllOf(HasSubstr("slices are missing"),
                    HasSubstr("5.000 mm after"),
                    HasSubstr("at 32.625 mm"),
                    HasSubstr("--allow resample-gaps")));
  DicomAllowances allowed;
  allowed.gaps = true;
  const Volume volume = read_dicom_series(series, allowed);
  // The values grow evenly from slice to slice, so the blend is the slice that was lost.
  EXPECT_EQ(difference(volume.geometry, plain_grid()), "");
  EXPECT_TRUE(at::allclose(volume.values.flatten(), at::arange(120, at::kFloat), 0, 1e-4));
}

TEST(DicomSeries, RefusesTiltAndStraightensItOnRequest) {
  const fs::path folder = test::scratch_folder();
  Geometry grid = plain_grid();
  grid.spacing_mm_zyx = {2, 1, 1};
  auto slices = test::slices_of(grid);
  // Every slice one pixel further down its columns: what lies at (y, x) there lies at y + z.
  for (size_t z = 0; z < slices.size(); ++z) slices[z].position_lps_mm[1] += static_cast<double>(z);
  write_shuffled(folder, slices);
  const DicomSeries series = scan_dicom(folder).series.at(0);
  EXPECT_THAT(refusal(series), AllOf(HasSubstr("26.57 degrees"), HasSubstr("--allow tilt")));
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

TEST(DicomSeries, NeverStraightensTiltWhenOnlyGapsAreAllowed) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(plain_grid());
  for (size_t z = 0; z < slices.size(); ++z) slices[z].position_lps_mm[1] += static_cast<double>(z);
  slices.push_back(slices[1]);
  write_shuffled(folder, slices);
  DicomAllowances allowed;
  allowed.gaps = allowed.duplicates = true;
  EXPECT_THAT(refusal(scan_dicom(folder).series.at(0), allowed), HasSubstr("leans by"));
}

TEST(DicomSeries, RefusesCopiedSlicesAndDropsThemOnRequest) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(plain_grid());
  slices.push_back(slices[3]);
  for (size_t i = 0; i < slices.size(); ++i) slices[i].sop_uid = "1.2.3." + std::to_string(i % 5);
  write_shuffled(folder, slices);
  const DicomSeries series = scan_dicom(folder).series.at(0);
  EXPECT_THAT(refusal(series), AllOf(HasSubstr("slices at one place"), HasSubstr("37.625 mm")));
  DicomAllowances allowed;
  allowed.duplicates = true;
  const Volume volume = read_dicom_series(series, allowed);
  EXPECT_EQ(difference(volume.geometry, plain_grid()), "");
  EXPECT_TRUE(at::equal(volume.values.flatten(), at::arange(120, at::kFloat)));
}

TEST(DicomSeries, MendsDuplicatesThatLieSomewhatApart) {
  const fs::path folder = test::scratch_folder();
  Geometry grid = plain_grid();
  grid.size_zyx[0] = 6;
  auto slices = test::slices_of(grid);
  const double places[] = {0, 0.00006, 0.005, 0.010, 0.015, 0.020};
  for (size_t z = 0; z < slices.size(); ++z) {
    slices[z].position_lps_mm = {0, 0, places[z]};
    slices[z].spacing_y_mm = slices[z].spacing_x_mm = 0.005;
  }
  write_shuffled(folder, slices);
  DicomAllowances allowed;
  allowed.duplicates = true;
  const Volume volume = read_dicom_series(scan_dicom(folder).series.at(0), allowed);
  EXPECT_EQ(volume.geometry.size_zyx[0], 5);
  EXPECT_NEAR(volume.geometry.spacing_mm_zyx[0], 0.005, 2e-5);
}

// Three volumes at one place, as `change` makes the k-th, under names that say nothing and with
// instance numbers that start anew in each.
void write_copies(const fs::path& folder,
                  const std::function<void(DcmItem&, int k, int z)>& change) {
  std::vector<test::MadeSlice> all;
  for (int k = 0; k < 3; ++k) {
    const auto slices = test::slices_of(plain_grid(), static_cast<int16_t>(1000 * k));
    for (int z = 0; z < 5; ++z) {
      all.push_back(slices[static_cast<size_t>(z)]);
      all.back().sop_uid = "1.2.3." + std::to_string(10 * k + z);
      all.back().change = [=](DcmItem& item) { change(item, k, z); };
    }
  }
  std::mt19937 random(7);
  std::shuffle(all.begin(), all.end(), random);
  for (size_t i = 0; i < all.size(); ++i)
    test::write_slice(folder / ("IM" + std::to_string(i)), all[i]);
}

// Each of three volumes has its own voxels, none of another.
void expect_whole_volumes(const DicomScan& scan) {
  ASSERT_THAT(scan.series, SizeIs(3));
  std::set<float> firsts;
  for (const DicomSeries& series : scan.series) {
    ASSERT_EQ(refusal(series), "");
    const at::Tensor values = read_dicom_series(series).values.flatten();
    firsts.insert(values[0].item<float>());
    EXPECT_TRUE(at::equal(values, values[0] + at::arange(120, at::kFloat)));
  }
  EXPECT_EQ(firsts, (std::set<float>{0, 1000, 2000}));
}

TEST(DicomSeries, TellsTimePointsApartByTheirTimesWhereInstanceNumbersDoNot) {
  const fs::path root = test::scratch_folder();
  const std::pair<DcmTagKey, std::vector<std::string>> times[] = {
      {DCM_TriggerTime, {"100", "200", "1000"}},
      {DCM_NominalCardiacTriggerDelayTime, {"0", "45.5", "91"}},
      {DCM_FrameReferenceTime, {"500.5", "1500", "20000"}},
      {DCM_AcquisitionTime, {"095959.5", "101010", "101010.25"}},
      {DCM_AcquisitionDateTime, {"20191231235959", "20200101000000", "20200101000001.5"}},
      {DCM_AcquisitionNumber, {"2", "3", "10"}},
      {DCM_TemporalPositionIdentifier, {"1", "2", "3"}}};
  for (const auto& [tag, values] : times) {
    SCOPED_TRACE(DcmTag(tag).getTagName());
    const fs::path folder = root / DcmTag(tag).getTagName();
    fs::create_directory(folder);
    write_copies(folder, [&, tag = tag, values = values](DcmItem& item, int k, int) {
      test::put(item, tag, values[static_cast<size_t>(k)]);
    });
    expect_whole_volumes(scan_dicom(folder));
  }
}

TEST(DicomSeries, OrdersTimesThatWaverFromSliceToSlice) {
  const fs::path folder = test::scratch_folder();
  write_copies(folder, [](DcmItem& item, int k, int z) {
    test::put(item, DCM_TriggerTime, std::to_string(40 * k + z));
  });
  expect_whole_volumes(scan_dicom(folder));
}

TEST(DicomSeries, TakesInstanceNumbersThatRunThroughPlaces) {
  const fs::path folder = test::scratch_folder();
  write_copies(folder, [](DcmItem& item, int k, int z) {
    test::put(item, DCM_InstanceNumber, std::to_string(25 * (5 - z) + k));
  });
  expect_whole_volumes(scan_dicom(folder));
}

TEST(DicomSeries, RefusesCopiesThatNothingTellsApart) {
  const fs::path root = test::scratch_folder();
  const auto refused = [&](const std::string& name, const auto& change) {
    fs::create_directory(root / name);
    write_copies(root / name, change);
    const DicomScan scan = scan_dicom(root / name);
    EXPECT_THAT(scan.series, SizeIs(1));
    DicomAllowances allowed;
    allowed.duplicates = allowed.gaps = true;
    return refusal(scan.series.at(0), allowed);
  };
  const std::string why =
      "3 slices lie at each of 5 places, and neither times, dimension indices nor instance numbers "
      "tell which belong together";
  // Numbers that start anew, none, and such that jump about.
  EXPECT_THAT(refused("anew", [](DcmItem&, int, int) {}), HasSubstr(why));
  EXPECT_THAT(
      refused("none",
              [](DcmItem& item, int, int) { item.findAndDeleteElement(DCM_InstanceNumber); }),
      HasSubstr(why));
  const int about[] = {0, 9, 4, 13, 6, 11, 2, 14, 7, 1, 5, 12, 10, 3, 8};
  EXPECT_THAT(refused("about",
                      [&](DcmItem& item, int k, int z) {
                        test::put(item, DCM_InstanceNumber, std::to_string(about[5 * k + z]));
                      }),
              HasSubstr(why));
}

TEST(DicomSeries, KeepsStudiesPatientsAndFramesOfReferenceApart) {
  const fs::path root = test::scratch_folder();
  Geometry above = plain_grid();
  above.origin_lps_mm[2] += 5 * 2.5;
  const auto scan_of = [&](const std::string& name, const auto& change, size_t slices_above) {
    const fs::path folder = root / name;
    for (const char* part : {"a", "b"}) fs::create_directories(folder / part);
    auto first = test::slices_of(plain_grid()), second = test::slices_of(above, 1000);
    second.resize(slices_above);
    for (test::MadeSlice& slice : first) {
      slice.change = [&](DcmItem& item) { change(item, false); };
      test::write_slice(folder / "a" / std::to_string(slice.instance), slice);
    }
    for (test::MadeSlice& slice : second) {
      slice.sop_uid = "1.2.3." + std::to_string(slice.instance);
      slice.change = [&](DcmItem& item) { change(item, true); };
      test::write_slice(folder / "b" / std::to_string(slice.instance), slice);
    }
    return scan_dicom(folder);
  };
  const auto other = [](const DcmTagKey& tag) {
    return [tag](DcmItem& item, bool second) { test::put(item, tag, second ? "1.9" : "1.8"); };
  };
  for (const DcmTagKey& tag : {DCM_StudyInstanceUID, DCM_PatientID, DCM_FrameOfReferenceUID}) {
    SCOPED_TRACE(DcmTag(tag).getTagName());
    const DicomScan scan = scan_of(DcmTag(tag).getTagName(), other(tag), 5);
    ASSERT_THAT(scan.series, SizeIs(2));
    for (const DicomSeries& series : scan.series) {
      EXPECT_THAT(series.slices, SizeIs(5));
      EXPECT_EQ(refusal(series), "");
    }
  }
  const DicomScan nameless = scan_of(
      "nameless", [](DcmItem& item, bool) { test::put(item, DCM_SeriesInstanceUID, ""); }, 5);
  EXPECT_THAT(nameless.series, SizeIs(2));
  // A single slice is no series of its own, but its place cannot be compared.
  const DicomScan mixed = scan_of("mixed", other(DCM_FrameOfReferenceUID), 1);
  ASSERT_THAT(mixed.series, SizeIs(1));
  EXPECT_THAT(refusal(mixed.series[0]), HasSubstr("but 2 values of FrameOfReferenceUID"));
}

TEST(DicomSeries, TellsOfFilesThatCannotBeReadInTheSeriesThatLacksThem) {
  const fs::path folder = test::scratch_folder();
  const auto slices = test::slices_of(plain_grid());
  fs::create_directory(folder / "other");
  for (const test::MadeSlice& slice : slices) {
    test::write_slice(folder / (std::to_string(slice.instance) + ".dcm"), slice);
    test::MadeSlice other = slice;
    other.series_uid = "1.2.3";
    test::write_slice(folder / "other" / (std::to_string(slice.instance) + ".dcm"), other);
  }
  std::ofstream(folder / "readme.txt") << "no DICOM";
  // A report of the same series is none of its slices.
  test::MadeSlice report = slices[0];
  report.change = [](DcmItem& item) {
    for (const DcmTagKey& tag : {DCM_Rows, DCM_Columns, DCM_PixelData})
      item.findAndDeleteElement(tag);
  };
  test::write_slice(folder / "report.dcm", report);
  EXPECT_THAT(scan_dicom(folder).left_out, SizeIs(1));
  for (const DicomSeries& series : scan_dicom(folder).series) EXPECT_EQ(refusal(series), "");
  const std::string whole = read_text(folder / "5.dcm");
  for (const size_t length : {size_t{0}, size_t{100}, size_t{700}, whole.size() - 20}) {
    SCOPED_TRACE(length);
    std::ofstream(folder / "5.dcm", std::ios::binary) << whole.substr(0, length);
    const DicomScan scan = scan_dicom(folder);
    ASSERT_THAT(scan.left_out, SizeIs(2));
    EXPECT_THAT(scan.left_out[0],
                AllOf(::testing::StartsWith((folder / "5.dcm: ").string()),
                      HasSubstr(length == 0 ? "is empty (0 bytes)" : "is")));
    ASSERT_THAT(scan.series, SizeIs(2));
    for (const DicomSeries& series : scan.series)
      if (series.slices.size() == 4) {
        EXPECT_THAT(refusal(series),
                    HasSubstr("a file of this series cannot be read, so a slice may be missing: "
                              "5.dcm is"));
      } else {
        EXPECT_EQ(refusal(series), "");
      }
  }
}

TEST(DicomSeries, GoesOnBehindLinksThatLeadNowhere) {
  const fs::path folder = test::scratch_folder();
  for (const test::MadeSlice& slice : test::slices_of(plain_grid()))
    test::write_slice(folder / (std::to_string(slice.instance) + ".dcm"), slice);
  fs::create_symlink(folder / "loop", folder / "loop");
  fs::create_symlink("/nowhere", folder / "nowhere");
  fs::create_directory_symlink(folder, folder / "round");
  const DicomScan scan = scan_dicom(folder);
  ASSERT_THAT(scan.series, SizeIs(1));
  EXPECT_EQ(refusal(scan.series[0]), "");
  EXPECT_THAT(scan.left_out,
              ::testing::ElementsAre(HasSubstr("loop: cannot be read: Too many levels"),
                                     HasSubstr("nowhere: is a link to nothing"),
                                     HasSubstr("round: is a link to a folder")));
}

TEST(DicomSeries, RefusesSlicesWhosePlaceOrPixelSizeIsNotTold) {
  const fs::path root = test::scratch_folder();
  int count = 0;
  const auto refused = [&](const DcmTagKey& tag, const std::string& value, int from) {
    const fs::path folder = root / std::to_string(++count);
    fs::create_directory(folder);
    for (test::MadeSlice& slice : test::slices_of(plain_grid())) {
      slice.change = [&](DcmItem& item) {
        if (slice.instance < from) return;
        if (value.empty())
          item.findAndDeleteElement(tag);
        else
          test::put(item, tag, value);
      };
      test::write_slice(folder / std::to_string(slice.instance), slice);
    }
    const DicomScan scan = scan_dicom(folder);
    EXPECT_THAT(scan.series, SizeIs(from > 1 ? 2 : 1));
    std::string all;
    for (const DicomSeries& series : scan.series) {
      EXPECT_NE(refusal(series), "");
      all += refusal(series);
    }
    return all;
  };
  EXPECT_THAT(refused(DCM_ImagePositionPatient, "", 1),
              HasSubstr("ImagePositionPatient (0020,0032) is missing"));
  EXPECT_THAT(refused(DCM_ImagePositionPatient, "1\\2", 1),
              HasSubstr("ImagePositionPatient (0020,0032) is \"1\\2\"; three numbers"));
  EXPECT_THAT(refused(DCM_ImageOrientationPatient, "", 1),
              HasSubstr("ImageOrientationPatient (0020,0037) is missing"));
  EXPECT_THAT(refused(DCM_ImageOrientationPatient, "1\\0\\0\\0.1\\0.995\\0", 1),
              HasSubstr("is \"1\\0\\0\\0.1\\0.995\\0\"; two unit vectors at right angles"));
  // The last one alone.
  EXPECT_THAT(refused(DCM_ImagePositionPatient, "", 5),
              HasSubstr("slices of this series cannot be put in their places: 5 (ImagePos"));
  EXPECT_THAT(
      refused(DCM_PixelSpacing, "", 1),
      HasSubstr("the size of its pixels is not known: PixelSpacing (0028,0030) is missing"));
  EXPECT_THAT(refused(DCM_PixelSpacing, "0.7", 1),
              HasSubstr("PixelSpacing (0028,0030) is \"0.7\"; two positive numbers"));
}

TEST(DicomSeries, KeepsEchoesPlanesAndTimePointsApartAndDropsLocalisers) {
  const fs::path folder = test::scratch_folder();
  const auto write = [&](const std::string& name, std::vector<test::MadeSlice> slices, int first) {
    for (size_t z = 0; z < slices.size(); ++z) {
      slices[z].instance = first + static_cast<int>(z);
      test::write_slice(folder / (name + std::to_string(z)), slices[z]);
    }
  };
  auto first_echo = test::slices_of(plain_grid()), second_echo = test::slices_of(plain_grid(), 500);
  for (auto& slice : first_echo) slice.echo = "1";
  for (auto& slice : second_echo) slice.echo = "2";
  write("echo1_", first_echo, 1);
  write("echo2_", second_echo, 6);
  write("first_time_", test::slices_of(plain_grid(), 1000), 11);
  write("second_time_", test::slices_of(plain_grid(), 2000), 16);
  Geometry turned = plain_grid();
  std::swap(turned.direction_lps_from_zyx[0], turned.direction_lps_from_zyx[1]);
  write("turned_", test::slices_of(turned, 3000), 21);
  auto scout = test::slices_of(plain_grid(), 4000);
  for (auto& slice : scout) slice.image_type = "ORIGINAL\\PRIMARY\\LOCALIZER";
  write("scout_", scout, 26);

  const DicomScan scan = scan_dicom(folder);
  EXPECT_THAT(scan.left_out, SizeIs(5));
  ASSERT_THAT(scan.series, SizeIs(5));
  std::vector<float> firsts;
  for (const DicomSeries& series : scan.series) {
    EXPECT_THAT(series.problems, SizeIs(0));
    firsts.push_back(read_dicom_series(series).values.min().item<float>());
  }
  EXPECT_THAT(firsts, ::testing::UnorderedElementsAre(0, 500, 1000, 2000, 3000));
}

TEST(DicomFile, KeepsSignsMasksUnusedBitsAndTurnsMonochrome1Round) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::MadeSlice slice;
  slice.rows = 1;
  slice.columns = 4;
  slice.pixels = {-2048, -1, 0, 2047};
  slice.bits_stored = 12;
  test::write_slice(path, slice);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({-2048.f, -1.f, 0.f, 2047.f})));
  slice.is_signed = false;
  slice.pixels = {0, 1, 4095, 0x1001};
  test::write_slice(path, slice, EXS_BigEndianExplicit);
  EXPECT_TRUE(at::equal(read_image(path).values.flatten(), at::tensor({0.f, 1.f, 4095.f, 1.f})));
  slice.photometric = "MONOCHROME1";
  slice.modality = "DX";
  test::write_slice(path, slice, EXS_DeflatedLittleEndianExplicit);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({4095.f, 4094.f, 0.f, 4094.f})));
}

TEST(DicomFile, LeavesMonochrome1OfCtAndPtAsItIs) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::MadeSlice slice;
  slice.rows = 1;
  slice.columns = 3;
  slice.pixels = {-400, 0, 1000};
  slice.photometric = "MONOCHROME1";
  slice.intercept = "-24";
  for (const char* modality : {"CT", "PT"}) {
    slice.modality = modality;
    test::write_slice(path, slice);
    EXPECT_TRUE(at::equal(read_image(path).values.flatten(), at::tensor({-424.f, -24.f, 976.f})));
  }
}

TEST(DicomFile, ReadsValuesThatLieInUpperBits) {
  test::MadeSlice slice;
  slice.rows = 1;
  slice.columns = 4;
  slice.pixels = {0x0010, 0x7ff0, static_cast<int16_t>(0xfff0), static_cast<int16_t>(0x8000)};
  slice.bits_stored = 12;
  slice.change = [](DcmItem& item) { item.putAndInsertUint16(DCM_HighBit, 15); };
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::write_slice(path, slice);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({1.f, 2047.f, -1.f, -2048.f})));
  slice.is_signed = false;
  test::write_slice(path, slice);
  EXPECT_TRUE(
      at::equal(read_image(path).values.flatten(), at::tensor({1.f, 2047.f, 4095.f, 2048.f})));
  slice.pixels[0] = 0x0011;
  test::write_slice(path, slice);
  EXPECT_THAT(test::message_of([&] { read_image(path); }),
              HasSubstr("BitsStored 12 and HighBit 15, but the 4 bits below these are used too"));
}

TEST(DicomFile, RefusesDeflatedElementsLongerThanTheirStream) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::write_slice(path, test::slices_of(plain_grid())[0], EXS_DeflatedLittleEndianExplicit);
  std::string sound = read_text(path);
  // The prefix, and the file meta information, whose first element holds its length.
  const size_t start = 144 + static_cast<unsigned char>(sound[140]) +
                       256 * static_cast<size_t>(static_cast<unsigned char>(sound[141]));
  const auto message = [&](const std::string& elements) {
    std::string packed(elements.size() + 100, '\0');
    z_stream state{};
    deflateInit2(&state, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(elements.data()));
    state.avail_in = static_cast<uInt>(elements.size());
    state.next_out = reinterpret_cast<Bytef*>(packed.data());
    state.avail_out = static_cast<uInt>(packed.size());
    EXPECT_EQ(deflate(&state, Z_FINISH), Z_STREAM_END);
    packed.erase(packed.size() - state.avail_out);
    deflateEnd(&state);
    std::ofstream(path, std::ios::binary) << sound.substr(0, start) + packed;
    return test::message_of([&] { read_dicom_header(path); });
  };
  using namespace std::string_literals;
  const std::string pixels =
      "\xE0\x7F\x10\x00OW\x00\x00\x50\x55\x55\x55"s
      "ab";
  EXPECT_THAT(message(pixels), HasSubstr("(7fe0,0010) declares 1431655760 bytes, and 2 are left"));
  // Behind a sequence, in an item of it, and as a fragment.
  const std::string sequence =
      "\x08\x00\x15\x11SQ\x00\x00\xFF\xFF\xFF\xFF"s
      "\xFE\xFF\x00\xE0\xFF\xFF\xFF\xFF"s;
  EXPECT_THAT(message(sequence + pixels), HasSubstr("(7fe0,0010) declares 1431655760"));
  EXPECT_THAT(message("\xE0\x7F\x10\x00OB\x00\x00\xFF\xFF\xFF\xFF"s
                      "\xFE\xFF\x00\xE0\x50\x55\x55\x55"s),
              HasSubstr("(fffe,e000) declares 1431655760 bytes, and 0 are left"));
  EXPECT_THAT(message("\x08\x00\x60\x00"s
                      "CS\x02\x00"s
                      "CT"),
              HasSubstr("it has no Rows"));
  // Of a representation that is not known yet.
  EXPECT_THAT(message("\x09\x00\x10\x10ZZ\x00\x00\x50\x55\x55\x55"s
                      "ab"),
              HasSubstr("(0009,1010) declares 1431655760 bytes"));
  // The meta information holds another group, and goes on as long as it says.
  sound[144] = '\x09';
  EXPECT_THAT(message(pixels), HasSubstr("(7fe0,0010) declares 1431655760"));
}

TEST(DicomFile, RefusesCutFilesAndSizesThatTheFileCannotHold) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::write_slice(path, test::slices_of(plain_grid())[0]);
  const std::string bytes = read_text(path);
  const auto message = [&](const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
    try {
      read_image(path);
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const size_t length : {bytes.size() - 1, bytes.size() - 20, bytes.size() / 2, size_t{140}})
    EXPECT_THAT(message(bytes.substr(0, length)), ::testing::StartsWith(path.string())) << length;
  // Rows from 4 to 60000.
  std::string large = bytes;
  const size_t at = large.find(std::string("\x28\x00\x10\x00US", 6));
  ASSERT_NE(at, std::string::npos);
  large[at + 8] = '\x60';
  large[at + 9] = '\xea';
  EXPECT_THAT(message(large), HasSubstr("expected from Rows"));
  EXPECT_THAT(message("not DICOM at all"), HasSubstr("no DICOM file"));
}

// A slice whose header is changed before it is written.
template <typename Change>
std::string refusal_of_changed(const Change& change) {
  const fs::path path = test::scratch_folder() / "changed.dcm";
  test::write_slice(path, test::slices_of(plain_grid())[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  change(*format.getDataset());
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  return test::message_of([&] { read_image(path); });
}

void put_octets(DcmItem& item, int samples, int rows, int columns) {
  const std::vector<Uint8> pixels(static_cast<size_t>(samples * rows * columns) + 1, 7);
  const auto number = [&](const DcmTagKey& tag, int value) {
    item.putAndInsertUint16(tag, static_cast<Uint16>(value));
  };
  number(DCM_SamplesPerPixel, samples);
  number(DCM_Rows, rows);
  number(DCM_Columns, columns);
  number(DCM_BitsAllocated, 8);
  number(DCM_BitsStored, 8);
  number(DCM_HighBit, 7);
  number(DCM_PixelRepresentation, 0);
  item.putAndInsertUint8Array(DCM_PixelData, pixels.data(), pixels.size() / 2 * 2);
}

TEST(DicomFile, RefusesPixelsThatAreOtherThanTheHeaderSays) {
  // Two pixels share a colour: one is left over.
  EXPECT_THAT(refusal_of_changed([](DcmItem& item) {
                put_octets(item, 3, 3, 5);
                test::put(item, DCM_PhotometricInterpretation, "YBR_FULL_422");
              }),
              HasSubstr("need 3 samples and even rows"));
  EXPECT_THAT(refusal_of_changed([](DcmItem& item) {
                put_octets(item, 4, 4, 4);
                test::put(item, DCM_PhotometricInterpretation, "YBR_FULL_422");
              }),
              HasSubstr("need 3 samples and even rows"));
  EXPECT_THAT(refusal_of_changed([](DcmItem& item) { put_octets(item, 2, 4, 4); }),
              HasSubstr("SamplesPerPixel is 2; 1, 3 or 4"));
  const auto with_floats = [](int bits) {
    return refusal_of_changed([&](DcmItem& item) {
      const std::vector<Float32> pixels(24, 0.5);
      put_octets(item, 1, 4, 6);
      item.putAndInsertUint16(DCM_BitsAllocated, static_cast<Uint16>(bits));
      item.findAndDeleteElement(DCM_PixelData);
      item.putAndInsertFloat32Array(DCM_FloatPixelData, pixels.data(), pixels.size());
    });
  };
  EXPECT_EQ(with_floats(32), "(no error)");
  EXPECT_THAT(with_floats(8), HasSubstr("floating point of 32 bits, but BitsAllocated is 8"));
}

TEST(DicomFile, RefusesLookupTablesThatCannotBeOnes) {
  const auto with_table = [](const std::string& count, bool floats) {
    return refusal_of_changed([&](DcmItem& item) {
      put_octets(item, 1, 4, 6);
      DcmItem* lut = nullptr;
      item.findOrCreateSequenceItem(DCM_ModalityLUTSequence, lut, 0);
      auto* descriptor = new DcmDecimalString(DcmTag(DCM_LUTDescriptor, EVR_DS));
      descriptor->putString((count + "\\0\\16").c_str());
      lut->insert(descriptor, true);
      const Uint16 table[] = {0, 10, 20, 30};
      lut->putAndInsertUint16Array(DCM_LUTData, table, 4);
      if (!floats) return;
      const std::vector<Float32> pixels(24, NAN);
      item.putAndInsertUint16(DCM_BitsAllocated, 32);
      item.findAndDeleteElement(DCM_PixelData);
      item.putAndInsertFloat32Array(DCM_FloatPixelData, pixels.data(), pixels.size());
    });
  };
  EXPECT_EQ(with_table("4", false), "(no error)");
  for (const char* count : {"0.5", "1e30", "-1e300"})
    EXPECT_THAT(with_table(count, false), HasSubstr("whole numbers of 16 bits")) << count;
  EXPECT_THAT(with_table("4", true), HasSubstr("pixels that are no integers"));
}

TEST(DicomFile, RefusesNumbersThatAreOnlyHalfOnes) {
  const auto with = [](const DcmTagKey& tag, const char* text) {
    return refusal_of_changed([&](DcmItem& item) { test::put(item, tag, text); });
  };
  EXPECT_THAT(
      with(DCM_PixelSpacing, "0,75\\0,75"),
      HasSubstr("PixelSpacing (0028,0030) is \"0,75\\0,75\"; numbers with a decimal point"));
  EXPECT_THAT(with(DCM_ImagePositionPatient, "-10,5\\-20,5\\30.5"),
              HasSubstr("ImagePositionPatient (0020,0032) is \"-10,5"));
  EXPECT_THAT(with(DCM_ImageOrientationPatient, "1\\0\\0\\0\\1x\\0"),
              HasSubstr("ImageOrientationPatient (0020,0037) is \"1"));
  EXPECT_THAT(with(DCM_RescaleSlope, "0,75"), HasSubstr("RescaleSlope (0028,1053) is \"0,75\""));
  EXPECT_THAT(with(DCM_RescaleSlope, "abcd"), HasSubstr("RescaleSlope (0028,1053) is \"abcd\""));
  EXPECT_THAT(with(DCM_RescaleIntercept, "1O"), HasSubstr("RescaleIntercept (0028,1052)"));
  EXPECT_THAT(with(DCM_NumberOfFrames, "1A"), HasSubstr("NumberOfFrames (0028,0008) is \"1A\""));
  EXPECT_EQ(with(DCM_RescaleSlope, " +1.0e0 "), "(no error)");
}

TEST(DicomFile, RefusesMorePixelsThanAreDeclaredButForPadding) {
  const auto with = [](size_t words, Uint16 value) {
    return refusal_of_changed([&](DcmItem& item) {
      const std::vector<Uint16> pixels(words, value);  // 24 of them are declared, 6 in a row
      item.putAndInsertUint16Array(DCM_PixelData, pixels.data(), pixels.size());
    });
  };
  EXPECT_THAT(with(48, 7), HasSubstr("changed.dcm holds 48 bytes of pixels more than Rows"));
  EXPECT_THAT(with(48, 0), HasSubstr("48 bytes of pixels more"));
  EXPECT_THAT(with(30, 7), HasSubstr("12 bytes of pixels more"));
  EXPECT_EQ(with(30, 0), "(no error)");
  EXPECT_EQ(with(25, 7), "(no error)");
}

TEST(DicomFile, TellsDescriptionsInUtf8) {
  const fs::path path = test::scratch_folder() / "one.dcm";
  test::MadeSlice slice = test::slices_of(plain_grid())[0];
  const auto description = [&](const char* character_set, const char* bytes) {
    slice.change = [&](DcmItem& item) {
      if (*character_set != '\0') test::put(item, DCM_SpecificCharacterSet, character_set);
      test::put(item, DCM_SeriesDescription, bytes);
    };
    test::write_slice(path, slice);
    return read_dicom_header(path).series_description;
  };
  EXPECT_EQ(description("ISO_IR 100",
                        "Sch\xe4"
                        "del"),
            "Sch\u00e4del");
  EXPECT_EQ(description("ISO_IR 192", "Sch\u00e4del"), "Sch\u00e4del");
  EXPECT_EQ(description("ISO_IR 144", "\xd1\xd2"), "\u0431\u0432");
  // Where nothing tells what it is.
  EXPECT_EQ(description("",
                        "Sch\xe4"
                        "del"),
            "Sch\ufffd"
            "del");
  EXPECT_EQ(description("ISO_IR 999",
                        "Sch\u00e4"
                        "d\xff"),
            "Sch\u00e4"
            "d\ufffd");
}

TEST(DicomFile, RefusesPlacesThatAreNone) {
  const auto at = [](const char* position, const char* spacing) {
    return refusal_of_changed([&](DcmItem& item) {
      test::put(item, DCM_ImagePositionPatient, position);
      test::put(item, DCM_PixelSpacing, spacing);
    });
  };
  EXPECT_EQ(at("1\\2\\3", "1\\1"), "(no error)");
  EXPECT_THAT(at("1\\2\\3e300", "1\\1"), HasSubstr("lies more than a kilometre away"));
  EXPECT_THAT(at("1\\2\\3", "1e-200\\1"), HasSubstr("PixelSpacing is no distance"));
  EXPECT_THAT(at("1\\2\\3", "1\\1e200"), HasSubstr("PixelSpacing is no distance"));
  // As if it were not there: a picture without a place.
  EXPECT_EQ(at("1\\2\\nan", "1\\1"), "(no error)");
}

// All slices of a stack as the frames of one file, in the order given, every frame with its own
// slope.
void write_frames(const fs::path& path,
                  const std::vector<test::MadeSlice>& slices,
                  const std::vector<int>& order,
                  const std::vector<std::string>& slopes,
                  E_TransferSyntax syntax) {
  test::write_slice(path, slices[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  DcmDataset& item = *format.getDataset();
  item.findAndDeleteElement(DCM_ImagePositionPatient);
  test::put(item, DCM_NumberOfFrames, std::to_string(order.size()));
  auto* groups = new DcmSequenceOfItems(DCM_PerFrameFunctionalGroupsSequence);
  item.insert(groups);
  std::vector<Uint16> words;
  for (const int z : order) {
    const test::MadeSlice& slice = slices[static_cast<size_t>(z)];
    words.insert(words.end(), slice.pixels.begin(), slice.pixels.end());
    auto* group = new DcmItem;
    groups->append(group);
    DcmItem *place = nullptr, *values = nullptr;
    group->findOrCreateSequenceItem(DCM_PlanePositionSequence, place, 0);
    const Vector3& p = slice.position_lps_mm;
    test::put(*place, DCM_ImagePositionPatient, test::decimals({p[0], p[1], p[2]}));
    group->findOrCreateSequenceItem(DCM_PixelValueTransformationSequence, values, 0);
    test::put(*values, DCM_RescaleSlope, slopes[static_cast<size_t>(z)]);
    test::put(*values, DCM_RescaleIntercept, "-3");
  }
  item.putAndInsertUint16Array(DCM_PixelData, words.data(), words.size());
  if (syntax == EXS_RLELossless) DcmRLEEncoderRegistration::registerCodecs();
  ASSERT_TRUE(item.chooseRepresentation(syntax, nullptr).good());
  ASSERT_TRUE(format.saveFile(path.c_str(), syntax).good());
}

TEST(DicomSeries, PutsFramesOfOneFileAtTheirPlacesEachByItsOwnSlope) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  for (const E_TransferSyntax syntax :
       {EXS_LittleEndianExplicit, EXS_BigEndianExplicit, EXS_RLELossless}) {
    write_frames(path,
                 test::slices_of(plain_grid()),
                 {3, 0, 4, 1, 2},
                 {"0.5", "1", "1.5", "2", "2.5"},
                 syntax);
    for (const bool compact : {false, true}) {
      const Volume volume = read_dicom_series(scan_dicom(path).series.at(0), {}, compact);
      EXPECT_EQ(difference(volume.geometry, plain_grid()), "");
      const at::Tensor stored = at::arange(120, at::kFloat).view({5, 4, 6});
      const at::Tensor slopes = at::tensor({0.5f, 1.f, 1.5f, 2.f, 2.5f}).view({5, 1, 1});
      EXPECT_TRUE(at::equal(volume.values[0], stored * slopes - 3));
    }
  }
}

TEST(DicomSeries, TakesASingleFramesThicknessFromItsFunctionalGroups) {
  const fs::path path = test::scratch_folder() / "frame.dcm";
  write_frames(path, test::slices_of(plain_grid()), {2}, {"1", "1", "1"}, EXS_LittleEndianExplicit);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  DcmItem *groups = nullptr, *measures = nullptr;
  format.getDataset()->findAndGetSequenceItem(DCM_PerFrameFunctionalGroupsSequence, groups, 0);
  groups->findOrCreateSequenceItem(DCM_PixelMeasuresSequence, measures, 0);
  test::put(*measures, DCM_SliceThickness, "5");
  format.loadAllDataIntoMemory();
  ASSERT_TRUE(format.saveFile(path.c_str(), EXS_LittleEndianExplicit).good());
  const Volume volume = read_dicom_series(scan_dicom(path).series.at(0));
  EXPECT_DOUBLE_EQ(volume.geometry.spacing_mm_zyx[0], 5);
}

TEST(DicomSeries, NamesCasesAfterFoldersInAnyScript) {
  const fs::path folder = test::scratch_folder();
  const std::string long_name(200, 'x');
  for (const std::string& name : {std::string("日本"), long_name}) {
    fs::create_directories(folder / name);
    for (const auto& slice : test::slices_of(plain_grid()))
      test::write_slice(folder / name / (std::to_string(slice.instance) + ".dcm"), slice);
  }
  EXPECT_EQ(scan_dicom(folder / "日本").series.at(0).name, "日本");
  EXPECT_EQ(scan_dicom(folder / long_name).series.at(0).name, long_name.substr(0, 120));
}

// The slices of three volumes at one place as the frames of one file, shuffled; `change` makes a
// frame of the k-th.
void write_copies_as_frames(const fs::path& path,
                            const std::function<void(DcmItem& groups, int k)>& change) {
  std::vector<test::MadeSlice> slices;
  std::vector<int> order;
  for (int k = 0; k < 3; ++k)
    for (const auto& slice : test::slices_of(plain_grid(), static_cast<int16_t>(1000 * k))) {
      order.push_back(static_cast<int>(slices.size()));
      slices.push_back(slice);
    }
  std::mt19937 random(7);
  std::shuffle(order.begin(), order.end(), random);
  write_frames(path, slices, order, std::vector<std::string>(15, "1"), EXS_LittleEndianExplicit);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  DcmDataset& item = *format.getDataset();
  for (size_t i = 0; i < order.size(); ++i) {
    DcmItem *groups = nullptr, *content = nullptr;
    item.findAndGetSequenceItem(DCM_PerFrameFunctionalGroupsSequence, groups, static_cast<long>(i));
    groups->findOrCreateSequenceItem(DCM_FrameContentSequence, content, 0);
    content->putAndInsertUint32(DCM_InStackPositionNumber, static_cast<Uint32>(order[i] % 5 + 1));
    change(*groups, order[i] / 5);
  }
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
}

TEST(DicomSeries, TellsFramesOfOneFileApartByDirectionTimeAndDimension) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  const auto expect_apart = [&](const auto& change) {
    write_copies_as_frames(path, change);
    const DicomScan scan = scan_dicom(path);
    ASSERT_THAT(scan.series, SizeIs(3));
    for (const DicomSeries& series : scan.series) {
      ASSERT_EQ(refusal(series), "");
      const at::Tensor values = read_dicom_series(series).values.flatten();
      EXPECT_TRUE(at::equal(values, values[0] + at::arange(120, at::kFloat)));
    }
  };
  expect_apart([](DcmItem& groups, int k) {
    DcmItem *diffusion = nullptr, *direction = nullptr;
    groups.findOrCreateSequenceItem(DCM_MRDiffusionSequence, diffusion, 0);
    diffusion->findOrCreateSequenceItem(DCM_DiffusionGradientDirectionSequence, direction, 0);
    const Float64 axes[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    direction->putAndInsertFloat64Array(DCM_DiffusionGradientOrientation, axes[k], 3);
  });
  expect_apart([](DcmItem& groups, int k) {
    DcmItem* heart = nullptr;
    groups.findOrCreateSequenceItem(DCM_CardiacSynchronizationSequence, heart, 0);
    heart->putAndInsertFloat64(DCM_NominalCardiacTriggerDelayTime, 100 * k);
  });
  expect_apart([](DcmItem& groups, int k) {
    DcmItem* content = nullptr;
    groups.findOrCreateSequenceItem(DCM_FrameContentSequence, content, 0);
    Uint32 place = 0;
    content->findAndGetUint32(DCM_InStackPositionNumber, place);
    const Uint32 indices[] = {static_cast<Uint32>(k + 1), place};
    auto* values = new DcmUnsignedLong(DcmTag(DCM_DimensionIndexValues));
    values->putUint32Array(indices, 2);
    content->insert(values, true);
  });
  expect_apart([](DcmItem& groups, int k) {
    DcmItem* type = nullptr;
    groups.findOrCreateSequenceItem(DCM_MRImageFrameTypeSequence, type, 0);
    const char* components[] = {"MAGNITUDE", "PHASE", "REAL"};
    test::put(*type, DCM_ComplexImageComponent, components[k]);
  });
  // By their order in the file alone they are not.
  write_copies_as_frames(path, [](DcmItem&, int) {});
  EXPECT_THAT(refusal(scan_dicom(path).series.at(0)),
              HasSubstr("3 slices lie at each of 5 places, and neither times"));
}

// A stack as the frames of a file without functional groups, twice over.
void write_plain_frames(const fs::path& path, const std::function<void(DcmItem&)>& change) {
  test::MadeSlice slice = test::slices_of(plain_grid())[0];
  slice.modality = "NM";
  slice.image_type = "ORIGINAL\\PRIMARY\\RECON GATED TOMO";
  std::vector<Uint16> words(240);
  std::iota(words.begin(), words.end(), static_cast<Uint16>(0));
  slice.change = [&](DcmItem& item) {
    test::put(item, DCM_SOPClassUID, UID_NuclearMedicineImageStorage);
    test::put(item, DCM_NumberOfFrames, "10");
    test::put(item, DCM_SpacingBetweenSlices, "2.5");
    item.putAndInsertUint16Array(DCM_PixelData, words.data(), words.size());
    change(item);
  };
  test::write_slice(path, slice);
}

void put_vector(DcmItem& item, const DcmTagKey& tag, const std::vector<Uint16>& values) {
  item.putAndInsertUint16Array(tag, values.data(), values.size());
}

void put_pointers(DcmItem& item, std::initializer_list<DcmTagKey> tags) {
  auto* pointers = new DcmAttributeTag(DcmTag(DCM_FrameIncrementPointer));
  unsigned long i = 0;
  for (const DcmTagKey& tag : tags) pointers->putTagVal(tag, i++);
  item.insert(pointers, true);
}

TEST(DicomSeries, KeepsGatesOfOneFileApart) {
  const fs::path path = test::scratch_folder() / "gates.dcm";
  write_plain_frames(path, [](DcmItem& item) {
    put_pointers(item, {DCM_EnergyWindowVector, DCM_TimeSlotVector, DCM_SliceVector});
    put_vector(item, DCM_EnergyWindowVector, std::vector<Uint16>(10, 1));
    put_vector(item, DCM_TimeSlotVector, {1, 2, 1, 2, 1, 2, 1, 2, 1, 2});
    put_vector(item, DCM_SliceVector, {1, 1, 2, 2, 3, 3, 4, 4, 5, 5});
  });
  const DicomScan scan = scan_dicom(path);
  ASSERT_THAT(scan.series, SizeIs(2));
  for (const DicomSeries& series : scan.series) {
    const Volume volume = read_dicom_series(series);
    EXPECT_EQ(difference(volume.geometry, plain_grid()), "");
    const at::Tensor firsts = volume.values[0].select(1, 0).select(1, 0);
    EXPECT_TRUE(at::equal(firsts - firsts[0], at::arange(5, at::kFloat) * 48));
  }
  EXPECT_EQ(scan.series[0].files[0].frames[1].kind, "time slot 2");
}

TEST(DicomSeries, RefusesFramesThatAreMomentsOrViewsAsAVolume) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  const auto refused = [&](const auto& change) {
    write_plain_frames(path, change);
    return refusal(scan_dicom(path).series.at(0));
  };
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_FrameTime});
                test::put(item, DCM_FrameTime, "40");
              }),
              HasSubstr("its frames run over FrameTime (0018,1063) (FrameIncrementPointer)"));
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_SliceVector});
                put_vector(item, DCM_SliceVector, {1, 2, 3});
              }),
              HasSubstr("which holds 3 numbers for 10 frames"));
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_SliceVector});
                put_vector(item, DCM_SliceVector, {2, 1, 3, 4, 5, 6, 7, 8, 9, 10});
              }),
              HasSubstr("its first frame is not its first slice (SliceVector)"));
  EXPECT_THAT(refused([](DcmItem& item) {
                put_pointers(item, {DCM_TimeSlotVector});
                put_vector(item, DCM_TimeSlotVector, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
              }),
              HasSubstr("FrameIncrementPointer lacks SliceVector"));
  EXPECT_THAT(refused([](DcmItem& item) { item.findAndDeleteElement(DCM_SpacingBetweenSlices); }),
              HasSubstr("SpacingBetweenSlices (0018,0088) is missing"));
}

TEST(DicomSeries, FindsThePlaceOfAReconstructionInItsDetector) {
  const fs::path path = test::scratch_folder() / "frames.dcm";
  write_plain_frames(path, [](DcmItem& item) {
    put_pointers(item, {DCM_SliceVector});
    put_vector(item, DCM_SliceVector, {1, 4, 3, 2, 5, 6, 7, 8, 9, 10});
    DcmItem* detector = nullptr;
    item.findOrCreateSequenceItem(DCM_DetectorInformationSequence, detector, 0);
    for (const DcmTagKey& tag : {DCM_ImagePositionPatient, DCM_ImageOrientationPatient})
      detector->insert(item.remove(tag), true);
  });
  const Volume volume = read_dicom_series(scan_dicom(path).series.at(0));
  Geometry grid = plain_grid();
  grid.size_zyx[0] = 10;
  EXPECT_EQ(difference(volume.geometry, grid), "");
  const at::Tensor firsts = volume.values[0].select(1, 0).select(1, 0);
  EXPECT_TRUE(at::equal(firsts.narrow(0, 0, 5), at::tensor({0.f, 72.f, 48.f, 24.f, 96.f})));
}

TEST(DicomFile, ReadsFramesOfSingleBitsThatShareBytes) {
  const fs::path path = test::scratch_folder() / "bits.dcm";
  test::write_slice(path, test::slices_of(plain_grid())[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  format.loadAllDataIntoMemory();
  DcmDataset& item = *format.getDataset();
  put_octets(item, 1, 3, 3);
  for (const DcmTagKey& tag : {DCM_BitsAllocated, DCM_BitsStored}) item.putAndInsertUint16(tag, 1);
  item.putAndInsertUint16(DCM_HighBit, 0);
  test::put(item, DCM_NumberOfFrames, "3");
  const std::vector<Uint8> bits{0b10100101, 0b01110011, 0b00001110, 0b00000101};  // 27 of them
  item.putAndInsertUint8Array(DCM_PixelData, bits.data(), bits.size());
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  const at::Tensor frames = read_dicom_pixels(read_dicom_header(path)).flatten();
  ASSERT_EQ(frames.numel(), 27);
  for (int64_t i = 0; i < 27; ++i)
    EXPECT_EQ(frames[i].item<float>(), bits[static_cast<size_t>(i / 8)] >> (i % 8) & 1) << i;
}

TEST(DicomSeries, RefusesToMendWhatWouldGrowWithoutBound) {
  const fs::path folder = test::scratch_folder();
  auto slices = test::slices_of(plain_grid());
  slices.back().position_lps_mm[2] = 900'000;
  write_shuffled(folder, slices);
  DicomAllowances allowed;
  allowed.gaps = allowed.tilt = true;
  EXPECT_THAT(refusal(scan_dicom(folder).series.at(0), allowed),
              HasSubstr("more than 16 times its pixels"));
}

TEST(DicomSeries, LeavesOutAFileOfTooManyVolumes) {
  const fs::path path = test::scratch_folder() / "many.dcm";
  constexpr int kFrames = 2100;
  test::write_slice(path, test::slices_of(plain_grid())[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  DcmDataset& item = *format.getDataset();
  put_octets(item, 1, 1, kFrames);
  item.putAndInsertUint16(DCM_Columns, 1);
  test::put(item, DCM_NumberOfFrames, std::to_string(kFrames));
  auto* groups = new DcmSequenceOfItems(DCM_PerFrameFunctionalGroupsSequence);
  item.insert(groups);
  for (int i = 0; i < kFrames; ++i) {
    auto* group = new DcmItem;
    groups->append(group);
    DcmItem* content = nullptr;
    group->findOrCreateSequenceItem(DCM_FrameContentSequence, content, 0);
    test::put(*content, DCM_StackID, std::to_string(i));
  }
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  const DicomScan scan = scan_dicom(path);
  EXPECT_THAT(scan.series, SizeIs(0));
  ASSERT_THAT(scan.left_out, SizeIs(1));
  EXPECT_THAT(scan.left_out[0], HasSubstr("2100 frames belong to 2100 volumes"));
}

// Against what pydicom and SimpleITK found in real series.
TEST(DicomSeries, RealSeriesAreOrderedAsPydicomOrdersThem) {
  VIREO_REQUIRE_REAL_DATA(root, "dicom_series");
  const json expected = json::parse(read_text(root / "expected_series.json"));
  for (const auto& [name, report] : expected.items()) {
    SCOPED_TRACE(name);
    const json& one = report["series"][0];
    const DicomScan scan = scan_dicom(root / name);
    if (name == "ct_ge_tilt_28") {
      // Two passes, told apart by their image type: 4 mm and 7 mm.
      ASSERT_THAT(scan.series, SizeIs(2));
      for (const DicomSeries& series : scan.series)
        EXPECT_THAT(refusal(series), AllOf(HasSubstr("18.5"), HasSubstr("gantry tilt")));
      EXPECT_NEAR(scan.series[0].geometry.spacing_mm_zyx[0], 4.002, 1e-3);
      EXPECT_NEAR(scan.series[1].geometry.spacing_mm_zyx[0], 6.999, 1e-3);
      continue;
    }
    ASSERT_THAT(scan.series, SizeIs(1));
    const DicomSeries& series = scan.series[0];
    std::vector<std::string> names;
    for (const DicomSlice& slice : series.slices)
      names.push_back(series.files[slice.file].path.filename().string());
    EXPECT_EQ(names, one["sorted_files"].get<std::vector<std::string>>());
    const auto& positions = one["positions_along_normal"];
    for (size_t i = 0; i < positions.size(); ++i)
      EXPECT_NEAR(series.slices[i].along_normal_mm, positions[i].get<double>(), 1e-3);
    const Volume volume = read_dicom_series(series);
    const json& pixels = one["pixels_sorted_zyx"];
    EXPECT_NEAR(
        volume.values.min().item<double>(), pixels["range_rescaled"][0].get<double>(), 1e-4);
    EXPECT_NEAR(
        volume.values.max().item<double>(), pixels["range_rescaled"][1].get<double>(), 1e-4);
    EXPECT_NEAR(volume.values.to(at::kDouble).mean().item<double>(),
                pixels["mean_rescaled"].get<double>(),
                1e-4);
    const json& simpleitk = one["simpleitk_series"];
    if (!simpleitk.contains("spacing")) continue;
    for (int axis = 0; axis < 3; ++axis) {
      EXPECT_NEAR(
          volume.geometry.spacing_mm_zyx[2 - axis], simpleitk["spacing"][axis].get<double>(), 1e-3);
      EXPECT_NEAR(
          volume.geometry.origin_lps_mm[axis], simpleitk["origin"][axis].get<double>(), 1e-3);
    }
  }
}

}  // namespace
}  // namespace vireo
