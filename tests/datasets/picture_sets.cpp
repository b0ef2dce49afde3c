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
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr int kHeight = 16, kWidth = 24;

// A rectangle, elsewhere for every number.
cv::Mat box(int number, int value = 255) {
  cv::Mat mask = cv::Mat::zeros(kHeight, kWidth, CV_8U);
  mask(cv::Rect(1 + number % 7, 2 + number % 5, 8, 6)) = value;
  return mask;
}

at::Tensor classes_of(const cv::Mat& mask) {
  return at::from_blob(mask.data, {1, mask.rows, mask.cols}, at::kByte).clone();
}

void write(const fs::path& path, const cv::Mat& picture) {
  fs::create_directories(path.parent_path());
  ASSERT_TRUE(cv::imwrite(path.string(), picture));
}

cv::Mat photograph(int number) {
  cv::Mat picture(kHeight, kWidth, CV_8UC3, cv::Scalar(number, 90, 200));
  cv::circle(picture, {8, 8}, 4, cv::Scalar(20, 160, number), -1);
  return picture;
}

DataConfig config_of(const fs::path& folder, const std::string& more = "") {
  return DataConfig::from_table(
      ConfigTable::from_text("folder = \"" + folder.string() + "\"\n" + more, "test"),
      folder.string() + "_run");
}

const std::string kTwo = "labels = [\"background\", \"lesion\"]\n";

std::vector<std::string> names(const std::vector<SourceCase>& cases) {
  std::vector<std::string> result;
  for (const SourceCase& one : cases) result.push_back(one.name);
  return result;
}

// Prepared class numbers of every case.
std::map<std::string, at::Tensor> prepared(const DataConfig& config) {
  set_log_quiet(true);
  prepare_dataset(config);
  const PreparedCache cache = PreparedCache::open(config.cache);
  std::map<std::string, at::Tensor> labels;
  for (const std::string& name : cache.case_names()) labels[name] = cache.load(name).labels;
  return labels;
}

bool is_box(const at::Tensor& labels, int number) {
  return at::equal(labels, classes_of(box(number, 1)));
}

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

// Of each kind of mask one set, with one mask.
struct OneMask {
  explicit OneMask(const cv::Mat& mask, const std::string& ending = ".png")
      : folder(test::scratch_folder() / std::to_string(count++)) {
    write(folder / "images/a.png", photograph(1));
    write(folder / "masks" / ("a" + ending), mask);
  }
  at::Tensor labels(const std::string& more) const {
    return prepared(config_of(folder, more)).at("a");
  }
  std::string refusal(const std::string& more) const {
    return test::message_of([&] { prepared(config_of(folder, more)); });
  }
  fs::path folder;
  static inline int count = 0;
};

TEST(Masks, AreCutAtHalfOnlyWhereThatDecides) {
  cv::Mat smooth;
  cv::GaussianBlur(box(2), smooth, {5, 5}, 1);
  const std::string binary = kTwo + "masks = \"binary\"\n";
  EXPECT_TRUE(at::equal(OneMask(smooth).labels(binary), classes_of((smooth > 127) / 255)));
  EXPECT_THAT(OneMask(smooth).refusal(kTwo), HasSubstr("masks = \"binary\""));
  EXPECT_TRUE(is_box(OneMask(box(2, 1)).labels(binary), 2)) << "0 and 1";
  EXPECT_TRUE(is_box(OneMask(box(2)).labels(binary + "label_values = [0, 255]"), 2));
  EXPECT_THAT(OneMask(box(2, 100)).refusal(binary),
              HasSubstr("masks/a.png: its brightest value is 100, below half of 255"));
  cv::Mat red(kHeight, kWidth, CV_8UC3, cv::Scalar(0, 0, 0));
  red.setTo(cv::Scalar(0, 0, 255), box(2));
  EXPECT_THAT(OneMask(red).refusal(binary), HasSubstr("masks/a.png: is in colour"));
  EXPECT_THAT(test::message_of(
                  [] { config_of("x", "labels = [\"a\", \"b\", \"c\"]\nmasks = \"binary\""); }),
              HasSubstr("tells foreground from background; labels names 3 classes"));
}

TEST(Masks, OfTwoIndicesAreBinaryWhateverTheirPalette) {
  // 2 x 2 pixels, a palette of black and red (or of any two): indices 0, 1 over 1, 0.
  const auto png = [](const std::string& palette) {
    const auto big = [](uint32_t value) {
      std::string text;
      for (int i = 3; i >= 0; --i) text += static_cast<char>(value >> (8 * i));
      return text;
    };
    const auto chunk = [&](const std::string& body) {
      const auto crc =
          ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
      return big(static_cast<uint32_t>(body.size() - 4)) + body + big(static_cast<uint32_t>(crc));
    };
    const std::string rows("\0\0\1\0\1\0", 6);
    std::string packed(100, '\0');
    uLongf size = packed.size();
    ::compress(reinterpret_cast<Bytef*>(packed.data()),
               &size,
               reinterpret_cast<const Bytef*>(rows.data()),
               rows.size());
    packed.resize(size);
    return "\x89PNG\r\n\x1a\n" + chunk("IHDR" + big(2) + big(2) + std::string("\x8\x3\0\0\0", 5)) +
           chunk("PLTE" + palette) + chunk("IDAT" + packed) + chunk("IEND");
  };
  const fs::path path = test::scratch_folder() / "mask.png";
  MaskRule rule;
  rule.kind = MaskRule::Kind::kBinary;
  const at::Tensor indices = at::tensor({0, 1, 1, 0}, at::kInt);
  test::write_text(path, png(std::string("\0\0\0\xff\0\0", 6)));
  EXPECT_TRUE(at::equal(read_masks({path}, rule).values.flatten(), indices));
  // Black and white in this order or the other: brightness decides.
  test::write_text(path, png(std::string("\xff\xff\xff\0\0\0", 6)));
  EXPECT_TRUE(at::equal(read_masks({path}, rule).values.flatten(), 1 - indices));
}

