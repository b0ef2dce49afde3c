#include "vision/metrics/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace vireo {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

std::vector<double> defined(const std::vector<double>& values) {
  std::vector<double> kept;
  for (const double value : values)
    if (!std::isnan(value)) kept.push_back(value);
  return kept;
}

}  // namespace

double defined_mean(const std::vector<double>& values) {
  double sum = 0;
  int64_t count = 0;
  for (const double value : values) {
    if (std::isnan(value)) continue;
    sum += value;
    ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : kUndefined;
}

double defined_sd(const std::vector<double>& values) {
  const std::vector<double> kept = defined(values);
  if (kept.size() < 2) return kUndefined;
  const double mean = defined_mean(kept);
  double squares = 0;
  for (const double value : kept) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(kept.size() - 1));
}

double percentile(std::vector<double> values, double percent) {
  const double position = percent / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(position);
  const auto lower = values.begin() + static_cast<std::ptrdiff_t>(below);
  std::nth_element(values.begin(), lower, values.end());
  if (lower + 1 == values.end()) return *lower;
  const double upper = *std::min_element(lower + 1, values.end());
  return *lower + (position - static_cast<double>(below)) * (upper - *lower);
}

Interval bootstrap_interval(int64_t count,
                            const std::function<double(const std::vector<int64_t>&)>& statistic,
                            uint64_t seed,
                            int64_t resamples,
                            double confidence) {
  if (count <= 0) return {kUndefined, kUndefined};
  std::mt19937_64 random(seed);
  std::vector<int64_t> draw(static_cast<size_t>(count));
  std::vector<double> results;
  for (int64_t i = 0; i < resamples; ++i) {
    // The top 53 bits as a fraction: the standard library's distributions differ between systems.
    for (int64_t& index : draw)
      index = static_cast<int64_t>(static_cast<double>(random() >> 11) * 0x1p-53 *
                                   static_cast<double>(count));
    const double result = statistic(draw);
    if (!std::isnan(result)) results.push_back(result);
  }
  if (results.empty()) return {kUndefined, kUndefined};
  const double tail = 50 * (1 - confidence);
  return {percentile(results, tail), percentile(results, 100 - tail)};
}

Interval bootstrap_mean_interval(const std::vector<double>& values,
                                 uint64_t seed,
                                 int64_t resamples,
                                 double confidence) {
  const std::vector<double> kept = defined(values);
  const auto mean_of = [&kept](const std::vector<int64_t>& draw) {
    double sum = 0;
    for (const int64_t index : draw) sum += kept[static_cast<size_t>(index)];
    return sum / static_cast<double>(draw.size());
  };
  return bootstrap_interval(
      static_cast<int64_t>(kept.size()), mean_of, seed, resamples, confidence);
}

}  // namespace vireo
