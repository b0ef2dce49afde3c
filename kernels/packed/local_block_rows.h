#pragma once

#include <cstdint>

#include "kernels/packed/linear_rows.h"

// One row of a depthwise convolution's outputs, compiled once per instruction set.
namespace vireo::local_block_rows {

struct Job {
  /// `kernel` input rows of float32 [padded width, channels], the row that output column 0 begins
  /// at first; null: a row of zeros.
  const float* const* in;
  const float* weight;   ///< [kernel, kernel, channels]
  const float* bias;     ///< [channels]
  const float* skipped;  ///< [width, channels], added after the finish, or null
  void* out;             ///< [width, channels]
  bool out_bf16;         ///< bfloat16 instead of float32
  int64_t width;         ///< of the output
  int64_t channels;      ///< a multiple of the table's lanes
  int kernel;
  int stride;
  linear_rows::Finish finish;
};

struct Table {
  void (*depthwise)(const Job& job);
  /// `pixels` rows of `channels` numbers to float32, `stride` apart.
  void (*widen)(
      const void* from, bool bf16, int64_t pixels, int64_t channels, float* to, int64_t stride);
};

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::local_block_rows
