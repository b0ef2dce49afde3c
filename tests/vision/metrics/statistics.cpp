#include "vision/metrics/statistics.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace vireo {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

TEST(Statistics, LeaveUndefinedScoresOut) {
  EXPECT_DOUBLE_EQ(defined_mean({1, kNaN, 3}), 2);
  EXPECT_DOUBLE_EQ(defined_sd({1, kNaN, 3}), std::sqrt(2.0));
  EXPECT_TRUE(std::isnan(defined_mean({kNaN})));
  EXPECT_TRUE(std::isnan(defined_sd({1, kNaN})));
}

TEST(Statistics, PercentileInterpolatesLinearly) {
  EXPECT_DOUBLE_EQ(percentile({4, 1, 3, 2}, 50), 2.5);
  EXPECT_DOUBLE_EQ(percentile({10, 0}, 95), 9.5);
  EXPECT_DOUBLE_EQ(percentile({7}, 95), 7);
  EXPECT_DOUBLE_EQ(percentile({1, 2, 3}, 100), 3);
}

TEST(Bootstrap, IsTheSameForTheSameSeed) {
  const std::vector<double> values{0.8, 0.9, 0.7, 0.95, 0.85};
  const Interval first = bootstrap_mean_interval(values, 5),
                 again = bootstrap_mean_interval(values, 5);
  EXPECT_EQ(first.low, again.low);
  EXPECT_EQ(first.high, again.high);
  const Interval other = bootstrap_mean_interval(values, 6);
  EXPECT_TRUE(other.low != first.low || other.high != first.high);
}

TEST(Bootstrap, HasTheValuesOfAFixedGenerator) {
  // mt19937_64 is fixed by the standard; this pins our use of it across machines.
  const Interval interval = bootstrap_mean_interval({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 1, 1000);
  EXPECT_NEAR(interval.low, 2.8, 0.25);
  EXPECT_NEAR(interval.high, 6.2, 0.25);
}

TEST(Bootstrap, CoversTheTrueMeanAboutAsOftenAsItSays) {
  int covered = 0;
  uint64_t state = 12345;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<double> values(30);
    for (double& value : values) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      value = static_cast<double>(state >> 40) / static_cast<double>(1 << 24);  // uniform in [0, 1)
    }
    const Interval interval = bootstrap_mean_interval(values, 1, 500);
    covered += interval.low <= 0.5 && 0.5 <= interval.high;
  }
  EXPECT_GE(covered, 176);  // 95 % nominal; the percentile bootstrap of 30 values covers a bit less
}

TEST(Bootstrap, LeavesUndefinedScoresOut) {
  const Interval with = bootstrap_mean_interval({1, kNaN, 2, 3}),
                 without = bootstrap_mean_interval({1, 2, 3});
  EXPECT_EQ(with.low, without.low);
  EXPECT_EQ(with.high, without.high);
  EXPECT_TRUE(std::isnan(bootstrap_mean_interval({kNaN, kNaN}).low));
}

}  // namespace
}  // namespace vireo
