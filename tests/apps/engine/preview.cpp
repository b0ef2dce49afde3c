#include "apps/engine/preview.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;

std::vector<Geometry> all_orientations() {
  std::vector<Geometry> all;
  std::array<int, 3> axes{0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs) {
      Geometry geometry;
      geometry.size_zyx = {5, 6, 7};
      geometry.direction_lps_from_zyx = {};
      for (int i = 0; i < 3; ++i)
        geometry.direction_lps_from_zyx[axes[i]][i] = (signs >> i) & 1 ? -1 : 1;
      all.push_back(geometry);
    }
  } while (std::next_permutation(axes.begin(), axes.end()));
  return all;
}

TEST(DisplayTurn, ShowsEveryOrientationTheRadiologicalWay) {
  for (const Geometry& geometry : all_orientations()) {
    for (int slice_axis = 0; slice_axis < 3; ++slice_axis) {
      SCOPED_TRACE(geometry.orientation_xyz() + " across axis " + std::to_string(slice_axis));
      const DisplayTurn turn = display_turn(geometry, slice_axis);
      EXPECT_EQ(turn.row_axis_zyx + turn.column_axis_zyx + slice_axis, 3);
      // World directions of the picture's right and down.
      Vector3 right{}, down{};
      double across_left = 0, across_back = 0;
      for (int world = 0; world < 3; ++world) {
        const auto& row = geometry.direction_lps_from_zyx[world];
        right[world] = row[turn.column_axis_zyx] * (turn.flip_columns ? -1 : 1);
        down[world] = row[turn.row_axis_zyx] * (turn.flip_rows ? -1 : 1);
      }
      across_left = std::abs(geometry.direction_lps_from_zyx[0][slice_axis]);
      across_back = std::abs(geometry.direction_lps_from_zyx[1][slice_axis]);
      if (across_left > 0.5) {  // sagittal
        EXPECT_THAT(right, ElementsAre(0, 1, 0));
        EXPECT_THAT(down, ElementsAre(0, 0, -1));
      } else if (across_back > 0.5) {  // coronal
        EXPECT_THAT(right, ElementsAre(1, 0, 0));
        EXPECT_THAT(down, ElementsAre(0, 0, -1));
      } else {  // axial
        EXPECT_THAT(right, ElementsAre(1, 0, 0));
        EXPECT_THAT(down, ElementsAre(0, 1, 0));
      }
    }
  }
}

TEST(DisplaySlice, HasSquarePixelsAndLabelsWhereTheyBelong) {
  Geometry geometry;
  geometry.size_zyx = {1, 20, 40};
  geometry.spacing_mm_zyx = {1, 2, 0.5};  // 40 mm high, 20 mm wide
  const at::Tensor image = at::full({1, 20, 40}, 0.5f);
  at::Tensor labels = at::zeros({20, 40}, at::kByte);
  labels.narrow(0, 0, 10).narrow(1, 0, 20).fill_(1);
  const Canvas picture =
      display_slice(image, labels, geometry, 0, 0, 1, false, {{0, 0, 0}, {255, 0, 0}}, 200);
  EXPECT_EQ(picture.height(), 200);
  EXPECT_EQ(picture.width(), 100);
  const auto redness = [&](int64_t x, int64_t y) {
    return picture.pixel(x, y)[0] - picture.pixel(x, y)[2];
  };
  EXPECT_GT(redness(25, 50), 20);
  EXPECT_EQ(redness(75, 50), 0);
  EXPECT_EQ(redness(25, 150), 0);
}

TEST(TellingSlices, CoverTheLabelledExtentAndTheFullestSlice) {
  EXPECT_THAT(telling_slices({0, 0, 0, 0, 0, 0, 0, 0}, 4), ElementsAre(1, 3, 5, 7));
  const auto slices = telling_slices({0, 0, 1, 1, 9, 1, 1, 1, 1, 1, 0, 0}, 4);
  EXPECT_EQ(slices.size(), 4u);
  EXPECT_THAT(slices, Contains(4));
  EXPECT_GE(slices.front(), 2);
  EXPECT_LE(slices.back(), 9);
  EXPECT_THAT(telling_slices({5}, 4), ElementsAre(0));
  EXPECT_THAT(telling_slices({0, 3, 0}, 4), ElementsAre(1));
}

TEST(Preview, ShowsARowPerCaseAndSaysHowManyItLeavesOut) {
  Preparation preparation;
  preparation.channels = {{"MR", ChannelNormalization::Kind::kZScore}};
  preparation.labels = {{"background", 0, {}}, {"tumour", 1, {}}};
  Volume volume{at::randn({1, 10, 30, 30}), {}};
  volume.geometry.size_zyx = {10, 30, 30};
  const at::Tensor classes = at::zeros({10, 30, 30}, at::kByte);
  classes.narrow(0, 3, 4).narrow(1, 5, 10).narrow(2, 5, 10).fill_(1);
  Preview two(preparation, 2);
  two.add("a", volume, classes, 0);
  const int64_t one_row = two.picture().height();
  two.add("b", volume, classes, 0);
  EXPECT_FALSE(two.has_room());
  const int64_t two_rows = two.picture().height();
  EXPECT_GT(two_rows, one_row + 200);
  two.add("c", volume, classes, 0);
  EXPECT_GT(two.picture().height(), two_rows) << "the line that counts the others";
  EXPECT_LT(two.picture().height(), two_rows + 40);
}

TEST(Preview, OfNothingIsStillAPicture) {
  Preparation preparation;
  preparation.labels = {{"background", 0, {}}};
  EXPECT_GT(Preview(preparation).picture().width(), 0);
}

}  // namespace
}  // namespace vireo
