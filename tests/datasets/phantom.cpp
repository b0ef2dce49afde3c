#include "datasets/phantom.h"

#include <cmath>
#include <numeric>
#include <set>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

constexpr int64_t kLiver = 1, kSpleen = 2, kKidney = 3, kAorta = 4, kStomach = 5;

const std::vector<PhantomCase>& some_cases() {
  static const std::vector<PhantomCase> cases = [] {
    std::vector<PhantomCase> made;
    for (int64_t index = 0; index < 6; ++index) made.push_back(make_phantom(index, {}));
    return made;
  }();
  return cases;
}

double volume_ml(const PhantomCase& made, int64_t label) {
  return made.labels.values.eq(label).sum().item<double>() *
         made.labels.geometry.voxel_volume_mm3() / 1000;
}

double mean_hu(const PhantomCase& made, int64_t label) {
  return made.image.values.masked_select(made.labels.values.eq(label))
      .to(at::kDouble)
      .mean()
      .item<double>();
}

// Where a label's centre lies, as (L, P, S) in mm.
Vector3 center_lps(const PhantomCase& made, int64_t label) {
  const at::Tensor mean = made.labels.values[0].eq(label).nonzero().to(at::kDouble).mean(0);
  return made.labels.geometry.lps_from_voxel(
      {mean[0].item<double>(), mean[1].item<double>(), mean[2].item<double>()});
}

double determinant(const Matrix3& m) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
         m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

TEST(Phantom, SameSeedAndIndexGiveTheSameVoxelsOnAnyThreadCount) {
  const PhantomOptions options{7, {8, 40, 40}, {}, 14};
  const int threads = at::get_num_threads();
  const PhantomCase first = make_phantom(3, options);
  at::set_num_threads(1);
  const PhantomCase again = make_phantom(3, options);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(first.image.values, again.image.values));
  EXPECT_TRUE(at::equal(first.labels.values, again.labels.values));
  EXPECT_EQ(difference(first.image.geometry, again.image.geometry, 0), "");
}

TEST(Phantom, OtherIndicesAndSeedsGiveOtherPatients) {
  const PhantomOptions options{7, {8, 40, 40}, {}, 14}, reseeded{8, {8, 40, 40}, {}, 14};
  const PhantomCase first = make_phantom(0, options);
  for (const PhantomCase& other : {make_phantom(1, options), make_phantom(0, reseeded)})
    EXPECT_GT((first.labels.values != other.labels.values).sum().item<int64_t>(), 500);
}

TEST(Phantom, OrgansHaveHumanSizes) {
  for (const PhantomCase& made : some_cases()) {
    EXPECT_GT(volume_ml(made, kLiver), 700);
    EXPECT_LT(volume_ml(made, kLiver), 2200);
    EXPECT_GT(volume_ml(made, kSpleen), 60);
    EXPECT_LT(volume_ml(made, kSpleen), 500);
    EXPECT_GT(volume_ml(made, kKidney), 120);
    EXPECT_LT(volume_ml(made, kKidney), 500);
    EXPECT_GT(volume_ml(made, kAorta), 25);
    EXPECT_LT(volume_ml(made, kAorta), 120);
    EXPECT_GT(volume_ml(made, kStomach), 80);
    EXPECT_LT(volume_ml(made, kStomach), 700);
  }
}

TEST(Phantom, OrgansHaveHumanDensities) {
  for (const PhantomCase& made : some_cases()) {
    EXPECT_GT(mean_hu(made, kLiver), 35);
    EXPECT_LT(mean_hu(made, kLiver), 140);
    EXPECT_GT(mean_hu(made, kSpleen), 30);
    EXPECT_GT(mean_hu(made, kKidney), 25);
    EXPECT_LT(mean_hu(made, kKidney), 190);
    EXPECT_GT(mean_hu(made, kAorta), 25);
    EXPECT_EQ(made.image.values.min().item<int64_t>() < -950, true) << "air around the body";
    EXPECT_GT(made.image.values.max().item<int64_t>(), 250) << "bone";
  }
}

TEST(Phantom, OrgansLieWhereTheyBelongInThePatientHoweverTheGridIsTurned) {
  for (const PhantomCase& made : some_cases()) {
    EXPECT_LT(center_lps(made, kLiver)[0], -15) << "the liver is on the right";
    EXPECT_GT(center_lps(made, kSpleen)[0], 40) << "the spleen is on the left";
    EXPECT_GT(center_lps(made, kKidney)[1], center_lps(made, kStomach)[1])
        << "the kidneys are behind the stomach";
    EXPECT_LT(center_lps(made, kKidney)[2], center_lps(made, kLiver)[2])
        << "the kidneys are below the liver";
  }
}

TEST(Phantom, NoiseHasTheStandardDeviationAskedFor) {
  PhantomOptions quiet, noisy;
  quiet.noise_hu = 0;
  noisy.noise_hu = 20;
  const PhantomCase without = make_phantom(2, quiet), with = make_phantom(2, noisy);
  EXPECT_TRUE(at::equal(without.labels.values, with.labels.values));
  const at::Tensor inside = without.labels.values.eq(kLiver);
  const double sd = (with.image.values - without.image.values)
                        .masked_select(inside)
                        .to(at::kDouble)
                        .std()
                        .item<double>();
  EXPECT_GT(sd, 20 * 0.74);
  EXPECT_LT(sd, 20 * 1.26);
}

TEST(Phantom, EdgesAreBlurredByPartialVolume) {
  PhantomOptions quiet;
  quiet.noise_hu = 0;
  const PhantomCase made = make_phantom(2, quiet);
  // Without partial volume nothing would lie between air and fat.
  const at::Tensor between = (made.image.values > -800).logical_and(made.image.values < -300);
  EXPECT_GT(between.sum().item<int64_t>(), 2000);
}

TEST(Phantom, GridsVaryAndAreProper) {
  std::set<std::string> orientations;
  int oblique = 0;
  for (int64_t index = 0; index < 24; ++index) {
    const PhantomCase made = make_phantom(index, {1, {9, 8, 8}, {}, 14});
    const Geometry& grid = made.image.geometry;
    EXPECT_NEAR(std::abs(determinant(grid.direction_lps_from_zyx)), 1, 1e-9);
    EXPECT_NEAR(grid.direction_lps_from_zyx[0][0] * grid.direction_lps_from_zyx[0][1] +
                    grid.direction_lps_from_zyx[1][0] * grid.direction_lps_from_zyx[1][1] +
                    grid.direction_lps_from_zyx[2][0] * grid.direction_lps_from_zyx[2][1],
                0,
                1e-9);
    orientations.insert(grid.orientation_xyz());
    oblique += std::abs(std::abs(grid.direction_lps_from_zyx[0][2]) - 1) > 1e-6;
  }
  EXPECT_GE(orientations.size(), 2u);
  EXPECT_GE(oblique, 6);
  EXPECT_LE(oblique, 18);
}

TEST(Phantom, TakesTheSpacingAskedFor) {
  const PhantomCase made = make_phantom(0, {1, {6, 20, 24}, Vector3{6, 5, 4}, 14});
  EXPECT_EQ(made.image.geometry.size_zyx, (std::array<int64_t, 3>{6, 20, 24}));
  EXPECT_EQ(made.image.geometry.spacing_mm_zyx, (Vector3{6, 5, 4}));
}

}  // namespace
}  // namespace vireo