// Puts an EXIF orientation into a JPEG.
void set_orientation(const fs::path& path, int orientation) {
  std::string bytes = read_text(path);
  std::string exif(
      "\xff\xe1\0\x22"
      "Exif\0\0MM\0\x2a\0\0\0\x8\0\1\1\x12\0\3\0\0\0\1\0\0\0\0\0\0\0\0",
      36);
  exif[29] = static_cast<char>(orientation);
  test::write_text(path, bytes.insert(2, exif));
}

TEST(Photographs, AreTurnedWhereTheSizeOfTheirMaskAsksForIt) {
  const fs::path folder = test::scratch_folder();
  cv::Mat upright_mask, upright;
  cv::rotate(box(1), upright_mask, cv::ROTATE_90_CLOCKWISE);
  for (const char* name : {"shown", "stored", "half"})
    write(folder / "images" / (std::string(name) + ".jpg"), photograph(1));
  write(folder / "masks/shown.png", upright_mask);
  write(folder / "masks/stored.png", box(1));
  write(folder / "masks/half.png", box(1));
  set_orientation(folder / "images/shown.jpg", 6);
  set_orientation(folder / "images/stored.jpg", 6);
  set_orientation(folder / "images/half.jpg", 3);
  DataConfig config = config_of(folder, kTwo);
  DatasetSource source = read_source(config);
  std::map<std::string, RawCase> cases;
  std::vector<CaseScan> scans;
  for (const SourceCase& one : source.cases) {
    cases.emplace(one.name, read_case(one));
    scans.push_back(scan_case(one, {}));
    EXPECT_TRUE(scans.back().problems.empty()) << one.name;
  }
  const at::Tensor stored = cases.at("stored").image.values;
  EXPECT_THAT(stored.sizes(), ElementsAre(3, 1, kHeight, kWidth));
  // A quarter turn to the right.
  EXPECT_TRUE(at::equal(cases.at("shown").image.values, stored.transpose(2, 3).flip(3)));
  EXPECT_TRUE(at::equal(cases.at("half").image.values, stored));

  const WarningsKept kept;
  check_dataset(config, scans, source);
  EXPECT_THAT(
      kept.warnings(),
      ElementsAre(AllOf(HasSubstr("1 picture has an EXIF orientation (half.jpg: 3) and masks "
                                  "whose size does not tell"),
                        HasSubstr("mogrify -auto-orient"))));
}

TEST(Masks, ReadColoursByTheTable) {
  cv::Mat coded(kHeight, kWidth, CV_8UC3, cv::Scalar(0, 0, 0));
  coded.setTo(cv::Scalar(0, 128, 255), box(1));  // blue, green, red
  coded.setTo(cv::Scalar(255, 0, 0), box(9) - box(1));
  const std::string table = "labels = [\"background\", \"a\", \"b\"]\nmasks = \"colors\"\n";
  const std::string colors = "label_colors = [\"#000000\", \"#ff8000\", \"#0000ff\"]\n";
  const cv::Mat expected = box(1, 1) + (box(9) - box(1)) / 255 * 2;
  EXPECT_TRUE(at::equal(OneMask(coded).labels(table + colors), classes_of(expected)));
  coded.at<cv::Vec3b>(0, 0) = {3, 2, 1};
  EXPECT_THAT(
      OneMask(coded).refusal(table + colors),
      HasSubstr("masks/a.png: holds colours that label_colors does not give: #010203 (1 pixels)"));
  EXPECT_THAT(OneMask(coded, ".jpg").refusal(table + colors),
              HasSubstr("is a JPEG, which does not keep colours"));
  EXPECT_THAT(OneMask(coded).refusal(table),
              HasSubstr("needs labels and for each of them its colour"));
  EXPECT_THAT(OneMask(coded).refusal("labels = [\"background\", \"a\", \"b\"]\n"),
              HasSubstr("is a colour picture"));
}

TEST(Masks, OfNumberedObjectsAreForeground) {
  cv::Mat objects = box(1, 7);
  objects(cv::Rect(18, 10, 4, 4)) = 200;
  cv::Mat expected = box(1, 1);
  expected(cv::Rect(18, 10, 4, 4)) = 1;
  const std::string instances = kTwo + "masks = \"instances\"\n";
  EXPECT_TRUE(at::equal(OneMask(objects).labels(instances), classes_of(expected)));
  EXPECT_THAT(OneMask(objects, ".jpg").refusal(instances),
              HasSubstr("is a JPEG, which does not keep numbers"));
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
