#include "datasets/phantom_pictures.h"

#include <array>
#include <cmath>
#include <map>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

TEST(PhantomPictures, SameSeedAndIndexGiveTheSameBytes) {
  const PhantomPicture first = make_phantom_picture(5, 7), again = make_phantom_picture(5, 7);
  EXPECT_TRUE(at::equal(first.pixels, again.pixels));
  EXPECT_EQ(first.pixels.sizes(), (at::IntArrayRef{kPhantomPictureSide, kPhantomPictureSide, 3}));
  EXPECT_FALSE(at::equal(first.pixels, make_phantom_picture(5, 8).pixels));
  EXPECT_FALSE(at::equal(first.pixels, make_phantom_picture(6, 7).pixels));
}

TEST(PhantomPictures, PatientsStayInOnePartAndClassesAreAboutEqual) {
  std::map<int64_t, std::set<Part>> parts;
  std::array<int64_t, 4> of_class{};
  std::array<int64_t, 3> of_part{};
  constexpr int64_t kCount = 200;
  for (int64_t index = 0; index < kCount; ++index) {
    const PhantomPicture made = make_phantom_picture(index, 1);
    parts[made.patient].insert(made.part);
    ++of_class.at(static_cast<size_t>(made.label));
    ++of_part.at(static_cast<size_t>(made.part));
  }
  EXPECT_EQ(parts.size(), 100u);
  for (const auto& [patient, its] : parts) EXPECT_EQ(its.size(), 1u) << patient;
  EXPECT_EQ(of_part, (std::array<int64_t, 3>{140, 20, 40}));
  for (const int64_t count : of_class) EXPECT_GT(count, kCount / 8);
}

TEST(PhantomPictures, BrightnessAndSpreadDoNotTellTheClass) {
  constexpr int64_t kCount = 400;
  std::array<double, 4> count{}, mean{}, squares{}, spread{};
  for (int64_t index = 0; index < kCount; ++index) {
    const PhantomPicture made = make_phantom_picture(index, 3);
    const at::Tensor values = made.pixels.to(at::kDouble);
    const auto k = static_cast<size_t>(made.label);
    const auto value = values.mean().item<double>();
    count[k] += 1;
    mean[k] += value;
    squares[k] += value * value;
    spread[k] += values.std().item<double>();
  }
  for (size_t k = 0; k < 4; ++k) {
    mean[k] /= count[k];
    spread[k] /= count[k];
  }
  for (size_t k = 1; k < 4; ++k) {
    // Within four standard errors of the difference of two means.
    const double sd = std::sqrt(squares[k] / count[k] - mean[k] * mean[k]);
    EXPECT_NEAR(mean[k], mean[0], 4 * sd * std::sqrt(1 / count[k] + 1 / count[0]));
    EXPECT_NEAR(spread[k] / spread[0], 1, 0.15);
  }
}

}  // namespace
}  // namespace vireo
