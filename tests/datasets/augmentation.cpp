#include "datasets/augmentation.h"

#include <set>

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "datasets/intensity.h"
#include "tests/support/made_cases.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

struct Cut {
  at::Tensor image, labels;
};

Cut cut(const Augmentation& augmentation,
        const CachedCase& source,
        SliceWindow window,
        uint64_t seed = 1) {
  SliceView view;
  const int64_t slice = 3;
  view.channels = source.image.size(0);
  view.height = source.image.size(2);
  view.width = source.image.size(3);
  for (int64_t c = 0; c < view.channels; ++c)
    view.planes.push_back(source.image[c][slice].const_data_ptr<float>());
  view.labels = source.labels[slice].const_data_ptr<uint8_t>();
  Cut result{at::empty({view.channels, window.height, window.width}),
             at::empty({window.height, window.width}, at::kByte)};
  Random random{seed};
  cut_and_augment(augmentation,
                  view,
                  window,
                  random,
                  result.image.mutable_data_ptr<float>(),
                  result.labels.mutable_data_ptr<uint8_t>());
  return result;
}

Augmentation everything() {
  auto table = ConfigTable::from_text(R"(
    mirror_y = 0.5
    mirror_x = 0.5
    quarter_turns = 0.5
    rotation_degrees = { probability = 1, range = [-40, 40] }
    scaling = { probability = 1, range = [0.7, 1.4] }
    translation_pixels = { probability = 1, range = [-3, 3] }
    elastic_pixels = { probability = 1, range = [0, 4] }
    elastic_spacing = 8
    noise_sd = { probability = 1, range = [0, 0.2] }
    blur_sigma_pixels = { probability = 1, range = [0.5, 1] }
    brightness = { probability = 1, range = [0.7, 1.3] }
    contrast = { probability = 1, range = [0.7, 1.3] }
    low_resolution = { probability = 1, range = [0.5, 1] }
    gamma = { probability = 1, range = [0.7, 1.5] }
  )",
                                      "test");
  return Augmentation::from_config(table);
}

Planes planes_of(at::Tensor& image) {
  return {{image.mutable_data_ptr<float>()}, image.size(0), image.size(1)};
}

TEST(Augmentation, SwitchedOffIsThePlainCut) {
  const auto source = test::made_case("a", 1, 6, 24, 20, 2);
  const Cut inside = cut({}, source, {10, 8, 5, 7});
  EXPECT_TRUE(inside.image.equal(source.image.select(1, 3).slice(1, 5, 15).slice(2, 7, 15)));
  EXPECT_TRUE(inside.labels.equal(source.labels[3].slice(0, 5, 15).slice(1, 7, 15)));
}

TEST(Augmentation, PadsWithZerosThatDoNotCount) {
  const auto source = test::made_case("a", 1);
  const Cut padded = cut({}, source, {32, 32, -4, -6});
  const at::Tensor middle = padded.image.slice(1, 4, 28).slice(2, 6, 26);
  EXPECT_TRUE(middle.equal(source.image.select(1, 3)));
  EXPECT_EQ(padded.image.abs().sum().item<float>(), middle.abs().sum().item<float>());
  EXPECT_TRUE(padded.labels.slice(0, 4, 28).slice(1, 6, 26).equal(source.labels[3]));
  EXPECT_EQ(padded.labels.eq(255).sum().item<int64_t>(), 32 * 32 - 24 * 20);
}

TEST(Augmentation, PaddingStaysZeroUnderIntensityChanges) {
  const auto source = test::made_case("a", 1);
  const Cut padded = cut(everything(), source, {32, 32, -4, -6});
  EXPECT_GT(padded.labels.eq(255).sum().item<int64_t>(), 0);
  EXPECT_EQ(padded.image[0].masked_select(padded.labels.eq(255)).abs().max().item<float>(), 0);
}

TEST(Augmentation, MirroringMovesLabelsWithTheImage) {
  const auto source = test::made_case("a", 1);
  for (const bool vertical : {true, false}) {
    Augmentation mirrored;
    (vertical ? mirrored.mirror_y : mirrored.mirror_x) = 1;
    const int64_t axis = vertical ? 0 : 1;
    const Cut plain = cut({}, source, {24, 20, 0, 0}),
              flipped = cut(mirrored, source, {24, 20, 0, 0});
    EXPECT_TRUE(flipped.image.equal(plain.image.flip(axis + 1)));
    EXPECT_TRUE(flipped.labels.equal(plain.labels.flip(axis)));
  }
}

TEST(Augmentation, AQuarterTurnMovesPixelsExactly) {
  const auto source = test::made_case("a", 1, 6, 21, 21);
  Augmentation turned;
  turned.rotation_degrees = {1, 90, 90};
  const Cut plain = cut({}, source, {21, 21, 0, 0}), rotated = cut(turned, source, {21, 21, 0, 0});
  EXPECT_TRUE(at::allclose(rotated.image[0], at::rot90(plain.image[0], 1), 1e-4, 1e-4) ||
              at::allclose(rotated.image[0], at::rot90(plain.image[0], -1), 1e-4, 1e-4));
}

TEST(Augmentation, QuarterTurnsAreAllFourAndExact) {
  const auto source = test::made_case("a", 1, 6, 24, 20, 2);
  const at::Tensor image = source.image.select(1, 3).slice(2, 2, 18).slice(1, 4, 20);
  const at::Tensor labels = source.labels[3].slice(1, 2, 18).slice(0, 4, 20);
  Augmentation turned;
  turned.quarter_turns = 1;
  std::set<int> seen;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const Cut one = cut(turned, source, {16, 16, 4, 2}, seed);
    for (int quarters = 0; quarters < 4; ++quarters)
      if (one.image.allclose(at::rot90(image, quarters, {1, 2}), 0, 1e-5)) {
        seen.insert(quarters);
        EXPECT_TRUE(one.labels.equal(at::rot90(labels, quarters, {0, 1})));
      }
  }
  EXPECT_EQ(seen.size(), 4u);
}

