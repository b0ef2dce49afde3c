#include <filesystem>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "datasets/array_file.h"
#include "datasets/case_scan.h"
#include "datasets/source.h"
#include "tests/support/made_arrays.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using test::write_hdf5;

DataConfig config_of(const fs::path& folder, const std::string& more) {
  return DataConfig::from_table(
      ConfigTable::from_text("folder = \"" + folder.string() + "\"\n" + more, "test"),
      folder / "run");
}

const std::string kThreeLabels = "labels = [\"background\", \"aorta\", \"liver\"]\n";

TEST(ArraySources, PutSlicesTogetherInNumericalOrderAndScoreTheVolumes) {
  const fs::path folder = test::scratch_folder();
  // Written 11 before 2, as names sort; values tell the order.
  for (const int slice : {11, 2, 0})
    test::write_npz(folder / ("train_npz/case0005_slice" + std::to_string(slice) + ".npz"),
                    at::full({3, 4}, slice, at::kFloat),
                    at::full({3, 4}, slice % 3, at::kByte));
  write_hdf5(
      folder / "test_vol_h5/case0001.npy.h5", at::rand({5, 3, 4}), at::zeros({5, 3, 4}, at::kByte));
  const DatasetSource source = read_source(config_of(folder, kThreeLabels));
  EXPECT_EQ(source.format, "arrays");
  EXPECT_TRUE(source.problems.empty());
  ASSERT_EQ(source.cases.size(), 2u);
  EXPECT_EQ(source.cases[0].name, "case0001");
  ASSERT_EQ(source.folds.size(), 1u);
  EXPECT_THAT(source.folds[0].train, ElementsAre("case0005"));
  EXPECT_THAT(source.folds[0].val, ElementsAre("case0001"));
  const RawCase raw = read_case(source.cases[1]);
  EXPECT_TRUE(
      at::equal(raw.image.values[0].select(1, 0).select(1, 0), at::tensor({0.f, 2.f, 11.f})));
  EXPECT_TRUE(
      at::equal(raw.labels.values[0].select(1, 0).select(1, 0), at::tensor({0, 2, 2}, at::kInt)));
  EXPECT_EQ(read_case(source.cases[0]).image.geometry.size_zyx[0], 5);
}

TEST(ArraySources, TakeTheWholeVolumeBesideItsSlicesAndListsOfSlices) {
  const fs::path folder = test::scratch_folder();
  for (int slice = 1; slice <= 2; ++slice)
    write_hdf5(
        folder / ("ACDC_training_slices/patient001_frame01_slice_" + std::to_string(slice) + ".h5"),
        at::rand({3, 4}),
        at::zeros({3, 4}, at::kByte));
  for (const char* name : {"patient001_frame01", "patient002_frame12"})
    write_hdf5(folder / "ACDC_training_volumes" / (std::string(name) + ".h5"),
               at::rand({2, 3, 4}),
               at::zeros({2, 3, 4}, at::kByte));
  write_text_atomically(folder / "train_slices.list",
                        "patient001_frame01_slice_1\npatient001_frame01_slice_2\n");
  write_text_atomically(folder / "val.list", "patient002_frame12\n");
  const DatasetSource source = read_source(config_of(
      folder, kThreeLabels + "train_list = \"train_slices.list\"\nval_list = \"val.list\"\n"));
  EXPECT_TRUE(source.problems.empty());
  ASSERT_EQ(source.cases.size(), 2u);
  EXPECT_EQ(source.cases[0].images.size(), 1u);
  EXPECT_THAT(source.folds.at(0).train, ElementsAre("patient001_frame01"));
  EXPECT_THAT(source.folds.at(0).val, ElementsAre("patient002_frame12"));
}

TEST(ArraySources, ReadTheRealSlicesAndVolumes) {
  VIREO_REQUIRE_REAL_DATA(folder, "acdc_h5");
  const DatasetSource source = read_source(
      config_of(folder, "labels = [\"background\", \"right\", \"myocardium\", \"left\"]\n"));
  EXPECT_TRUE(source.problems.empty());
  ASSERT_EQ(source.folds.size(), 1u);
  EXPECT_EQ(source.folds[0].train.size(), 8u);
  EXPECT_EQ(source.folds[0].val.size(), 4u);
  const RawCase raw = read_case(source.cases[0]);
  EXPECT_EQ(raw.image.geometry.size_zyx, raw.labels.geometry.size_zyx);
  EXPECT_LE(raw.labels.values.max().item<int64_t>(), 3);
}

TEST(ArraySources, NameTheCaseOfEveryPublishedSliceName) {
  for (const auto& [stem, name, slice] : {std::tuple{"case0005_slice012", "case0005", 12},
                                          {"patient001_frame01_slice_1", "patient001_frame01", 1},
                                          {"case_001_sliceED_3", "case_001_ED", 3},
                                          {"case0001", "case0001", -1},
                                          {"slices", "slices", -1}}) {
    EXPECT_EQ(source::slice_name(stem).case_name, name);
    EXPECT_EQ(source::slice_name(stem).slice, slice);
  }
}

TEST(ArraySources, ReadTheChallengesOwnFoldersOfPatients) {
  const fs::path folder = test::scratch_folder();
  for (const char* name : {"patient001_4d", "patient001_frame01", "patient001_frame12"}) {
    fs::create_directories(folder / "patient001");
    Geometry grid;
    grid.size_zyx = {2, 3, 4};
    write_image(
        folder / "patient001" / (std::string(name) + ".nii.gz"), at::rand({1, 2, 3, 4}), grid);
    if (std::string(name) == "patient001_frame01")
      write_labels(
          folder / "patient001/patient001_frame01_gt.nii.gz", at::ones({2, 3, 4}, at::kInt), grid);
  }
  write_text_atomically(folder / "patient001/Info.cfg", "ED: 1\nES: 12\n");
  const DatasetSource source = read_source(config_of(folder, ""));
  EXPECT_EQ(source.format, "acdc");
  ASSERT_EQ(source.cases.size(), 1u);
  EXPECT_EQ(source.labels[3].name, "left ventricle");
  ASSERT_EQ(source.problems.size(), 1u);
  EXPECT_THAT(source.problems[0].reason, HasSubstr("patient001_frame12_gt.nii.gz"));
}

TEST(ArrayFile, SaysWhatIsMissingOrWrong) {
  const fs::path path = test::scratch_folder() / "a.h5";
  const auto message = [&](auto read) {
    try {
      read(path);
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  write_hdf5(path, at::rand({3, 4}), {});
  EXPECT_THAT(message(read_array_labels), HasSubstr("holds image; an array \"label\""));
  write_hdf5(path, at::rand({2, 3, 4, 5}), at::rand({3, 4}));
  EXPECT_THAT(message(read_array_image), HasSubstr("4 dimensions"));
  EXPECT_THAT(message(read_array_labels), HasSubstr("no whole numbers"));
  write_text_atomically(path, "no archive");
  EXPECT_THAT(message(read_array_image), HasSubstr("no sound HDF5 file"));
}

}  // namespace
}  // namespace vireo
