#include "datasets/preparation.h"

#include <cmath>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "vision/core/error.h"

namespace vireo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = ChannelNormalization::Kind;

Preparation one_channel(Kind kind) {
  Preparation p;
  p.dataset_name = "Test";
  p.channels = {{"MRI", kind, -100, 200, 50, 25}};
  p.labels = {{"background", 0, {}}, {"organ", 3, {255, 0, 0}}};
  return p;
}

Volume volume(const at::Tensor& values) {
  Volume v{values, {}, 0};
  v.geometry.size_zyx = {values.size(1), values.size(2), values.size(3)};
  return v;
}

std::string refusal(const Volume& image,
                    const std::optional<Volume>& labels,
                    const Preparation& p) {
  try {
    prepare_case("case_1", image, labels, p);
  } catch (const DataError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Preparation, SurvivesJson) {
  Preparation p = one_channel(Kind::kCt);
  p.channels.push_back({"PET", Kind::kZScore});
  p.channels[0].mean = 1.0 / 3;
  p.ignore_value = 9;
  p.slice_axis_by_spacing = false;
  p.slice_axis_zyx = 2;
  p.spacing_mm = Vector3{0, 0.7, 0.7};
  const auto json = p.to_json();
  EXPECT_EQ(Preparation::from_json(nlohmann::json::parse(json.dump()), "x").to_json(), json);
}

TEST(Preparation, JsonErrorsNameSourceAndField) {
  const auto with = [](const std::string& pointer, const nlohmann::json& value) {
    auto json = one_channel(Kind::kCt).to_json();
    json[nlohmann::json::json_pointer(pointer)] = value;
    try {
      Preparation::from_json(json, "cache.json");
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(with("/channels/0/normalization", "ctt"),
              HasSubstr("cache.json: field \"channels.\" has the unknown normalization \"ctt\""));
  EXPECT_THAT(with("/channels/0/mean", "much"), HasSubstr("field \"channels.mean\" is missing or"));
  EXPECT_THAT(with("/channels/0/sd", 0), HasSubstr("not positive"));
  EXPECT_THAT(with("/labels/1/color", "red"), HasSubstr("#rrggbb was expected"));
  EXPECT_THAT(with("/slice_axis", "w"), HasSubstr("field \"slice_axis\" is \"w\""));
  EXPECT_THAT(with("/labels", nlohmann::json::array()), HasSubstr("2 to 255 classes"));
}

TEST(PrepareCase, ClipsAndScalesCtByTheDataSet) {
  const at::Tensor values = at::tensor({-1000.F, 50.F, 75.F, 3000.F}).reshape({1, 1, 1, 4});
  const PreparedCase c = prepare_case("a", volume(values), std::nullopt, one_channel(Kind::kCt));
  EXPECT_TRUE(at::allclose(c.image.flatten(), at::tensor({-6.F, 0.F, 1.F, 6.F})));
}

TEST(PrepareCase, ZScoresByTheNonZeroVoxelsOfTheCase) {
  const at::Tensor values = at::tensor({0.F, 0.F, 10.F, 20.F, 30.F, 0.F}).reshape({1, 1, 2, 3});
  const PreparedCase c =
      prepare_case("a", volume(values), std::nullopt, one_channel(Kind::kZScore));
  const float sd = std::sqrt(200.F / 3);
  EXPECT_TRUE(at::allclose(c.image.flatten(), (values.flatten() - 20) / sd));
  const at::Tensor nothing = at::zeros({1, 1, 2, 2});
  EXPECT_TRUE(at::equal(
      prepare_case("a", volume(nothing), std::nullopt, one_channel(Kind::kZScore)).image, nothing));
}

TEST(PrepareCase, ScalesColoursByTheirDepth) {
  Preparation p = one_channel(Kind::kRgb);
  p.channels[0].mean = 0.5;
  p.channels[0].sd = 0.25;
  Volume picture = volume(at::full({1, 1, 2, 2}, 255.F));
  EXPECT_THAT(refusal(picture, std::nullopt, p), HasSubstr("is no 8- or 16-bit picture"));
  picture.full_scale = 255;
  EXPECT_EQ(prepare_case("a", picture, std::nullopt, p).image.max().item<float>(), 2);
  picture.full_scale = 65535;
  EXPECT_LT(prepare_case("a", picture, std::nullopt, p).image.max().item<float>(), -1.9);
}

TEST(PrepareCase, RepeatsAGreyPictureWhereColoursAreWanted) {
  Preparation p = one_channel(Kind::kRgb);
  p.channels[0].sd = 1;
  p.channels.resize(3, p.channels[0]);
  Volume grey = volume(at::rand({1, 1, 2, 2}));
  EXPECT_THAT(refusal(grey, std::nullopt, p), HasSubstr("channels: 1 found, 3 expected"));
  grey.full_scale = 255;
  const PreparedCase c = prepare_case("a", grey, std::nullopt, p);
  EXPECT_TRUE(at::equal(c.image[0], c.image[2]));
}

TEST(PrepareCase, PutsTheCoarsestAxisFirst) {
  Volume image = volume(at::rand({1, 4, 5, 6}));
  image.geometry.spacing_mm_zyx = {1, 1, 3};
  const PreparedCase c = prepare_case("a", image, std::nullopt, one_channel(Kind::kNone));
  EXPECT_THAT(c.axis_order, ElementsAre(2, 0, 1));
  EXPECT_THAT(c.image.sizes(), ElementsAre(1, 6, 4, 5));
  EXPECT_EQ(c.image[0][5][2][1].item<float>(), image.values[0][2][1][5].item<float>());
  const Vector3 here = c.geometry.lps_from_voxel({5, 2, 1});
  const Vector3 there = image.geometry.lps_from_voxel({2, 1, 5});
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(here[i], there[i], 1e-12);
  EXPECT_EQ(difference(c.native, image.geometry, 0), "");
}

TEST(PrepareCase, CutsAlongAChosenAxis) {
  Preparation p = one_channel(Kind::kNone);
  p.slice_axis_by_spacing = false;
  p.slice_axis_zyx = 1;
  const PreparedCase c = prepare_case("a", volume(at::rand({1, 4, 5, 6})), std::nullopt, p);
  EXPECT_THAT(c.image.sizes(), ElementsAre(1, 5, 4, 6));
}

TEST(PrepareCase, NumbersClassesAndKeepsTheIgnored) {
  Preparation p = one_channel(Kind::kNone);
  p.ignore_value = 7;
  const at::Tensor values = at::tensor({0, 3, 7, 3}, at::kInt).reshape({1, 1, 1, 4});
  const Volume image = volume(at::rand({1, 1, 1, 4}));
  const PreparedCase c = prepare_case("a", image, volume(values), p);
  EXPECT_EQ(c.labels.scalar_type(), at::kByte);
  EXPECT_TRUE(at::equal(c.labels.flatten(), at::tensor({0, 1, 255, 1}, at::kByte)));
}

TEST(PrepareCase, ResamplesImageAndLabelsOntoOneGrid) {
  Preparation p = one_channel(Kind::kNone);
  p.spacing_mm = Vector3{0, 0.5, 2};  // the slice axis stays
  Volume image = volume(at::rand({1, 3, 8, 8}));
  Volume labels = volume(at::zeros({1, 3, 8, 8}, at::kInt));
  labels.values.slice(3, 4) = 3;
  const PreparedCase c = prepare_case("a", image, labels, p);
  EXPECT_THAT(c.image.sizes(), ElementsAre(1, 3, 16, 4));
  EXPECT_THAT(c.labels.sizes(), ElementsAre(3, 16, 4));
  EXPECT_THAT(c.geometry.spacing_mm_zyx, ElementsAre(1, 0.5, 2));
  EXPECT_EQ(c.labels.eq(1).sum().item<int64_t>(), 3 * 16 * 2);
}

TEST(PrepareCase, RefusesWhatWasNotDeclared) {
  const Preparation p = one_channel(Kind::kNone);
  const Volume image = volume(at::rand({1, 1, 1, 4}));
  EXPECT_THAT(refusal(volume(at::rand({2, 1, 1, 4})), std::nullopt, p),
              HasSubstr("case_1: channels: 2 found, 1 expected"));
  Volume broken = volume(at::rand({1, 1, 1, 4}));
  broken.values[0][0][0][2] = NAN;
  EXPECT_THAT(refusal(broken, std::nullopt, p), HasSubstr("holds NaN or infinite voxels"));
  const at::Tensor odd = at::tensor({0, 3, 5, 42}, at::kInt).reshape({1, 1, 1, 4});
  EXPECT_THAT(refusal(image, volume(odd), p), HasSubstr("not declared: 5, 42"));
  EXPECT_THAT(refusal(image, volume(at::zeros({1, 1, 1, 5}, at::kInt)), p),
              HasSubstr("image and label map do not match: sizes differ"));
}

TEST(DefaultColors, AreDistinctAndBlackForTheBackground) {
  EXPECT_THAT(default_color(0), ElementsAre(0, 0, 0));
  for (int64_t a = 1; a < 12; ++a)
    for (int64_t b = a + 1; b < 12; ++b) {
      int apart = 0;
      for (int i = 0; i < 3; ++i) apart += std::abs(default_color(a)[i] - default_color(b)[i]);
      EXPECT_GT(apart, 30) << a << " " << b;
    }
}

}  // namespace
}  // namespace vireo