TEST(Augmentation, MagnificationMakesThingsLarger) {
  const auto source = test::made_case("a", 1, 6, 48, 48);
  Augmentation larger;
  larger.scaling = {1, 1.5, 1.5};
  const auto area = [](const Cut& c) { return c.labels.eq(1).sum().item<double>(); };
  const SliceWindow window{48, 48, 0, 0};
  EXPECT_NEAR(area(cut(larger, source, window)) / area(cut({}, source, window)), 2.25, 0.15);
}

TEST(Augmentation, KeepsLabelsInTheirSetAndImagesFinite) {
  const auto source = test::made_case("a", 1, 6, 24, 20, 3);
  const Augmentation all = everything();
  for (uint64_t seed = 0; seed < 200; ++seed)
    for (const SliceWindow window : {SliceWindow{16, 16, 4, 2}, SliceWindow{32, 24, -4, -2}}) {
      const Cut c = cut(all, source, window, seed);
      ASSERT_TRUE(c.image.isfinite().all().item<bool>());
      const at::Tensor known = c.labels.le(2).logical_or(c.labels.eq(255));
      ASSERT_TRUE(known.all().item<bool>());
    }
}

TEST(Augmentation, TheLabelStaysOnTheThing) {
  // Class 1 is bright and class 2 is dark: after every deformation they still are.
  const auto source = test::made_case("a", 1, 6, 48, 48);
  Augmentation shape = everything();
  shape.noise_sd = shape.brightness = shape.contrast = shape.gamma = shape.low_resolution = {};
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const Cut c = cut(shape, source, {48, 48, 0, 0}, seed);
    for (const auto& [label, level] : {std::pair{1, 2.0}, std::pair{2, -2.0}}) {
      const at::Tensor pixels = c.image[0].masked_select(c.labels.eq(label));
      if (pixels.numel() > 60) {
        EXPECT_NEAR(pixels.mean().item<double>(), level, 0.6) << seed;
      }
    }
  }
}

TEST(Augmentation, IsAFunctionOfTheSeed) {
  const auto source = test::made_case("a", 1);
  const Augmentation all = everything();
  const SliceWindow window{24, 20, 0, 0};
  EXPECT_TRUE(cut(all, source, window, 7).image.equal(cut(all, source, window, 7).image));
  EXPECT_FALSE(cut(all, source, window, 7).image.equal(cut(all, source, window, 8).image));
}

TEST(Intensity, NoiseHasTheStandardDeviationAskedFor) {
  at::Tensor image = at::zeros({200, 201});
  Random random{5};
  add_noise(planes_of(image), 0.25, random);
  EXPECT_NEAR(image.std().item<double>(), 0.25, 0.005);
  EXPECT_NEAR(image.mean().item<double>(), 0, 0.005);
}

TEST(Intensity, BlurEqualsAConvolutionWithAGaussian) {
  at::Tensor image = at::randn({20, 30});
  const at::Tensor x = at::arange(-4, 5).to(at::kFloat);
  at::Tensor kernel = (-(x * x) / (2 * 1.2 * 1.2)).exp();
  kernel = kernel / kernel.sum();
  const at::Tensor padded = at::replication_pad2d(image.view({1, 1, 20, 30}), {4, 4, 4, 4});
  const at::Tensor expected =
      at::conv2d(at::conv2d(padded, kernel.view({1, 1, 9, 1})), kernel.view({1, 1, 1, 9}));
  blur(planes_of(image), 1.2);
  EXPECT_TRUE(at::allclose(image, expected[0][0], 1e-4, 1e-5));
}

TEST(Intensity, GammaKeepsMeanAndSpread) {
  at::Tensor image = at::randn({40, 40}) * 3 + 1;
  const at::Tensor before = image.clone();
  apply_gamma(planes_of(image), 1.4);
  EXPECT_NEAR(image.mean().item<double>(), before.mean().item<double>(), 1e-3);
  EXPECT_NEAR(image.std().item<double>(), before.std().item<double>(), 1e-3);
  EXPECT_FALSE(at::allclose(image, before, 1e-2, 1e-2));
  // Order is kept.
  EXPECT_TRUE(image.flatten().argsort().equal(before.flatten().argsort()));
}

TEST(Intensity, LowResolutionLeavesAConstantAlone) {
  at::Tensor image = at::full({17, 23}, 3.f);
  lower_resolution(planes_of(image), 0.4);
  EXPECT_TRUE(image.equal(at::full({17, 23}, 3.f)));
}

TEST(Intensity, ContrastStaysInTheRange) {
  at::Tensor image = at::randn({17, 23});
  const at::Tensor before = image.clone();
  scale_contrast(planes_of(image), 3);
  EXPECT_LE(image.max().item<float>(), before.max().item<float>());
  EXPECT_GE(image.min().item<float>(), before.min().item<float>());
}

TEST(Augmentation, RefusesARangeThatIsUpsideDownAndUnknownKeys) {
  auto reversed = ConfigTable::from_text("gamma = { probability = 1, range = [2, 1] }", "test");
  EXPECT_THAT([&] { Augmentation::from_config(reversed); },
              ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr("smaller first")));
  auto unknown = ConfigTable::from_text("flip = 0.5", "test");
  EXPECT_THAT(
      [&] {
        Augmentation::from_config(unknown);
        unknown.finish();
      },
      ::testing::ThrowsMessage<ConfigError>(::testing::HasSubstr("flip")));
}

}  // namespace
}  // namespace vireo
