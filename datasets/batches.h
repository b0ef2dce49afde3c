#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

namespace vireo {

/// What one step works on. `target` is what the task makes of it.
struct Batch {
  at::Tensor image;  ///< float32 [B, C, H, W]
  /// segmentation: uint8 [B, H, W], 255 = ignored; classification: float32 [B, K], probabilities
  at::Tensor target;
};

/// Makes batches ahead of the trainer, in threads. `make(i)` must be a function of i alone and safe
/// to call from several threads at once; the batches come out in order whatever the number of
/// threads.
class BatchLoader {
 public:
  /// Batches first..end-1. `threads` 0: next() makes them itself. At most `ahead` (>= 1) batches
  /// are made or waiting at any time.
  BatchLoader(std::function<Batch(int64_t)> make,
              int64_t first,
              int64_t end,
              int64_t threads,
              int64_t ahead);
  /// Stops the threads, whatever is left, and waits for them.
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;
  BatchLoader& operator=(const BatchLoader&) = delete;

  /// The next batch. Rethrows what `make` threw for it. Must not be called more than end - first
  /// times.
  Batch next();
  /// Time that next() has spent waiting (or making batches, without threads).
  double seconds_waited() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vireo
