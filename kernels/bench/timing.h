#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

// How long things take, measured side by side.
namespace vireo {

/// Order statistics of measured values, NaN ones left out.
struct Spread {
  int64_t count = 0;
  double min = 0, low_quartile = 0, median = 0, high_quartile = 0, max = 0;
  /// Half the distance between the quartiles, as a share of the median.
  double relative() const { return median > 0 ? (high_quartile - low_quartile) / 2 / median : 0; }
};
/// Quartiles are interpolated linearly between the neighbouring values. Throws c10::Error without a
/// value that is a number.
Spread spread_of(const std::vector<double>& values);

/// One of the things that are compared.
struct Contender {
  std::string name;
  std::function<void()> run;  ///< one pass
  /// What must be in force during its passes and not during those of others; may be empty.
  std::function<std::shared_ptr<void>()> during = {};
};

struct Timing {
  /// Seconds of a pass, by round; NaN where it took no part. Never all NaN.
  std::vector<double> seconds;
  std::optional<int64_t> peak_bytes;  ///< of one pass, beyond what was held before it
};

struct TurnSettings {
  double seconds = 1;       ///< to be spent on each contender, beside its first two passes
  double cold_beyond = 10;  ///< what takes longer than this, in seconds, is not run a second time
  c10::Device device = c10::kCPU;
  std::function<void()> between = {};  ///< called between passes; what it throws ends everything
};

/// Times the contenders in turns: a round times each of them once, every other round in reverse
/// order, so that what slows the machine down for a while falls on all alike. A time is the mean of
/// as many passes as take a hundredth of a second, after one that is not counted. Each takes part
/// until it has spent its seconds, and at least three times; one whose first pass takes longer than
/// that, and than a second, is timed in one more pass, or beyond `cold_beyond` in that first one.
std::vector<Timing> time_in_turns(const std::vector<Contender>& contenders,
                                  const TurnSettings& settings);

/// How many times as long as `one` the `other` takes: the median of the ratios within the rounds in
/// which both took part, or where these are fewer than three the ratio of the medians.
double times_as_long(const Timing& other, const Timing& one);

}  // namespace vireo
