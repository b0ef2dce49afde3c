#include "datasets/picture_transforms.h"

#include <cmath>
#include <numeric>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "vision/core/error.h"

namespace vireo {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

at::Tensor grey() {
  at::Tensor picture = at::empty({5, 7, 1}, at::kByte);
  for (int64_t y = 0; y < 5; ++y)
    for (int64_t x = 0; x < 7; ++x) picture[y][x][0] = (y * 37 + x * 53 + y * x * 11) % 256;
  return picture;
}

at::Tensor colour() {
  const at::Tensor values = grey().to(at::kInt);
  return at::cat({values, (values + 60).remainder(256), 255 - values}, 2).to(at::kByte);
}

void expect_near(const at::Tensor& found, const std::vector<int64_t>& expected, int64_t tolerance) {
  const at::Tensor values = found.contiguous().to(at::kLong).flatten();
  ASSERT_EQ(values.numel(), static_cast<int64_t>(expected.size()));
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(values[static_cast<int64_t>(i)].item<int64_t>(), expected[i], tolerance)
        << "pixel " << i;
}

at::Tensor changed(at::Tensor picture, PictureChange change, double level, bool negative = false) {
  change_picture(picture, change, level, negative, {9, 9, 9}, PictureFilter::kBilinear);
  return picture;
}

// Expected pixels: Pillow, which computes with 22-bit fixed-point weights.
TEST(ResizedPicture, IsPillowsWithinARounding) {
  const PictureBox whole{0, 0, 5, 7};
  expect_near(resized_picture(grey(), whole, 3, 4, PictureFilter::kBicubic),
              {36, 146, 138, 78, 110, 148, 116, 100, 175, 117, 108, 130},
              1);
  expect_near(resized_picture(grey(), whole, 3, 4, PictureFilter::kBilinear),
              {46, 136, 134, 82, 111, 144, 117, 100, 169, 119, 111, 131},
              1);
  expect_near(resized_picture(grey(), {1, 1, 4, 5}, 3, 3, PictureFilter::kBicubic),
              {133, 158, 98, 147, 102, 128, 161, 118, 93},
              1);
  expect_near(
      resized_picture(grey(), 8, 9),
      {0,   29,  73,  113, 154, 228, 99,  4,   58,  12,  47,  94,  143, 196, 156, 75,  56,  114,
       36,  79,  133, 187, 224, 64,  62,  130, 165, 59,  105, 185, 207, 91,  76,  149, 147, 43,
       82,  138, 180, 149, 46,  131, 166, 111, 19,  105, 178, 126, 33,  108, 197, 105, 45,  112,
       131, 211, 154, 61,  159, 111, 75,  109, 188, 146, 228, 182, 100, 188, 36,  61,  167, 230},
      1);
  EXPECT_TRUE(resized_picture(colour(), 5, 7).equal(colour()));
}

TEST(PictureChange, IsPillowsWithinARounding) {
  const at::Tensor dim = (grey().to(at::kInt).floor_divide(3) + 40).to(at::kByte);
  expect_near(
      changed(dim, PictureChange::kAutoContrast, 0),
      {0,   53,  110, 166, 220, 9,  62,  37,  103, 173, 239, 37,  103, 173, 75, 154, 232, 44,
       122, 201, 12,  116, 204, 28, 116, 207, 28,  119, 154, 255, 88,  192, 25, 125, 226},
      1);
  at::Tensor steps = at::empty({24, 24, 1}, at::kByte);
  for (int64_t y = 0; y < 24; ++y)
    for (int64_t x = 0; x < 24; ++x) steps[y][x][0] = (y * 19 + x * x * 7) % 64 + 20;
  const at::Tensor equal = changed(steps, PictureChange::kEqualize, 0);
  expect_near(equal[3].slice(0, 0, 8), {255, 0, 96, 251, 184, 181, 238, 73}, 0);
  EXPECT_EQ(equal.sum().item<int64_t>(), 80736);
  expect_near(changed(colour(), PictureChange::kColor, 0.7)[0].slice(0, 0, 3),
              {0, 57, 255, 20, 118, 255, 80, 178, 150},
              1);
  expect_near(changed(colour(), PictureChange::kContrast, 2.0 / 3, true)[0].slice(0, 0, 3),
              {74, 98, 176, 95, 119, 155, 116, 140, 134},
              1);
  expect_near(
      changed(grey(), PictureChange::kSharpness, 5.0 / 9)[1].slice(0, 1, 5), {101, 175, 255, 7}, 1);
  expect_near(changed(grey(), PictureChange::kBrightness, 5.0 / 9, true)[0].slice(0, 0, 4),
              {0, 26, 53, 79},
              1);
}

TEST(PictureChange, MovesAndTurnsAboutTheMiddle) {
  const at::Tensor picture = grey().slice(1, 0, 5).contiguous();
  // 0.45 of the side of 5, less a quarter pixel: two pixels to the left.
  const at::Tensor moved = changed(picture.clone(), PictureChange::kTranslateX, 2 / (5 * 0.45));
  EXPECT_TRUE(moved.slice(1, 0, 3).equal(picture.slice(1, 2, 5)));
  EXPECT_TRUE(moved.slice(1, 3, 5).eq(9).all().item<bool>());
  EXPECT_TRUE(changed(picture.clone(), PictureChange::kRotate, 0).equal(picture));
  EXPECT_EQ(changed(picture.clone(), PictureChange::kRotate, 1)[2][2].item<int64_t>(),
            picture[2][2].item<int64_t>());
  const at::Tensor there = changed(picture.clone(), PictureChange::kShearX, 1);
  EXPECT_TRUE(there[2].equal(picture[2]));
  EXPECT_FALSE(there[0].equal(picture[0]));
}

TEST(PictureChange, OfLevelZeroLeavesAlmostEverythingAlone) {
  for (size_t i = 3; i < picture_change_names().size(); ++i) {
    const auto change = static_cast<PictureChange>(i);
    if (change == PictureChange::kPosterize) continue;
    EXPECT_TRUE(changed(colour(), change, 0).equal(colour())) << picture_change_names()[i];
  }
  EXPECT_TRUE(changed(grey(), PictureChange::kPosterize, 0).equal(grey().bitwise_and(0xf0)));
  EXPECT_TRUE(changed(grey(), PictureChange::kSolarize, 1).equal(255 - grey()));
}

PicturePreprocessing plain(int64_t size) {
  PicturePreprocessing p;
  p.size_yx = {size, size};
  p.mean = {0.5};
  p.sd = {0.25};
  return p;
}

TEST(PicturePreprocessing, CutsTheMiddleAndNormalises) {
  PicturePreprocessing p = plain(4);
  p.short_side = 8;
  const PictureBox box = p.box(16, 24);
  EXPECT_EQ(box.height, 8);
  EXPECT_EQ(box.top, 4);
  EXPECT_EQ(box.left, 8);
  std::vector<float> out(16);
  p.apply(at::full({16, 24, 1}, 255, at::kByte), out.data());
  for (const float value : out) EXPECT_FLOAT_EQ(value, 2);
  const PicturePreprocessing back = PicturePreprocessing::from_json(p.to_json(), "test");
  EXPECT_EQ(back.to_json(), p.to_json());
  EXPECT_THROW(PicturePreprocessing::from_json({{"size_yx", {0, 4}}}, "test"), DataError);
}

TEST(PicturePreprocessing, NormalisesEveryPictureByItsOwnMeanAndSpreadOnRequest) {
  PicturePreprocessing p = plain(4);
  p.normalization = PicturePreprocessing::Normalization::kPicture;
  p = PicturePreprocessing::from_json(p.to_json(), "test");
  const int64_t channels = p.channels();
  const at::Tensor dark = at::randint(10, 60, {4, 4, channels}, at::kByte);
  const at::Tensor bright = dark * 2 + 90;
  at::Tensor a = at::empty({channels, 4, 4}), b = at::empty({channels, 4, 4});
  p.apply(dark, a.mutable_data_ptr<float>());
  p.apply(bright, b.mutable_data_ptr<float>());
  EXPECT_TRUE(at::allclose(a, b, 0, 1e-5));
  EXPECT_TRUE(at::allclose(a.mean({1, 2}), at::zeros({channels}), 0, 1e-5));
  EXPECT_TRUE(at::allclose(a.std({1, 2}, /*unbiased=*/false), at::ones({channels}), 0, 1e-5));
  p.apply(at::full({4, 4, channels}, 7, at::kByte), a.mutable_data_ptr<float>());
  EXPECT_TRUE(at::equal(a, at::zeros_like(a)));
}

TEST(AugmentPicture, IsAFunctionOfItsStreamAndPlainWhenOff) {
  PicturePreprocessing p = plain(7);
  std::vector<float> a(49), b(49), c(49);
  const at::Tensor picture = grey();
  {
    Random random{1};
    augment_picture({}, p, picture, random, a.data());
    p.apply(picture, b.data());
    EXPECT_EQ(a, b);
  }
  ConfigTable table = ConfigTable::from_text(
      "mirror_x = 0.5\nmirror_y = 0.5\ntranspose = 0.5\n"
      "random_resized_crop = { scale = [0.3, 1] }\n"
      "rand_augment = { changes_per_picture = 2, probability = 1 }\n"
      "random_erasing = { probability = 1 }\n",
      "test");
  const PictureAugmentation all = PictureAugmentation::from_config(table);
  EXPECT_NO_THROW(table.finish());
  Random first{5}, again{5}, other{6};
  augment_picture(all, p, picture, first, a.data());
  augment_picture(all, p, picture, again, b.data());
  augment_picture(all, p, picture, other, c.data());
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
}

TEST(MixBatch, KeepsTheTargetsSumAndTheSharesOfThePixels) {
  PictureAugmentation cut;
  cut.cutmix_probability = 1;
  PictureAugmentation sum;
  sum.mixup_probability = 1;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    for (const PictureAugmentation& a : {cut, sum}) {
      at::Tensor images = at::stack({at::zeros({1, 8, 6}), at::ones({1, 8, 6})});
      at::Tensor targets = at::eye(2);
      Random random{seed};
      mix_batch(a, images, targets, random);
      EXPECT_TRUE(targets.sum(1).allclose(at::ones({2})));
      // The second class's share of the first picture is the share of its pixels.
      EXPECT_NEAR(images[0].mean().item<double>(), targets[0][1].item<double>(), 1e-5);
      EXPECT_NEAR(images[1].mean().item<double>(), targets[1][1].item<double>(), 1e-5);
    }
  }
}

