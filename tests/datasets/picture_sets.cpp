#include <filesystem>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <zlib.h>

#include "datasets/case_scan.h"
#include "datasets/fingerprint.h"
#include "datasets/mask_file.h"
#include "datasets/prepare_dataset.h"
#include "datasets/prepared_cache.h"
#include "datasets/source.h"
#include "tests/datasets/small_pictures.h"
#include "tests/datasets/small_sets.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"

// Pictures with masks as published sets and users keep them.
namespace vireo {
namespace {

namespace fs = std::filesystem;
using namespace test;  // NOLINT
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// ISIC's folders of one year; "" leaves a part out.
struct IsicNames {
  std::string pictures, truths;
};
void write_isic(const fs::path& folder,
                const IsicNames& part,
                int first,
                const std::string& ending) {
  for (int i = first; i < first + 2; ++i) {
    const std::string name = "ISIC_000000" + std::to_string(i);
    write(folder / part.pictures / (name + ".jpg"), photograph(i));
    write(folder / part.truths / (name + ending), box(i));
  }
}

TEST(IsicSet, ReadsEveryYearsFolders) {
  struct Year {
    IsicNames train, val, test;
    std::string ending;
  };
  const Year years[] = {
      {{"ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"},
       {},
       {"ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"},
       "_Segmentation.png"},
      {{"ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"},
       {"ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"},
       {"ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"},
       "_segmentation.png"},
      {{"ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"},
       {"ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"},
       {"ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"},
       "_segmentation.png"}};
  const fs::path root = test::scratch_folder();
  for (const Year& year : years) {
    const fs::path folder = root / year.train.pictures;
    write_isic(folder, year.train, 1, year.ending);
    if (!year.val.pictures.empty()) write_isic(folder, year.val, 3, year.ending);
    write_isic(folder, year.test, 5, year.ending);
    // What else these folders hold.
    write(folder / year.train.pictures / "ISIC_0000001_superpixels.png", photograph(9));
    test::write_text(folder / year.train.pictures / "metadata.csv", "image_id,age,sex\n");
    test::write_text(folder / year.train.pictures / "LICENSE.txt", "CC-0");
    write(folder / "ISIC2018_Task2_Training_GroundTruth_v3/ISIC_0000001_attribute_globules.png",
          box(1));
    test::write_text(folder / "ISIC-2017_Training_Part3_GroundTruth.csv", "image_id\n");

    const DatasetSource source = read_source(config_of(folder));
    EXPECT_EQ(source.format, "isic");
    EXPECT_THAT(source.problems, IsEmpty());
    EXPECT_THAT(source.notes[0],
                AllOf(HasSubstr("is read as \"isic\""), HasSubstr(year.train.truths)));
    ASSERT_EQ(source.folds.size(), 1u);
    EXPECT_THAT(source.folds[0].train, ElementsAre("ISIC_0000001", "ISIC_0000002"));
    if (year.val.pictures.empty()) {
      EXPECT_THAT(source.folds[0].val, ElementsAre("ISIC_0000005", "ISIC_0000006"));
    } else {
      EXPECT_THAT(source.folds[0].val, ElementsAre("ISIC_0000003", "ISIC_0000004"));
      EXPECT_THAT(names(source.test_cases), ElementsAre("ISIC_0000005", "ISIC_0000006"));
    }
    const auto labels = prepared(config_of(folder));
    ASSERT_EQ(labels.size(), 4u);
    EXPECT_TRUE(is_box(labels.at("ISIC_0000001"), 1));
    EXPECT_TRUE(is_box(labels.at("ISIC_0000002"), 2));
  }
}

TEST(IsicSet, IsPartedByListsWhereThereAreSome) {
  const fs::path folder = test::scratch_folder();
  const std::string one = "ISIC-2017_", data = "_Data", truth = "_Part1_GroundTruth";
  write_isic(folder, {one + "Training" + data, one + "Training" + truth}, 1, "_segmentation.png");
  write_isic(
      folder, {one + "Validation" + data, one + "Validation" + truth}, 3, "_segmentation.png");
  write_isic(folder, {one + "Test_v2" + data, one + "Test_v2" + truth}, 5, "_segmentation.png");
  test::write_text(folder / "train.txt", "ISIC_0000001\nISIC_0000003\n");
  test::write_text(folder / "val.txt", "ISIC_0000005\n");
  const DatasetSource source = read_source(config_of(folder));
  EXPECT_THAT(source.problems, IsEmpty());
  EXPECT_THAT(names(source.cases), ElementsAre("ISIC_0000001", "ISIC_0000003", "ISIC_0000005"));
  ASSERT_EQ(source.folds.size(), 1u);
  EXPECT_THAT(source.folds[0].val, ElementsAre("ISIC_0000005"));
  EXPECT_THAT(names(source.test_cases), ElementsAre("ISIC_0000006"));
}

TEST(IsicSet, SaysWhichPictureHasNoTruthAndThatTwoYearsAreTooMany) {
  const fs::path folder = test::scratch_folder();
  const IsicNames train{"ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"};
  write_isic(folder, train, 1, "_segmentation.png");
  fs::remove(folder / train.truths / "ISIC_0000002_segmentation.png");
  const DatasetSource source = read_source(config_of(folder));
  ASSERT_EQ(source.problems.size(), 1u);
  EXPECT_EQ(source.problems[0].path.filename(), "ISIC_0000002.jpg");
  EXPECT_THAT(source.problems[0].reason, HasSubstr("has no partner in ISIC2018_Task1_Training_Gr"));
  write_isic(folder,
             {"ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"},
             1,
             "_segmentation.png");
  EXPECT_THAT(test::message_of([&] { read_source(config_of(folder)); }),
              HasSubstr("give each year's set a folder of its own"));
}

TEST(KvasirSet, CutsJpegMasksAtHalf) {
  const fs::path folder = test::scratch_folder();
  for (int i = 0; i < 3; ++i) {
    const std::string name = "cju0qkwl35piu0993l0dewei" + std::to_string(i);
    write(folder / "images" / (name + ".jpg"), photograph(i));
    write(folder / "masks" / (name + ".jpg"), box(i));
  }
  const Volume stored = read_image(folder / "masks/cju0qkwl35piu0993l0dewei1.jpg");
  ASSERT_TRUE(stored.values.ne(0).logical_and(stored.values.ne(255)).any().item<bool>())
      << "the test's masks are not those of a JPEG";
  const DatasetSource source = read_source(config_of(folder));
  EXPECT_EQ(source.format, "kvasir");
  EXPECT_THAT(source.notes[0], HasSubstr("Kvasir-SEG's names"));
  test::write_text(folder / "kavsir_bboxes.json", "{}");
  EXPECT_THAT(read_source(config_of(folder)).notes[0], HasSubstr("kavsir_bboxes.json"));
  const auto labels = prepared(config_of(folder));
  ASSERT_EQ(labels.size(), 3u);
  for (int i = 0; i < 3; ++i)
    EXPECT_TRUE(is_box(labels.at("cju0qkwl35piu0993l0dewei" + std::to_string(i)), i));

  // As any pictures with masks, they are refused and the way out is named.
  EXPECT_THAT(
      test::message_of([&] { prepare_dataset(config_of(folder, kTwo + "format = \"pairs\"")); }),
      AllOf(HasSubstr("holds label values that are not declared: "),
            HasSubstr(" more up to "),
            HasSubstr("masks = \"binary\" where what is brighter than half is lesion")));
}

TEST(CvcSet, ReadsTheTwoFoldersAlsoBelowPng) {
  const fs::path root = test::scratch_folder();
  for (const char* below : {".", "PNG", "TIF"}) {
    const fs::path folder = root / (std::string("set_") + (below[0] == '.' ? "plain" : below));
    const char* ending = std::string(below) == "PNG" ? ".png" : ".tif";
    for (int i = 1; i <= 2; ++i) {
      const std::string file = std::to_string(i) + ending;
      write(folder / below / "Original" / file, photograph(i));
      write(folder / below / "Ground Truth" / file, box(i));
    }
    const DatasetSource source = read_source(config_of(folder));
    EXPECT_EQ(source.format, "cvc") << below;
    EXPECT_THAT(source.notes[0], HasSubstr("Original/ with "));
    const auto labels = prepared(config_of(folder));
    ASSERT_EQ(labels.size(), 2u);
    EXPECT_TRUE(is_box(labels.at("1"), 1));
    EXPECT_TRUE(is_box(labels.at("2"), 2));
  }
}

TEST(BusiSet, UnitesTheMasksOfAPicture) {
  const fs::path folder = test::scratch_folder();
  for (const char* kind : {"benign", "malignant", "normal"})
    for (int i = 1; i <= 2; ++i) {
      const std::string name = std::string(kind) + " (" + std::to_string(i) + ")";
      write(folder / kind / (name + ".png"), photograph(i));
      write(folder / kind / (name + "_mask.png"), box(i, kind[0] == 'n' ? 0 : 255));
    }
  cv::Mat corner = cv::Mat::zeros(kHeight, kWidth, CV_8U);
  corner(cv::Rect(20, 12, 3, 3)) = 255;
  write(folder / "benign/benign (2)_mask_1.png", corner);

  const DatasetSource source = read_source(config_of(folder));
  EXPECT_EQ(source.format, "busi");
  EXPECT_THAT(source.problems, IsEmpty());
  EXPECT_THAT(names(source.cases),
              ElementsAre("benign (1)", "benign (2)", "malignant (1)", "malignant (2)"));
  EXPECT_THAT(source.notes, Contains(HasSubstr("normal/ is left out")));
  EXPECT_THAT(source.notes, Contains(HasSubstr("1 pictures have several masks")));
  auto labels = prepared(config_of(folder));
  EXPECT_TRUE(is_box(labels.at("benign (1)"), 1));
  EXPECT_TRUE(at::equal(labels.at("benign (2)"), classes_of((box(2) | corner) / 255)));
  labels = prepared(config_of(folder, "allow_empty_labels = true"));
  EXPECT_EQ(labels.size(), 6u);
  EXPECT_EQ(labels.at("normal (1)").sum().item<int64_t>(), 0);
}

TEST(GlasSet, TakesNumberedObjectsAsOneClassAndThePublishedParts) {
  const fs::path folder = test::scratch_folder();
  for (const char* name : {"train_1", "train_2", "testA_1", "testB_1"}) {
    write(folder / (std::string(name) + ".bmp"), photograph(3));
    cv::Mat objects = box(1, 1);
    objects(cv::Rect(18, 10, 4, 4)) = 2;
    write(folder / (std::string(name) + "_anno.bmp"), objects);
  }
  test::write_text(folder / "Grade.csv", "name,grade\n");
  const DatasetSource source = read_source(config_of(folder));
  EXPECT_EQ(source.format, "glas");
  EXPECT_THAT(source.problems, IsEmpty());
  ASSERT_EQ(source.folds.size(), 1u);
  EXPECT_THAT(source.folds[0].train, ElementsAre("train_1", "train_2"));
  EXPECT_THAT(source.folds[0].val, UnorderedElementsAre("testA_1", "testB_1"));
  EXPECT_THAT(source.notes, Contains(HasSubstr("2 cases of the test part are held out")));
  const auto labels = prepared(config_of(folder));
  cv::Mat expected = box(1, 1);
  expected(cv::Rect(18, 10, 4, 4)) = 1;
  EXPECT_TRUE(at::equal(labels.at("testB_1"), classes_of(expected)));
}

TEST(PairSets, PairUsualNamesInTwoFoldersAndSideBySide) {
  const fs::path root = test::scratch_folder();
  int set = 0;
  for (const char* ending :
       {"_mask", "_segmentation", "_Seg", "_anno", "_gt", "_manual1", "_1stHO", "-mask"}) {
    const fs::path apart = root / ("apart_" + std::to_string(set)),
                   beside = root / ("beside_" + std::to_string(set));
    ++set;
    for (int i = 0; i < 2; ++i) {
      const std::string name = "eye_" + std::to_string(i);
      write(apart / "images" / (name + ".jpg"), photograph(i));
      write(apart / "masks" / (name + ending + ".png"), box(i));
      write(beside / (name + ".jpg"), photograph(i));
      write(beside / (name + ending + ".png"), box(i));
      if (std::string(ending) == "_1stHO") write(beside / (name + "_2ndHO.png"), box(i + 1));
    }
    for (const fs::path& folder : {apart, beside}) {
      const DatasetSource source = read_source(config_of(folder, kTwo));
      EXPECT_EQ(source.format, "pairs");
      EXPECT_THAT(source.problems, IsEmpty()) << folder;
      const auto labels = prepared(config_of(folder, kTwo));
      ASSERT_EQ(labels.size(), 2u) << folder;
      EXPECT_TRUE(is_box(labels.at("eye_0"), 0));
      EXPECT_TRUE(is_box(labels.at("eye_1"), 1));
    }
  }
}

TEST(PairSets, ReadPartsFoldersOfMasksAndChosenNames) {
  const fs::path root = test::scratch_folder();
  for (const char* part : {"train", "val", "test"}) {
    write(root / "parts" / part / "images/1.png", photograph(1));
    write(root / "parts" / part / "masks/mask_1.png", box(part[1] == 'r' ? 1 : 2));
  }
  const DatasetSource parts = read_source(config_of(root / "parts", kTwo));
  ASSERT_EQ(parts.folds.size(), 1u);
  EXPECT_THAT(parts.folds[0].train, ElementsAre("train_1"));
  EXPECT_THAT(parts.folds[0].val, ElementsAre("val_1"));
  EXPECT_THAT(names(parts.test_cases), ElementsAre("test_1"));
  EXPECT_TRUE(is_box(prepared(config_of(root / "parts", kTwo)).at("val_1"), 2));

  write(root / "nuclei/images/a.png", photograph(1));
  write(root / "nuclei/masks/a/object_1.png", box(1));
  write(root / "nuclei/masks/a/object_2.png", box(4));
  EXPECT_TRUE(at::equal(prepared(config_of(root / "nuclei", kTwo)).at("a"),
                        classes_of((box(1) | box(4)) / 255)));

  write(root / "odd/photos/a.png", photograph(1));
  write(root / "odd/drawn/L-a-final.png", box(3));
  const std::string chosen = kTwo +
                             "format = \"pairs\"\nimage_folder = \"photos\"\nmask_folder = "
                             "\"drawn\"\nmask_name = \"L-{}-*\"\n";
  EXPECT_TRUE(is_box(prepared(config_of(root / "odd", chosen)).at("a"), 3));
}

TEST(PairSets, PairByNumberWhereEachFolderHasANameOfItsOwn) {
  const fs::path root = test::scratch_folder();
  for (int i : {1, 2, 10}) {
    char number[8];
    std::snprintf(number, sizeof number, "%04d", i);
    write(root / "set/img" / (std::string("img") + number + ".png"), photograph(i));
    write(root / "set/label" / (std::string("label") + number + "_x.png"), box(i));
  }
  const DatasetSource source = read_source(config_of(root / "set", kTwo));
  EXPECT_THAT(source.problems, IsEmpty());
  EXPECT_THAT(source.notes,
              Contains(HasSubstr("label0001_x.png is taken for the mask of img0001.png")));
  const auto labels = prepared(config_of(root / "set", kTwo));
  ASSERT_EQ(labels.size(), 3u);
  EXPECT_TRUE(is_box(labels.at("img0001"), 1));
  EXPECT_TRUE(is_box(labels.at("img0010"), 10));
  // One that has no partner, and none is guessed.
  write(root / "set/img/img0003.png", photograph(3));
  EXPECT_THAT(read_source(config_of(root / "set", kTwo)).problems, ::testing::SizeIs(7));
}

TEST(PairSets, AskForNamesThatTheirFilesCanHold) {
  const fs::path folder = test::scratch_folder();
  write(folder /
            "images/sch\xe4"
            "del.png",
        photograph(1));
  write(folder /
            "masks/sch\xe4"
            "del.png",
        box(1));
  const DatasetSource source = read_source(config_of(folder, kTwo));
  ASSERT_EQ(source.problems.size(), 1u);
  EXPECT_THAT(source.problems[0].reason, HasSubstr("its name is no UTF-8; rename the file"));
}

TEST(PairSets, AskWhichMasksAreMeant) {
  const fs::path folder = test::scratch_folder();
  write(folder / "images/a.png", photograph(1));
  write(folder / "masks/a_mask.png", box(1));
  write(folder / "masks/a_gt.png", box(2));
  const DatasetSource source = read_source(config_of(folder, kTwo));
  ASSERT_EQ(source.problems.size(), 1u);
  EXPECT_THAT(
      source.problems[0].reason,
      HasSubstr("more than one kind: a_gt.png and a_mask.png; [data] mask_name says which"));
  write(folder / "labels/a.png", box(1));
  EXPECT_THAT(
      test::message_of([&] { read_source(config_of(folder, kTwo)); }),
      HasSubstr(
          "holds both labels/ and masks/; keep one of them, or say which with [data] mask_folder"));
}

TEST(SliceSize, BringsEveryPictureToOneSizeAndKeepsItsRegion) {
  const fs::path folder = test::scratch_folder();
  for (int i = 0; i < 2; ++i) {
    cv::Mat picture, mask;
    const cv::Size size(kWidth * (2 + i), kHeight * (2 + i));
    cv::resize(photograph(1), picture, size, 0, 0, cv::INTER_NEAREST);
    cv::resize(box(1), mask, size, 0, 0, cv::INTER_NEAREST);
    write(folder / "images" / (std::to_string(i) + ".png"), picture);
    write(folder / "masks" / (std::to_string(i) + ".png"), mask);
  }
  DataConfig config = config_of(folder, kTwo + "slice_size = [16, 24]\n");
  const auto labels = prepared(config);
  const PreparedCache cache = PreparedCache::open(config.cache);
  for (const auto& [name, classes] : labels) {
    EXPECT_TRUE(is_box(classes, 1));
    const CachedCase one = cache.load(name);
    EXPECT_THAT(one.image.sizes(), ElementsAre(3, 1, 16, 24));
    EXPECT_DOUBLE_EQ(one.geometry.spacing_mm_zyx[1], name == "0" ? 2 : 3);
  }
  EXPECT_THAT(
      test::message_of([] { config_of("x", "slice_size = [16, 24]\nspacing_mm = \"median\""); }),
      HasSubstr("both say how large slices become"));
}

}  // namespace
}  // namespace vireo
