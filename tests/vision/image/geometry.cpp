#include "vision/image/geometry.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

using ::testing::HasSubstr;

// An oblique grid: turned 30 degrees about S, then the axes of a LAS file.
Geometry oblique() {
  Geometry g;
  g.size_zyx = {5, 7, 9};
  g.spacing_mm_zyx = {3.0, 0.8, 0.6};
  g.origin_lps_mm = {-12.5, 30.25, 7.75};
  const double c = std::cos(M_PI / 6), s = std::sin(M_PI / 6);
  g.direction_lps_from_zyx = {{{0, s, c}, {0, -c, s}, {1, 0, 0}}};
  return g;
}

void expect_near(const Vector3& a, const Vector3& b, double tolerance = 1e-9) {
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(a[i], b[i], tolerance) << "component " << i;
}

TEST(Geometry, GoesToTheWorldAndBack) {
  const Geometry g = oblique();
  expect_near(g.lps_from_voxel({0, 0, 0}), g.origin_lps_mm);
  // One step along x: 0.6 mm in the direction (cos 30, sin 30, 0).
  expect_near(g.lps_from_voxel({0, 0, 1}),
              {-12.5 + 0.6 * std::cos(M_PI / 6), 30.25 + 0.6 * std::sin(M_PI / 6), 7.75});
  expect_near(g.voxel_from_lps(g.lps_from_voxel({1.25, 6, 3.5})), {1.25, 6, 3.5});
  EXPECT_NEAR(g.voxel_volume_mm3(), 3.0 * 0.8 * 0.6, 1e-12);
}

TEST(Geometry, NamesTheDirectionsInWhichAxesGrow) {
  Geometry g;
  EXPECT_EQ(g.orientation_xyz(), "LPS");
  g.direction_lps_from_zyx = {{{0, 0, -1}, {0, -1, 0}, {1, 0, 0}}};
  EXPECT_EQ(g.orientation_xyz(), "RAS");
  EXPECT_EQ(oblique().orientation_xyz(), "LAS");
  // Exactly diagonal axes still get two different letter pairs.
  const double h = std::sqrt(0.5);
  g.direction_lps_from_zyx = {{{0, -h, h}, {0, h, h}, {1, 0, 0}}};
  const std::string code = g.orientation_xyz();
  EXPECT_TRUE(code == "LPS" || code == "PRS") << code;
}

TEST(Geometry, FindsTheCoarsestAxis) {
  Geometry g;
  EXPECT_EQ(g.coarsest_axis(), 0);
  g.spacing_mm_zyx = {1, 2, 1.5};
  EXPECT_EQ(g.coarsest_axis(), 1);
  g.spacing_mm_zyx = {0.99999999, 1, 1.00000001};
  EXPECT_EQ(g.coarsest_axis(), 0) << "equal but for rounding";
  g.spacing_mm_zyx = {1, 1.9, 2.3};
  g.size_zyx = {1, 30, 40};
  EXPECT_EQ(g.coarsest_axis(), 0) << "a single slice";
  g.size_zyx = {1, 1, 40};
  EXPECT_EQ(g.coarsest_axis(), 2) << "a line has no slices";
}

TEST(Geometry, KeepsEveryVoxelInPlaceWhenAxesAreReordered) {
  const Geometry g = oblique();
  for (const std::array<int, 3> order : {std::array{2, 0, 1}, {1, 0, 2}, {2, 1, 0}, {0, 1, 2}}) {
    const Geometry p = g.permuted(order);
    const Vector3 index{3, 5, 8};
    expect_near(p.lps_from_voxel({index[order[0]], index[order[1]], index[order[2]]}),
                g.lps_from_voxel(index));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(p.size_zyx[i], g.size_zyx[order[i]]);
    EXPECT_NEAR(p.voxel_volume_mm3(), g.voxel_volume_mm3(), 1e-12);
  }
}

TEST(Geometry, KeepsTheOuterFacesWhenResized) {
  const Geometry g = oblique();
  const Geometry r = g.resized({10, 3, 9});
  for (const double face : {0.0, 1.0}) {
    Vector3 of_g, of_r;
    for (int i = 0; i < 3; ++i) {
      of_g[i] = face * static_cast<double>(g.size_zyx[i]) - 0.5;
      of_r[i] = face * static_cast<double>(r.size_zyx[i]) - 0.5;
    }
    expect_near(r.lps_from_voxel(of_r), g.lps_from_voxel(of_g));
  }
  EXPECT_NEAR(r.spacing_mm_zyx[0], 1.5, 1e-12);
}

TEST(GeometryDifference, IsEmptyWithinTheTolerance) {
  const Geometry a = oblique();
  Geometry b = a;
  EXPECT_EQ(difference(a, b), "");
  b.origin_lps_mm[0] += 0.009;
  EXPECT_EQ(difference(a, b), "");
}

TEST(GeometryDifference, SaysWhatDiffersAndByHowMuch) {
  const Geometry a = oblique();
  Geometry b = a;
  b.size_zyx[2] = 10;
  EXPECT_EQ(difference(a, b), "sizes differ: 9x7x5 and 10x7x5 voxels (x, y, z)");
  b = a;
  b.spacing_mm_zyx[0] = 3.1;
  EXPECT_THAT(difference(a, b), HasSubstr("spacings differ: (0.6, 0.8, 3) and (0.6, 0.8, 3.1)"));
  EXPECT_THAT(difference(a, b), HasSubstr("corners up to 0.4 mm apart"));
  b = a;
  b.origin_lps_mm[1] += 2;
  EXPECT_THAT(difference(a, b), HasSubstr("origins differ: (-12.5, 30.25, 7.75)"));
  b = a;
  for (auto& row : b.direction_lps_from_zyx) row[2] = -row[2];
  EXPECT_THAT(difference(a, b), HasSubstr("directions differ: axes grow to LAS and RAS"));
  // A direction that is off by little shows at the far corners only.
  b = a;
  b.direction_lps_from_zyx[2][2] = 0.01;
  EXPECT_THAT(difference(a, b), HasSubstr("directions differ"));
}

}  // namespace
}  // namespace vireo
