#pragma once

#include <cstdint>
#include <functional>

namespace vireo {

/// Runs task(0), ..., task(count - 1), each once, on `workers` threads (0: all cores), in about
/// this order. Inside a task LibTorch uses one thread, so that results do not depend on `workers`.
/// The first exception stops the rest and is rethrown; so is a wish to stop (see interrupt.h): it
/// becomes Interrupted, saying `what_now`, once the running tasks have ended.
void run_parallel(int64_t count,
                  int64_t workers,
                  const std::function<void(int64_t)>& task,
                  const char* what_now = "run the same command again to continue");

}  // namespace vireo
