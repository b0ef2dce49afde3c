#include "vision/core/interrupt.h"

#include <chrono>
#include <csignal>
#include <thread>

#include <gtest/gtest.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

TEST(Interrupt, IsSeenUntilTheOutermostGuardIsSetAnew) {
  {
    const InterruptGuard guard;
    EXPECT_FALSE(interrupted());
    EXPECT_NO_THROW(throw_if_interrupted("go on"));
    std::raise(SIGINT);
    const InterruptGuard inner;
    EXPECT_TRUE(interrupted());
    EXPECT_THROW(throw_if_interrupted("go on"), Interrupted);
  }
  const InterruptGuard guard;
  EXPECT_FALSE(interrupted());
}

// A process that timeout(1) ends gets the signal twice.
TEST(Interrupt, TakesSignalsThatComeTogetherAsOne) {
  const InterruptGuard guard;
  for (int i = 0; i < 3; ++i) std::raise(SIGTERM);
  EXPECT_TRUE(interrupted());
}

TEST(Interrupt, EndsTheProcessWhenAskedOnceMore) {
  EXPECT_EXIT(
      {
        const InterruptGuard guard;
        std::raise(SIGINT);
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        std::raise(SIGINT);
      },
      ::testing::ExitedWithCode(128 + SIGINT),
      "once more stops at once");
}

}  // namespace
}  // namespace vireo