TEST(SymmetricBeta, HasItsMeanAndVariance) {
  for (const double alpha : {0.2, 0.8, 1.0, 2.0}) {
    Random random{3};
    double sum = 0, squares = 0;
    constexpr int kDraws = 20'000;
    for (int i = 0; i < kDraws; ++i) {
      const double x = symmetric_beta(alpha, random);
      sum += x;
      squares += (x - 0.5) * (x - 0.5);
    }
    EXPECT_NEAR(sum / kDraws, 0.5, 0.01);
    EXPECT_NEAR(squares / kDraws, 1 / (4 * (2 * alpha + 1)), 0.005);
  }
}

TEST(PictureAugmentation, RefusesUnknownChangesAndImpossibleShares) {
  const auto read = [](const std::string& text) {
    PictureAugmentation::from_config(ConfigTable::from_text(text, "test"));
  };
  EXPECT_THAT([&] { read("rand_augment = { changes = [\"blur\"] }"); },
              ThrowsMessage<ConfigError>(HasSubstr("autocontrast, equalize")));
  EXPECT_THAT([&] { read("mixup = { probability = 0.7 }\ncutmix = { probability = 0.7 }"); },
              ThrowsMessage<ConfigError>(HasSubstr("may sum up to 1")));
}

}  // namespace
}  // namespace vireo
