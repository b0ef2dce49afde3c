#pragma once

#include <cstdint>
#include <functional>
#include <vector>

// Means, spreads and intervals of scores. NaN marks a score that is not defined: it is left out.
namespace vireo {

struct Interval {
  double low = 0;
  double high = 0;
};

/// Mean of the defined values; NaN when there are none.
double defined_mean(const std::vector<double>& values);

/// Sample standard deviation (n - 1) of the defined values; NaN for fewer than two.
double defined_sd(const std::vector<double>& values);

/// Percentile (0..100) with linear interpolation between order statistics, as numpy's default.
/// values: not empty, no NaN.
double percentile(std::vector<double> values, double percent);

/// Percentile bootstrap: draws `count` indices out of 0..count-1 with replacement `resamples`
/// times, applies `statistic` to each draw and returns the central `confidence` of the results
/// (undefined ones left out; NaN when all are). The same seed gives the same interval on every
/// machine.
Interval bootstrap_interval(int64_t count,
                            const std::function<double(const std::vector<int64_t>&)>& statistic,
                            uint64_t seed = 1,
                            int64_t resamples = 2000,
                            double confidence = 0.95);

/// The bootstrap interval of defined_mean, by resampling the defined values.
Interval bootstrap_mean_interval(const std::vector<double>& values,
                                 uint64_t seed = 1,
                                 int64_t resamples = 2000,
                                 double confidence = 0.95);

}  // namespace vireo
