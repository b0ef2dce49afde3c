#include "datasets/batches.h"

#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

namespace vireo {

struct BatchLoader::State {
  struct Made {
    Batch batch;
    std::exception_ptr error;
  };

  std::function<Batch(int64_t)> make;
  int64_t end = 0, ahead = 1;
  double seconds_waited = 0;

  std::mutex mutex;
  std::condition_variable changed;
  int64_t wanted = 0;   // the trainer's next batch
  int64_t started = 0;  // the next one that a thread may take
  bool stopping = false;
  std::map<int64_t, Made> made;
  std::vector<std::thread> threads;

  void work() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return stopping || started >= end || started < wanted + ahead; });
      if (stopping || started >= end) return;
      const int64_t index = started++;
      lock.unlock();
      Made result;
      try {
        result.batch = make(index);
      } catch (...) {
        result.error = std::current_exception();
      }
      lock.lock();
      made.emplace(index, std::move(result));
      changed.notify_all();
    }
  }
};

BatchLoader::BatchLoader(
    std::function<Batch(int64_t)> make, int64_t first, int64_t end, int64_t threads, int64_t ahead)
    : state_(std::make_unique<State>()) {
  TORCH_CHECK(ahead >= 1, "BatchLoader: ahead must be at least 1");
  state_->make = std::move(make);
  state_->end = end;
  state_->ahead = ahead;
  state_->wanted = state_->started = first;
  for (int64_t i = 0; i < threads; ++i)
    state_->threads.emplace_back([state = state_.get()] {
      at::NoGradGuard no_grad;
      state->work();
    });
}

BatchLoader::~BatchLoader() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->changed.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

Batch BatchLoader::next() {
  State& state = *state_;
  const auto start = std::chrono::steady_clock::now();
  TORCH_CHECK(state.wanted < state.end, "BatchLoader: no batch is left");
  State::Made result;
  if (state.threads.empty()) {
    at::NoGradGuard no_grad;
    result.batch = state.make(state.wanted++);
  } else {
    std::unique_lock lock(state.mutex);
    state.changed.wait(lock, [&] { return state.made.count(state.wanted) > 0; });
    auto node = state.made.extract(state.wanted++);
    result = std::move(node.mapped());
    state.changed.notify_all();
  }
  state.seconds_waited +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (result.error) std::rethrow_exception(result.error);
  return std::move(result.batch);
}

double BatchLoader::seconds_waited() const {
  return state_->seconds_waited;
}

}  // namespace vireo
