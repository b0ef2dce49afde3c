#include "vision/metrics/distance_transform.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

at::Tensor brute_force(const at::Tensor& mask, const std::vector<double>& spacing) {
  const at::Tensor scale = at::tensor(spacing, at::kDouble);
  const at::Tensor all = at::ones_like(mask).nonzero().to(at::kDouble) * scale;
  const at::Tensor set = mask.nonzero().to(at::kDouble) * scale;
  const at::Tensor offsets = all.unsqueeze(1) - set.unsqueeze(0);
  return std::get<0>(offsets.square().sum(-1).min(1)).view(mask.sizes());
}

void expect_matches_brute_force(c10::IntArrayRef sizes,
                                const std::vector<double>& spacing,
                                double density) {
  const at::Tensor mask = (at::rand(sizes) < density).to(at::kByte);
  mask.view(-1)[mask.numel() / 2] = 1;
  const at::Tensor found = squared_distance_transform(mask, spacing);
  EXPECT_EQ(found.scalar_type(), at::kDouble);
  EXPECT_LT((found - brute_force(mask, spacing)).abs().max().item<double>(), 1e-9)
      << "sizes " << sizes << ", density " << density;
}

TEST(DistanceTransform, EqualsBruteForceInThreeDimensions) {
  for (const double density : {0.0, 0.01, 0.2, 0.9})
    expect_matches_brute_force({9, 13, 11}, {1, 1, 1}, density);
}

TEST(DistanceTransform, EqualsBruteForceWithAnisotropicSpacing) {
  for (const double density : {0.0, 0.01, 0.2, 0.9})
    expect_matches_brute_force({7, 12, 17}, {5, 0.7, 0.31}, density);
}

TEST(DistanceTransform, EqualsBruteForceInOneAndTwoDimensions) {
  for (const double density : {0.0, 0.05, 0.4}) {
    expect_matches_brute_force({31, 22}, {1.5, 0.4}, density);
    expect_matches_brute_force({57}, {0.9}, density);
  }
}

TEST(DistanceTransform, ReadsMasksThatAreNotContiguous) {
  const at::Tensor mask = (at::rand({8, 9, 10}) < 0.1).permute({2, 0, 1});

  const at::Tensor found = squared_distance_transform(mask, {2.0, 1.0, 3.0});
  EXPECT_LT((found - brute_force(mask.to(at::kByte), {2, 1, 3})).abs().max().item<double>(), 1e-9);
}

TEST(DistanceTransform, IsInfiniteForAnEmptyMask) {
  const at::Tensor found = squared_distance_transform(at::zeros({3, 4}, at::kBool), {1.0, 1.0});
  EXPECT_TRUE((found == std::numeric_limits<double>::infinity()).all().item<bool>());
}

TEST(DistanceTransform, RefusesASpacingThatDoesNotFit) {
  EXPECT_THROW(squared_distance_transform(at::zeros({3, 4}), {1.0}), c10::Error);
  EXPECT_THROW(squared_distance_transform(at::zeros({3, 4}), {1.0, 0.0}), c10::Error);
}

}  // namespace
}  // namespace vireo
