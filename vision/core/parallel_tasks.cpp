#include "vision/core/parallel_tasks.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>

#include "vision/core/interrupt.h"

namespace vireo {

void run_parallel(int64_t count,
                  int64_t workers,
                  const std::function<void(int64_t)>& task,
                  const char* what_now) {
  if (workers <= 0) workers = std::max(1U, std::thread::hardware_concurrency());
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex error_mutex;

  const auto work = [&] {
    at::set_num_threads(1);  // of this thread's
    for (int64_t i = next++; i < count && !failed && !interrupted(); i = next++) {
      try {
        task(i);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  };
  const int threads_before = at::get_num_threads();
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < std::min(workers, count); ++i) threads.emplace_back(work);
  for (auto& thread : threads) thread.join();
  at::set_num_threads(threads_before);  // the number for threads to come is the process's
  if (error) std::rethrow_exception(error);
  throw_if_interrupted(what_now);
}

}  // namespace vireo
