#include "vision/transforms/resample.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

TEST(Resample, AgreesWithTorchWithoutAlignedCorners) {
  const at::Tensor image = at::randn({2, 5, 7, 6});
  const at::Tensor expected = at::upsample_trilinear3d(image.unsqueeze(0),
                                                       at::IntArrayRef({8, 4, 11}),
                                                       /*align_corners=*/false,
                                                       std::nullopt,
                                                       std::nullopt,
                                                       std::nullopt)[0];
  const at::Tensor found = resample_image(image, {8, 4, 11}, Interpolation::kLinear);
  EXPECT_TRUE(at::allclose(found, expected, 1e-5, 1e-5));
}

TEST(Resample, ReproducesStraightLinesInsideAndRepeatsTheEdge) {
  const at::Tensor line = at::arange(8, at::kFloat).reshape({1, 1, 1, 8});
  for (const auto how : {Interpolation::kLinear, Interpolation::kCubic}) {
    const at::Tensor finer = resample_image(line, {1, 1, 16}, how);
    for (int64_t i = 4; i < 12; ++i)
      EXPECT_NEAR(finer[0][0][0][i].item<float>(), (i + 0.5) / 2 - 0.5, 1e-5);
    if (how == Interpolation::kLinear) {
      EXPECT_EQ(finer[0][0][0][0].item<float>(), 0);
    }
  }
}

TEST(Resample, CubicReproducesParabolasInside) {
  const at::Tensor x = at::arange(12, at::kFloat).reshape({1, 12, 1, 1});
  const at::Tensor finer = resample_image(x * x, {36, 1, 1}, Interpolation::kCubic);
  for (int64_t i = 6; i < 30; ++i) {
    const double at_x = (static_cast<double>(i) + 0.5) / 3 - 0.5;
    EXPECT_NEAR(finer[0][i][0][0].item<double>(), at_x * at_x, 1e-4);
  }
}

TEST(Resample, IsTheSameForAnyNumberOfThreads) {
  const at::Tensor image = at::randn({1, 20, 30, 40});
  at::set_num_threads(1);
  const at::Tensor one = resample_image(image, {31, 17, 50}, Interpolation::kCubic);
  at::set_num_threads(4);
  EXPECT_TRUE(at::equal(one, resample_image(image, {31, 17, 50}, Interpolation::kCubic)));
}

TEST(Resample, MakesSlicesAsItMakesTheWhole) {
  const at::Tensor image = at::randn({2, 9, 10, 12});
  const SliceReader read = [&](int64_t first, int64_t count) {
    return image.narrow(1, first, count);
  };
  using Size = std::array<int64_t, 3>;
  for (const auto how : {Interpolation::kNearest, Interpolation::kLinear, Interpolation::kCubic})
    for (const Size& to : {Size{9, 7, 15}, Size{4, 15, 9}, Size{23, 8, 12}, Size{1, 10, 12}}) {
      const at::Tensor whole = resample_image(image, to, how);
      for (const int64_t slab : {1, 2, 5})
        for (int64_t first = 0; first < to[0]; first += slab) {
          const int64_t count = std::min(slab, to[0] - first);
          EXPECT_TRUE(at::equal(resample_slices(read, {9, 10, 12}, to, how, first, count),
                                whole.narrow(1, first, count)));
        }
    }
}

TEST(Resample, LeavesAnImageOfTheRightSizeAlone) {
  const at::Tensor image = at::randn({1, 3, 4, 5});
  EXPECT_TRUE(at::equal(resample_image(image, {3, 4, 5}, Interpolation::kCubic), image));
}

TEST(ResampleLabels, NeverMakesALabelThatWasNotThere) {
  // Labels 1 and 3 meet: interpolating the numbers would make 2.
  at::Tensor labels = at::ones({4, 6, 6}, at::kByte);
  labels.slice(2, 3) = 3;
  const at::Tensor finer = resample_labels(labels, {4, 9, 15});
  EXPECT_EQ(finer.scalar_type(), at::kByte);
  EXPECT_TRUE((finer.eq(1) | finer.eq(3)).all().item<bool>());
  // The border lies at the middle; the tie there goes to the smaller label.
  EXPECT_EQ(finer.eq(1).sum().item<int64_t>(), 4 * 9 * 8);
}

TEST(ResampleLabels, NearestTakesTheNearestVoxel) {
  const at::Tensor labels = at::tensor({7, 8, 9}, at::kInt).reshape({1, 1, 3});
  const at::Tensor finer = resample_labels(labels, {1, 2, 6}, Interpolation::kNearest);
  EXPECT_TRUE(at::equal(finer[0][1], at::tensor({7, 7, 8, 8, 9, 9}, at::kInt)));
  EXPECT_TRUE(at::equal(resample_labels(finer, {1, 1, 3}, Interpolation::kNearest), labels));
}

TEST(Resample, RefusesWhatItCannotDo) {
  EXPECT_THROW(resample_image(at::rand({1, 2, 2, 2}), {0, 2, 2}, Interpolation::kLinear), Error);
  EXPECT_THROW(resample_labels(at::zeros({2, 2, 2}, at::kByte), {3, 3, 3}, Interpolation::kCubic),
               Error);
  EXPECT_THROW(resample_labels(at::rand({2, 2, 2}), {3, 3, 3}), Error);
}

}  // namespace
}  // namespace vireo
