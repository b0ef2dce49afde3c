#include "apps/engine/slice_picture.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

std::vector<Geometry> all_orientations() {
  std::vector<Geometry> all;
  std::array<int, 3> axes{0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs) {
      Geometry geometry;
      geometry.size_zyx = {12, 12, 12};
      geometry.direction_lps_from_zyx = {};
      for (int i = 0; i < 3; ++i)
        geometry.direction_lps_from_zyx[axes[i]][i] = (signs >> i) & 1 ? -1 : 1;
      all.push_back(geometry);
    }
  } while (std::next_permutation(axes.begin(), axes.end()));
  return all;
}

// An image that grows brighter towards the patient's left (0), back (1) or head (2).
at::Tensor gradient(const Geometry& geometry, int patient_axis) {
  at::Tensor values = at::empty({1, 12, 12, 12});
  auto at = values.accessor<float, 4>();
  for (int z = 0; z < 12; ++z)
    for (int y = 0; y < 12; ++y)
      for (int x = 0; x < 12; ++x)
        at[0][z][y][x] = static_cast<float>(
            geometry.lps_from_voxel({double(z), double(y), double(x)})[patient_axis]);
  return values;
}

// Which way the picture of a gradient grows brighter.
enum class Way { kNone, kRight, kLeft, kDown, kUp };
Way brightening(const Canvas& picture) {
  const auto brightness = [&](int64_t x, int64_t y) { return int{picture.pixel(x, y)[0]}; };
  const int across = brightness(55, 30) - brightness(5, 30);
  const int downwards = brightness(30, 55) - brightness(30, 5);
  if (across > 100) return Way::kRight;
  if (across < -100) return Way::kLeft;
  if (downwards > 100) return Way::kDown;
  if (downwards < -100) return Way::kUp;
  return Way::kNone;
}

TEST(DrawSlice, ShowsEveryOrientationAsRadiologistsLookAtIt) {
  for (const Geometry& geometry : all_orientations()) {
    for (int axis = 0; axis < 3; ++axis) {
      SCOPED_TRACE(geometry.orientation_xyz() + " across axis " + std::to_string(axis));
      std::array<Way, 3> ways{};
      for (int patient_axis = 0; patient_axis < 3; ++patient_axis)
        ways[patient_axis] =
            brightening(draw_slice(gradient(geometry, patient_axis), {}, geometry, {axis, 6}, 60));
      std::array<Way, 3> expected{Way::kRight, Way::kDown, Way::kNone};  // axial
      if (geometry.direction_lps_from_zyx[0][axis] != 0)
        expected = {Way::kNone, Way::kRight, Way::kUp};  // sagittal
      if (geometry.direction_lps_from_zyx[1][axis] != 0)
        expected = {Way::kRight, Way::kNone, Way::kUp};  // coronal
      EXPECT_EQ(ways, expected);
    }
  }
}

TEST(DrawSlice, KeepsProportionsAndPutsLabelsWhereTheyBelong) {
  Geometry geometry;
  geometry.size_zyx = {1, 20, 40};
  geometry.spacing_mm_zyx = {1, 2, 0.5};  // 40 mm high, 20 mm wide
  at::Tensor labels = at::zeros({1, 20, 40}, at::kByte);
  labels[0].narrow(0, 0, 10).narrow(1, 0, 20).fill_(1);
  const Canvas picture = draw_slice(
      at::zeros({1, 1, 20, 40}), labels, geometry, {0, 0}, 100, 0.5, {{0, 0, 0}, {255, 0, 0}});
  EXPECT_EQ(picture.width(), 100);
  EXPECT_EQ(picture.height(), 200);
  EXPECT_GT(picture.pixel(25, 50)[0], 60);
  EXPECT_EQ(picture.pixel(75, 50)[0], 0);
  EXPECT_EQ(picture.pixel(25, 150)[0], 0);
}

}  // namespace
}  // namespace vireo
