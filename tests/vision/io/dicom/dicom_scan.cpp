#include "vision/io/dicom/dicom_scan.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/io/dicom/dicom_volume.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Three volumes at one place, as `change` makes the k-th, under names that say nothing and with
// instance numbers that start anew in each.
void write_copies(const fs::path& folder,
                  const std::function<void(DcmItem&, int k, int z)>& change) {
  std::vector<test::MadeSlice> all;
  for (int k = 0; k < 3; ++k) {
    const auto slices = test::slices_of(test::plain_grid(), static_cast<int16_t>(1000 * k));
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
    ASSERT_EQ(test::refusal(series), "");
    const at::Tensor values = read_dicom_series(series).values.flatten();
    firsts.insert(values[0].item<float>());
    EXPECT_TRUE(at::equal(values, values[0] + at::arange(120, at::kFloat)));
  }
  EXPECT_EQ(firsts, (std::set<float>{0, 1000, 2000}));
}

TEST(DicomScan, TellsTimePointsApartByTheirTimesWhereInstanceNumbersDoNot) {
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

TEST(DicomScan, OrdersTimesThatWaverFromSliceToSlice) {
  const fs::path folder = test::scratch_folder();
  write_copies(folder, [](DcmItem& item, int k, int z) {
    test::put(item, DCM_TriggerTime, std::to_string(40 * k + z));
  });
  expect_whole_volumes(scan_dicom(folder));
}

TEST(DicomScan, TakesInstanceNumbersThatRunThroughPlaces) {
  const fs::path folder = test::scratch_folder();
  write_copies(folder, [](DcmItem& item, int k, int z) {
    test::put(item, DCM_InstanceNumber, std::to_string(25 * (5 - z) + k));
  });
  expect_whole_volumes(scan_dicom(folder));
}

TEST(DicomScan, RefusesCopiesThatNothingTellsApart) {
  const fs::path root = test::scratch_folder();
  const auto refused = [&](const std::string& name, const auto& change) {
    fs::create_directory(root / name);
    write_copies(root / name, change);
    const DicomScan scan = scan_dicom(root / name);
    EXPECT_THAT(scan.series, SizeIs(1));
    DicomAllowances allowed;
    allowed.duplicates = allowed.gaps = true;
    return test::refusal(scan.series.at(0), allowed);
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

TEST(DicomScan, KeepsStudiesPatientsAndFramesOfReferenceApart) {
  const fs::path root = test::scratch_folder();
  Geometry above = test::plain_grid();
  above.origin_lps_mm[2] += 5 * 2.5;
  const auto scan_of = [&](const std::string& name, const auto& change, size_t slices_above) {
    const fs::path folder = root / name;
    for (const char* part : {"a", "b"}) fs::create_directories(folder / part);
    auto first = test::slices_of(test::plain_grid()), second = test::slices_of(above, 1000);
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
      EXPECT_EQ(test::refusal(series), "");
    }
  }
  const DicomScan nameless = scan_of(
      "nameless", [](DcmItem& item, bool) { test::put(item, DCM_SeriesInstanceUID, ""); }, 5);
  EXPECT_THAT(nameless.series, SizeIs(2));
  // A single slice is no series of its own, but its place cannot be compared.
  const DicomScan mixed = scan_of("mixed", other(DCM_FrameOfReferenceUID), 1);
  ASSERT_THAT(mixed.series, SizeIs(1));
  EXPECT_THAT(test::refusal(mixed.series[0]), HasSubstr("but 2 values of FrameOfReferenceUID"));
}

TEST(DicomScan, TellsOfFilesThatCannotBeReadInTheSeriesThatLacksThem) {
  const fs::path folder = test::scratch_folder();
  const auto slices = test::slices_of(test::plain_grid());
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
  for (const DicomSeries& series : scan_dicom(folder).series) EXPECT_EQ(test::refusal(series), "");
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
        EXPECT_THAT(test::refusal(series),
                    HasSubstr("a file of this series cannot be read, so a slice may be missing: "
                              "5.dcm is"));
      } else {
        EXPECT_EQ(test::refusal(series), "");
      }
  }
}

