#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "datasets/augmentation.h"
#include "datasets/batches.h"
#include "datasets/prepared_cache.h"
#include "datasets/sampler.h"

namespace vireo {

struct SliceBatchSettings {
  std::array<int64_t, 2> window_yx{0, 0};
  /// 2.5-D: slices on each side that come in as channels, in the order of their position (all
  /// channels of slice d - n first); beyond the ends the last slice repeats.
  int64_t neighbours = 0;
  int64_t batch_size = 0;
  double foreground_fraction = 0.33;
  uint64_t seed = 0;
};

/// Training batches of slices. Thread-safe; every batch is a function of the settings and its
/// index.
class SliceBatches {
 public:
  SliceBatches(std::vector<CachedCase> cases,
               const SliceBatchSettings& settings,
               const Augmentation& augmentation);
  SliceBatches(const SliceBatches&) = delete;
  SliceBatches& operator=(const SliceBatches&) = delete;

  /// image float32 [batch_size, C * (2n + 1), window], target uint8 [batch_size, window].
  Batch make(int64_t index) const;
  /// Slices of all cases: one pass over the data set.
  int64_t slice_count() const { return sampler_.slice_count(); }

 private:
  std::vector<CachedCase> cases_;
  SliceBatchSettings settings_;
  Augmentation augmentation_;
  SliceSampler sampler_;
};

/// Every pixel of chosen slices exactly once, without augmentation: windows side by side, the last
/// of a row or column pushed back inside with its repeated pixels ignored.
class SliceTiles {
 public:
  /// `slices_per_case` 0: all; otherwise that many, evenly spread.
  SliceTiles(std::vector<CachedCase> cases,
             const SliceBatchSettings& settings,
             int64_t slices_per_case);

  int64_t batch_count() const;
  /// The last batch may be smaller.
  Batch make(int64_t index) const;

 private:
  struct Tile {
    SliceChoice place;
    int64_t repeated_rows, repeated_columns;  ///< its first ones, which other tiles hold
  };
  std::vector<CachedCase> cases_;
  SliceBatchSettings settings_;
  std::vector<Tile> tiles_;
};

}  // namespace vireo
