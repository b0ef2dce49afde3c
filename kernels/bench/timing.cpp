#include "kernels/bench/timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "kernels/process_memory.h"

namespace vireo {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kAbsent = std::numeric_limits<double>::quiet_NaN();
constexpr double kSampleSeconds = 0.01;
constexpr int64_t kFewestRounds = 3;
constexpr double kLongPass = 1;

double quantile(const std::vector<double>& sorted, double share) {
  const double position = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// One contender in the course of the measurement.
class Turn {
 public:
  Turn(const Contender& contender, const TurnSettings& settings)
      : contender_(contender), settings_(settings) {}

  void warm_up() {
    const auto in_force = begin();
    const double first = measured_pass();
    if (first >= std::max(settings_.seconds, kLongPass)) {
      timing.seconds.push_back(first < settings_.cold_beyond ? measured_pass() : first);
      done = true;
      return;
    }
    // The first one's memory was also what libraries keep.
    repeats_ = std::clamp<int64_t>(std::llround(kSampleSeconds / measured_pass()), 1, 1'000'000);
  }

  void take_part() {
    const Clock::time_point start = Clock::now();
    const auto in_force = begin();
    if (repeats_ > 1) passes(1);
    timing.seconds.push_back(passes(repeats_) / static_cast<double>(repeats_));
    spent_ += std::chrono::duration<double>(Clock::now() - start).count();
    done = ++rounds_ >= kFewestRounds && spent_ >= settings_.seconds;
  }

  void sit_out() { timing.seconds.push_back(kAbsent); }

  Timing timing;
  bool done = false;

 private:
  std::shared_ptr<void> begin() const {
    if (settings_.between) settings_.between();
    return contender_.during ? contender_.during() : nullptr;
  }

  double measured_pass() {
    const PeakMemory peak(settings_.device);
    const double seconds = passes(1);
    timing.peak_bytes = peak.bytes();
    return seconds;
  }

  double passes(int64_t count) const {
    const Clock::time_point start = Clock::now();
    for (int64_t i = 0; i < count; ++i) contender_.run();
    if (!settings_.device.is_cpu())
      c10::impl::VirtualGuardImpl(settings_.device.type())
          .synchronizeDevice(settings_.device.index());
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  const Contender& contender_;
  const TurnSettings& settings_;
  int64_t repeats_ = 1, rounds_ = 0;
  double spent_ = 0;
};

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  std::vector<double> sorted;
  for (const double value : values)
    if (!std::isnan(value)) sorted.push_back(value);
  TORCH_CHECK(!sorted.empty(), "spread_of: there is no value");
  std::sort(sorted.begin(), sorted.end());
  return {static_cast<int64_t>(sorted.size()),
          sorted.front(),
          quantile(sorted, 0.25),
          quantile(sorted, 0.5),
          quantile(sorted, 0.75),
          sorted.back()};
}

std::vector<Timing> time_in_turns(const std::vector<Contender>& contenders,
                                  const TurnSettings& settings) {
  std::vector<Turn> turns;
  for (const Contender& contender : contenders) turns.emplace_back(contender, settings);
  for (Turn& turn : turns) turn.warm_up();
  // Those that are done already were timed in what counts as the first round.
  bool first = true;
  const auto running = [](const Turn& turn) { return !turn.done; };
  for (bool reversed = false; std::any_of(turns.begin(), turns.end(), running);
       reversed = !reversed, first = false) {
    for (size_t i = 0; i < turns.size(); ++i) {
      Turn& turn = turns[reversed ? turns.size() - 1 - i : i];
      if (!turn.done)
        turn.take_part();
      else if (!first)
        turn.sit_out();
    }
  }
  std::vector<Timing> timings;
  for (Turn& turn : turns) timings.push_back(std::move(turn.timing));
  return timings;
}

double times_as_long(const Timing& other, const Timing& one) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(other.seconds.size(), one.seconds.size()); ++i)
    if (const double ratio = other.seconds[i] / one.seconds[i]; !std::isnan(ratio))
      ratios.push_back(ratio);
  if (static_cast<int64_t>(ratios.size()) >= kFewestRounds) return spread_of(ratios).median;
  return spread_of(other.seconds).median / spread_of(one.seconds).median;
}

}  // namespace vireo
