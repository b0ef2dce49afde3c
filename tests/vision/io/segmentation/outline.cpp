#include "vision/io/segmentation/outline.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

std::vector<PixelPolygon> outlines_of(const at::Tensor& slice, int64_t value = 1) {
  const at::Tensor pixels = slice.to(at::kInt).contiguous();
  return outlines(pixels.const_data_ptr<int32_t>(), pixels.size(0), pixels.size(1), value);
}

double area(const PixelPolygon& polygon) {
  double sum = 0;
  for (size_t i = 0; i < polygon.size(); ++i) {
    const auto &a = polygon[i], &b = polygon[(i + 1) % polygon.size()];
    sum += a[0] * b[1] - b[0] * a[1];
  }
  return sum / 2;
}

// Even-odd rule at pixel centres.
at::Tensor filled(const PixelPolygon& polygon, int64_t height, int64_t width) {
  at::Tensor mask = at::zeros({height, width}, at::kInt);
  auto inside = mask.accessor<int32_t, 2>();
  for (int64_t y = 0; y < height; ++y)
    for (size_t i = 0; i < polygon.size(); ++i) {
      const auto &a = polygon[i], &b = polygon[(i + 1) % polygon.size()];
      const auto level = static_cast<double>(y);
      if ((a[1] < level) == (b[1] < level)) continue;
      for (int64_t x = 0; x < width; ++x)
        if (static_cast<double>(x) < a[0]) inside[y][x] ^= 1;
    }
  return mask;
}

void expect_the_same_pixels(const at::Tensor& slice) {
  const int64_t height = slice.size(0), width = slice.size(1);
  at::Tensor sum = at::zeros({height, width}, at::kInt);
  double total = 0;
  for (const PixelPolygon& polygon : outlines_of(slice)) {
    sum += filled(polygon, height, width);
    total += area(polygon);
    for (const auto& [x, y] : polygon) {
      EXPECT_EQ(x, std::floor(x) + 0.5);
      EXPECT_EQ(y, std::floor(y) + 0.5);
    }
  }
  EXPECT_TRUE(at::equal(sum, slice.eq(1).to(at::kInt)));
  EXPECT_EQ(total, slice.eq(1).sum().item<double>());
}

TEST(Outline, OfOnePixelIsItsSquare) {
  at::Tensor slice = at::zeros({3, 4});
  slice[1][2] = 1;
  const PixelPolygon square{{1.5, 0.5}, {2.5, 0.5}, {2.5, 1.5}, {1.5, 1.5}};
  EXPECT_EQ(outlines_of(slice), std::vector<PixelPolygon>{square});
  EXPECT_TRUE(outlines_of(slice, 2).empty());
}

TEST(Outline, TakesPixelsThatTouchAtACornerApart) {
  at::Tensor slice = at::zeros({4, 4});
  slice[1][1] = slice[2][2] = 1;
  EXPECT_EQ(outlines_of(slice).size(), 2U);
  expect_the_same_pixels(slice);
  expect_the_same_pixels(slice.flip(0));
}

TEST(Outline, JoinsHolesByKeyholesAndLeavesIslandsAlone) {
  at::Tensor slice = at::ones({11, 14});
  slice.slice(0, 2, 9).slice(1, 2, 8).fill_(0);
  slice.slice(0, 4, 7).slice(1, 4, 6).fill_(1);    // an island in the hole
  slice.slice(0, 3, 5).slice(1, 10, 12).fill_(0);  // its channel ends at the first hole
  EXPECT_EQ(outlines_of(slice).size(), 2U);
  expect_the_same_pixels(slice);
}

TEST(Outline, HoldsExactlyThePixelsOfAnyMask) {
  for (const double share : {0.2, 0.5, 0.8, 0.95})
    for (const auto& [height, width] :
         {std::pair<int64_t, int64_t>{1, 1}, {1, 9}, {17, 23}, {40, 33}})
      expect_the_same_pixels((at::rand({height, width}) < share).to(at::kInt));
}

}  // namespace
}  // namespace vireo
