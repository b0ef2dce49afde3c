#include "datasets/prepared_slices.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vision/core/error.h"
#include "vision/transforms/resample.h"

namespace vireo {
namespace {

using ::testing::HasSubstr;
using Kind = ChannelNormalization::Kind;

// Two channels of whole numbers on a grid whose axes run towards S, A and R.
Volume made_image() {
  Volume image{at::randint(-900, 900, {2, 7, 8, 11}).to(at::kFloat), {}, 0};
  image.values.slice(1, 0, 2).zero_();
  image.geometry.size_zyx = {7, 8, 11};
  image.geometry.spacing_mm_zyx = {3, 1, 0.5};
  image.geometry.direction_lps_from_zyx = {{{0, 0, -1}, {0, -1, 0}, {1, 0, 0}}};
  return image;
}

Preparation made_preparation(int slice_axis) {
  Preparation p;
  p.channels = {{"CT", Kind::kCt, -150, 250, 41.7, 33.3}, {"MR", Kind::kZScore}};
  p.labels = {{"background", 0, {}}, {"organ", 1, {}}};
  p.orientation_xyz = "LPS";
  p.slice_axis_by_spacing = false;
  p.slice_axis_zyx = slice_axis;
  p.spacing_mm = Vector3{2, 0.8, 1.1};
  return p;
}

PreparedSlices prepared(const Volume& image, const Preparation& p) {
  return {"case", image, reorientation(image.geometry, p.orientation_xyz), p};
}

at::Tensor whole(const PreparedSlices& slices) {
  return slices.read(0, slices.geometry().size_zyx[0]);
}

TEST(PreparedSlices, AreTheTurnedNormalisedAndResampledImage) {
  const Volume image = made_image();
  for (const int axis : {0, 1, 2}) {
    const Preparation p = made_preparation(axis);
    const Volume turned = reoriented(image, reorientation(image.geometry, "LPS"));
    const at::Tensor mr = turned.values[1];
    const at::Tensor tissue = mr.masked_select(mr.ne(0)).to(at::kDouble);
    const at::Tensor normalised =
        at::stack({(turned.values[0].clamp(-150, 250) - 41.7) / 33.3,
                   (mr - tissue.mean().item<double>()) / tissue.std(false).item<double>()});
    const auto order = prepared_axes(p, turned.geometry);
    const PreparedSlices slices = prepared(image, p);
    const at::Tensor expected =
        resample_image(normalised.permute({0, order[0] + 1, order[1] + 1, order[2] + 1}),
                       slices.geometry().size_zyx,
                       Interpolation::kCubic);
    EXPECT_TRUE(at::equal(whole(slices)[0], expected[0]));
    EXPECT_TRUE(at::allclose(whole(slices)[1], expected[1], 1e-6, 1e-6));
    const PreparedCase made = prepare_case("case", turned, std::nullopt, p);
    EXPECT_TRUE(at::equal(made.image, whole(slices)));
    EXPECT_EQ(difference(made.geometry, slices.geometry(), 0), "");
  }
}

TEST(PreparedSlices, DoNotDependOnWhatIsReadTogether) {
  const Volume image = made_image();
  for (const int axis : {0, 1, 2})
    for (const bool resampled : {true, false}) {
      Preparation p = made_preparation(axis);
      if (!resampled) p.spacing_mm.reset();
      const PreparedSlices slices = prepared(image, p);
      const at::Tensor all = whole(slices);
      for (const int64_t slab : {1, 2, 5})
        for (int64_t first = 0; first < all.size(1); first += slab) {
          const int64_t count = std::min(slab, all.size(1) - first);
          EXPECT_TRUE(at::equal(slices.read(first, count), all.narrow(1, first, count)));
        }
    }
}

TEST(PreparedSlices, TakeOneSizeWhateverTheirOwn) {
  const Volume image = made_image();
  Preparation p = made_preparation(1);
  p.spacing_mm.reset();
  p.slice_size = {5, 13};
  const PreparedSlices slices = prepared(image, p);
  const Geometry& grid = slices.geometry();
  EXPECT_EQ(grid.size_zyx, (std::array<int64_t, 3>{slices.stored_size()[0], 5, 13}));
  const at::Tensor all = whole(slices);
  EXPECT_EQ(all.size(3), 13);
  EXPECT_TRUE(at::equal(slices.read(2, 3), all.narrow(1, 2, 3)));

  // A picture of single bright pixels becomes as bright as it is on the whole.
  Volume picture{at::zeros({3, 1, 32, 48}), {}, 255};
  picture.geometry.size_zyx = {1, 32, 48};
  picture.values.slice(2, 0, 32, 2).slice(3, 0, 48, 2).fill_(255);
  p.channels = {{"red", Kind::kRgb}, {"green", Kind::kRgb}, {"blue", Kind::kRgb}};
  p.slice_axis_zyx = 0;
  p.slice_size = {4, 6};
  const PreparedSlices reduced = prepared(picture, p);
  const at::Tensor small = whole(reduced);
  EXPECT_TRUE(small.sizes() == at::IntArrayRef({3, 1, 4, 6}));
  EXPECT_LT((small - 0.25).abs().max().item<float>(), 0.03F) << "points alone: 0 or 1";
  EXPECT_DOUBLE_EQ(reduced.geometry().spacing_mm_zyx[1], 8);
}

TEST(PreparedSlices, AreTheSameOfWholeNumbersInHalfTheMemory) {
  Volume image = made_image();
  const at::Tensor expected = whole(prepared(image, made_preparation(1)));
  image.values = image.values.to(at::kShort);
  EXPECT_TRUE(at::equal(whole(prepared(image, made_preparation(1))), expected));
}

TEST(PreparedSlices, AreNotMadeOfNonFiniteVoxels) {
  Volume image = made_image();
  image.values[1][6][7][10] = std::numeric_limits<float>::infinity();
  try {
    prepared(image, made_preparation(0));
    FAIL() << "accepted";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("case: holds NaN or infinite voxels"));
  }
}

}  // namespace
}  // namespace vireo
