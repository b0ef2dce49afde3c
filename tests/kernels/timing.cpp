#include "kernels/bench/timing.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/process_memory.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"

namespace vireo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::function<void()> sleeping(int milliseconds) {
  return [=] { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); };
}

TEST(Spread, QuartilesLieBetweenTheSortedValues) {
  const Spread spread = spread_of({4, 1, 2, 8});
  EXPECT_EQ(spread.count, 4);
  EXPECT_DOUBLE_EQ(spread.min, 1);
  EXPECT_DOUBLE_EQ(spread.low_quartile, 1.75);
  EXPECT_DOUBLE_EQ(spread.median, 3);
  EXPECT_DOUBLE_EQ(spread.high_quartile, 5);
  EXPECT_DOUBLE_EQ(spread.max, 8);
  EXPECT_DOUBLE_EQ(spread.relative(), 3.25 / 2 / 3);
}

TEST(Spread, LeavesOutWhatIsNoNumber) {
  const Spread spread = spread_of({kNaN, 7, kNaN});
  EXPECT_EQ(spread.count, 1);
  EXPECT_DOUBLE_EQ(spread.min, 7);
  EXPECT_DOUBLE_EQ(spread.high_quartile, 7);
  EXPECT_THAT(test::message_of([] { spread_of({kNaN}); }), HasSubstr("there is no value"));
}

TEST(Ratio, PairsTheRoundsInWhichBothTookPart) {
  // The machine was three times slower in the second round and twice in the last.
  const Timing one{{1, 3, 1, 2}, {}}, other{{2, 6, kNaN, 5}, {}};
  EXPECT_DOUBLE_EQ(times_as_long(other, one), 2);
}

TEST(Ratio, OfFewCommonRoundsIsThatOfTheMedians) {
  const Timing one{{9, 1, 1}, {}}, slow{{30, kNaN, kNaN}, {}};
  EXPECT_DOUBLE_EQ(times_as_long(slow, one), 30);
}

TEST(Turns, RunEverybodyInEveryRoundAndReverseEveryOther) {
  std::string order;
  const auto contender = [&](char name) {
    return Contender{std::string(1, name), [&order, name] {
                       order += name;
                       std::this_thread::sleep_for(std::chrono::milliseconds(12));
                     }};
  };
  const auto timings = time_in_turns({contender('a'), contender('b')}, {.seconds = 0.03});
  // Two passes each to warm up and to see how long they take, then rounds of single passes.
  EXPECT_EQ(order.substr(0, 10), "aabbabbaab");
  for (const Timing& timing : timings) {
    EXPECT_EQ(timing.seconds.size(), 3u);
    EXPECT_GE(spread_of(timing.seconds).min, 0.012);
  }
}

TEST(Turns, QuickPassesAreTimedManyAtOnce) {
  int64_t passes = 0;
  const auto timings =
      time_in_turns({{"quick", [&] { ++passes; }}, {"slow", sleeping(20)}}, {.seconds = 0.05});
  EXPECT_GT(passes, 10'000);
  EXPECT_LT(spread_of(timings[0].seconds).median, 1e-4);
  EXPECT_GE(spread_of(timings[1].seconds).min, 0.02);
}

TEST(Turns, WhatTakesLongerThanItsTimeIsTimedOnceAndWarmWhereThatIsNotTooLong) {
  for (const double cold_beyond : {10.0, 1.0}) {
    int64_t passes = 0;
    const auto timings = time_in_turns({{"quick", sleeping(12)},
                                        {"slow",
                                         [&] {
                                           // The first pass takes longest.
                                           sleeping(++passes == 1 ? 1050 : 1010)();
                                         }}},
                                       {.seconds = 0.1, .cold_beyond = cold_beyond});
    const bool warm = cold_beyond == 10;
    EXPECT_EQ(passes, warm ? 2 : 1);
    EXPECT_EQ(spread_of(timings[1].seconds).count, 1);
    EXPECT_GE(timings[1].seconds[0], warm ? 1.01 : 1.05);
    EXPECT_GE(spread_of(timings[0].seconds).count, 3);
    EXPECT_EQ(timings[0].seconds.size(), timings[1].seconds.size());
  }
}

TEST(Turns, WhatHoldsDuringOneDoesNotDuringOthers) {
  int in_force = 0;
  bool held_by_one = true, held_by_other = false;
  const Contender one{"one",
                      [&] {
                        held_by_one = held_by_one && in_force == 1;
                        sleeping(12)();
                      },
                      [&]() -> std::shared_ptr<void> {
                        ++in_force;
                        return std::shared_ptr<void>(&in_force,
                                                     [](void* p) { --*static_cast<int*>(p); });
                      }};
  const Contender other{"other", [&] {
                          held_by_other = held_by_other || in_force != 0;
                          sleeping(12)();
                        }};
  time_in_turns({one, other}, {.seconds = 0.03});
  EXPECT_TRUE(held_by_one);
  EXPECT_FALSE(held_by_other);
}

TEST(Turns, EndWithWhatIsThrownBetweenPasses) {
  int calls = 0;
  const auto stop = [&] {
    if (++calls == 3) throw Error("stopped as asked");
  };
  EXPECT_THAT(test::message_of([&] {
                time_in_turns({{"one", sleeping(1)}, {"other", sleeping(1)}},
                              {.seconds = 60, .between = stop});
              }),
              HasSubstr("stopped as asked"));
}

TEST(PeakMemory, CountsWhatWasHeldForAWhile) {
  const PeakMemory peak(c10::kCPU);
  if (!peak.bytes()) VIREO_SKIP("this system does not tell the peak of resident memory");
  { const std::vector<char> held(size_t{64} << 20, 1); }
  EXPECT_NEAR(static_cast<double>(*peak.bytes()) / (1 << 20), 64, 4);
  const PeakMemory later(c10::kCPU);
  EXPECT_LT(*later.bytes(), 4 << 20);
}

}  // namespace
}  // namespace vireo
