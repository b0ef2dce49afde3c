#include <filesystem>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "datasets/case_scan.h"
#include "datasets/fingerprint.h"
#include "datasets/mask_file.h"
#include "datasets/prepare_dataset.h"
#include "datasets/prepared_cache.h"
#include "datasets/source.h"
#include "tests/datasets/small_pictures.h"
#include "tests/datasets/small_sets.h"
#include "tests/support/exif.h"
#include "tests/support/made_png.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"

// What masks mean, and how photographs lie under them.
namespace vireo {
namespace {

namespace fs = std::filesystem;
using namespace test;  // NOLINT
using ::testing::ElementsAre;
using ::testing::HasSubstr;

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
    return test::png_file(
        2, 2, 8, 3, std::string("\0\0\1\0\1\0", 6), test::png_chunk("PLTE", palette));
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

TEST(Photographs, AreTurnedWhereTheSizeOfTheirMaskAsksForIt) {
  const fs::path folder = test::scratch_folder();
  cv::Mat upright_mask, upright;
  cv::rotate(box(1), upright_mask, cv::ROTATE_90_CLOCKWISE);
  for (const char* name : {"shown", "stored", "half"})
    write(folder / "images" / (std::string(name) + ".jpg"), photograph(1));
  write(folder / "masks/shown.png", upright_mask);
  write(folder / "masks/stored.png", box(1));
  write(folder / "masks/half.png", box(1));
  set_exif_orientation(folder / "images/shown.jpg", 6);
  set_exif_orientation(folder / "images/stored.jpg", 6);
  set_exif_orientation(folder / "images/half.jpg", 3);
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

}  // namespace
}  // namespace vireo