TEST(DicomScan, GoesOnBehindLinksThatLeadNowhere) {
  const fs::path folder = test::scratch_folder();
  for (const test::MadeSlice& slice : test::slices_of(test::plain_grid()))
    test::write_slice(folder / (std::to_string(slice.instance) + ".dcm"), slice);
  fs::create_symlink(folder / "loop", folder / "loop");
  fs::create_symlink("/nowhere", folder / "nowhere");
  fs::create_directory_symlink(folder, folder / "round");
  const DicomScan scan = scan_dicom(folder);
  ASSERT_THAT(scan.series, SizeIs(1));
  EXPECT_EQ(test::refusal(scan.series[0]), "");
  EXPECT_THAT(scan.left_out,
              ::testing::ElementsAre(HasSubstr("loop: cannot be read: Too many levels"),
                                     HasSubstr("nowhere: is a link to nothing"),
                                     HasSubstr("round: is a link to a folder")));
}

TEST(DicomScan, RefusesSlicesWhosePlaceOrPixelSizeIsNotTold) {
  const fs::path root = test::scratch_folder();
  int count = 0;
  const auto refused = [&](const DcmTagKey& tag, const std::string& value, int from) {
    const fs::path folder = root / std::to_string(++count);
    fs::create_directory(folder);
    for (test::MadeSlice& slice : test::slices_of(test::plain_grid())) {
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
      EXPECT_NE(test::refusal(series), "");
      all += test::refusal(series);
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

TEST(DicomScan, KeepsEchoesPlanesAndTimePointsApartAndDropsLocalisers) {
  const fs::path folder = test::scratch_folder();
  const auto write = [&](const std::string& name, std::vector<test::MadeSlice> slices, int first) {
    for (size_t z = 0; z < slices.size(); ++z) {
      slices[z].instance = first + static_cast<int>(z);
      test::write_slice(folder / (name + std::to_string(z)), slices[z]);
    }
  };
  auto first_echo = test::slices_of(test::plain_grid()),
       second_echo = test::slices_of(test::plain_grid(), 500);
  for (auto& slice : first_echo) slice.echo = "1";
  for (auto& slice : second_echo) slice.echo = "2";
  write("echo1_", first_echo, 1);
  write("echo2_", second_echo, 6);
  write("first_time_", test::slices_of(test::plain_grid(), 1000), 11);
  write("second_time_", test::slices_of(test::plain_grid(), 2000), 16);
  Geometry turned = test::plain_grid();
  std::swap(turned.direction_lps_from_zyx[0], turned.direction_lps_from_zyx[1]);
  write("turned_", test::slices_of(turned, 3000), 21);
  auto scout = test::slices_of(test::plain_grid(), 4000);
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

TEST(DicomScan, TakesAxesThatAreRoundedOtherwiseForOnePlane) {
  const fs::path folder = test::scratch_folder();
  Geometry grid = test::plain_grid();
  const double c = std::cos(0.35), s = std::sin(0.35);
  grid.direction_lps_from_zyx = {{{0, 0, 1}, {-s, c, 0}, {c, s, 0}}};
  auto slices = test::slices_of(grid);
  for (size_t z = 1; z < slices.size(); z += 2)
    for (double& component : slices[z].y_lps) component = std::round(component * 1000) / 1000;
  for (const auto& slice : slices)
    test::write_slice(folder / (std::to_string(slice.instance) + ".dcm"), slice);
  const DicomScan scan = scan_dicom(folder);
  ASSERT_THAT(scan.series, SizeIs(1));
  EXPECT_THAT(scan.series[0].problems, SizeIs(0));
  EXPECT_THAT(scan.series[0].slices, SizeIs(5));
}

TEST(DicomScan, NamesCasesAfterFoldersInAnyScript) {
  const fs::path folder = test::scratch_folder();
  const std::string long_name(200, 'x');
  for (const std::string& name : {std::string("日本"), long_name}) {
    fs::create_directories(folder / name);
    for (const auto& slice : test::slices_of(test::plain_grid()))
      test::write_slice(folder / name / (std::to_string(slice.instance) + ".dcm"), slice);
  }
  EXPECT_EQ(scan_dicom(folder / "日本").series.at(0).name, "日本");
  EXPECT_EQ(scan_dicom(folder / long_name).series.at(0).name, long_name.substr(0, 120));
}

TEST(DicomScan, LeavesOutAFileOfTooManyVolumes) {
  const fs::path path = test::scratch_folder() / "many.dcm";
  constexpr int kFrames = 2100;
  test::write_slice(path, test::slices_of(test::plain_grid())[0]);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  DcmDataset& item = *format.getDataset();
  test::put_octets(item, 1, 1, kFrames);
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
TEST(DicomScan, RealSeriesAreOrderedAsPydicomOrdersThem) {
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
        EXPECT_THAT(test::refusal(series), AllOf(HasSubstr("18.5"), HasSubstr("gantry tilt")));
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
