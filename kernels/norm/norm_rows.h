#pragma once

#include <cstdint>

#include "kernels/cpu_table.h"

// The CPU's loops for norm.h, compiled once per instruction set. S is float, or double for double
// storage.
namespace vireo::norm_rows {

/// Tokens, [rows, channels], everything contiguous.
struct Job {
  int64_t channels;
  double eps;
  const void* r;       ///< null: no gate
  const void* y;       ///< what is normalised or gated
  const void* weight;  ///< S[channels]; null: nothing is normalised
  const void* bias;    ///< S[channels]
  void* out;           ///< forward
  const void* gout;    ///< backward, and below
  void* gr;
  void* gy;
};

/// Pixels of maps [images, channels, pixels], everything contiguous.
struct Maps {
  int64_t channels;
  int64_t pixels;
  double eps;
  const void* x;
  const void* weight;  ///< S[channels]
  const void* bias;    ///< S[channels]
  void* out;           ///< forward
  const void* gout;    ///< backward
  void* gx;
};

/// Pixels that one call takes in.
constexpr int kTile = 64;

/// One set per storage type.
struct Functions {
  /// Rows [begin, end).
  void (*forward)(const Job&, int64_t begin, int64_t end);
  /// Adds to sums S[2][channels] what these rows add to the gradients of weight and bias; scratch:
  /// S[channels].
  void (*backward)(const Job&, int64_t begin, int64_t end, void* sums, void* scratch);
  /// Up to kTile pixels from `first` on; scratch: S[channels kTile].
  void (*map_forward)(const Maps&, int64_t image, int64_t first, void* scratch);
  /// As `backward`; scratch: S[2 channels kTile].
  void (*map_backward)(const Maps&, int64_t image, int64_t first, void* sums, void* scratch);
};

using Table = ByStorage<Functions>;

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::norm_rows
