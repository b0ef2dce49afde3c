#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "datasets/prepared_cache.h"
#include "datasets/random.h"

namespace vireo {

/// A window in a slice of a case.
struct SliceChoice {
  size_t case_index = 0;
  int64_t slice = 0;
  int64_t top = 0, left = 0;  ///< see SliceWindow
};

/// Draws training windows. A share `foreground_fraction` of the samples takes a foreground class
/// (each equally often), then one of its slices, with a pixel of that class in the window's middle
/// half; the others walk through all slices in a shuffled order, each once before any comes again.
/// Where a slice exceeds the window the place is drawn; where it is smaller it lies in the middle.
class SliceSampler {
 public:
  /// `cases` must outlive the sampler. Throws Error when they hold no slice.
  SliceSampler(const std::vector<CachedCase>& cases,
               std::array<int64_t, 2> window_yx,
               double foreground_fraction,
               uint64_t seed);

  int64_t slice_count() const { return static_cast<int64_t>(slices_.size()); }
  /// A function of the seed and `sample` (counted over the whole run) alone; `random` is the
  /// sample's own stream.
  SliceChoice choose(int64_t sample, Random& random) const;

 private:
  struct Slice {
    uint32_t case_index, slice;
  };
  Slice in_shuffled_order(int64_t position) const;
  std::array<int64_t, 2> size_of(const Slice& slice) const;
  bool look_for(uint8_t label, const Slice& slice, Random& random, SliceChoice& choice) const;

  const std::vector<CachedCase>& cases_;
  std::array<int64_t, 2> window_yx_;
  double foreground_fraction_;
  uint64_t seed_;
  std::vector<Slice> slices_;
  std::vector<std::vector<Slice>> slices_of_class_;  ///< classes that occur
  std::vector<uint8_t> labels_;                      ///< of these
};

/// Start of a window of length `window` around position `at`, inside [0, size) where that is
/// possible, else such that the slice lies in the window's middle.
int64_t window_start(int64_t size, int64_t window, int64_t at);

}  // namespace vireo
