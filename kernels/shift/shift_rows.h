#pragma once

#include <cstdint>

#include "kernels/cpu_table.h"

// The CPU's fused shift and mix over some tokens of one image, compiled once per instruction set.
namespace vireo::shift_rows {

/// Channels [begin, end) read their value `offset` elements away, where `valid` says so.
struct Segment {
  int64_t begin;
  int64_t end;
  int64_t dx;
  int64_t dy;
};

/// Everything contiguous; strides in elements are the number of channels.
struct Job {
  int64_t height;
  int64_t width;
  int64_t channels;
  const Segment* segments;
  int64_t segment_count;
  int mixes;
  const void* mix;  ///< [mixes, channels], float or double
};

/// One set of functions per storage type. Pointers are at the image's first token.
struct Functions {
  /// out[m] = x mix + shifted (1 - mix), tokens [begin, end).
  void (*forward)(const Job&, const void* x, void* const* out, int64_t begin, int64_t end);
  /// gx, and sums[m][c] = sum over these tokens of gy[m] (x - shifted), in float or double.
  void (*backward)(const Job&,
                   const void* x,
                   const void* const* gy,
                   void* gx,
                   void* sums,
                   int64_t begin,
                   int64_t end);
};

using Table = ByStorage<Functions>;

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::shift_rows
