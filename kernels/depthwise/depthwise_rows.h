#pragma once

#include <cstdint>

// The CPU's depthwise convolution of channels-last maps and its weight gradient, compiled once per
// instruction set.
namespace vireo::depthwise_rows {

/// x and gy in a storage type; sums are float32.
struct Job {
  const void* x;   ///< [B, height, width, channels], contiguous
  const void* gy;  ///< [B, out_height, out_width, channels], contiguous
  int64_t height;
  int64_t width;
  int64_t out_height;
  int64_t out_width;
  int64_t channels;
  int64_t padding;
  int kernel;  ///< 3, 5, 7 or 9
  int stride;  ///< 1 or 2
};

/// What one call sums: the output rows [first, last), counted over the whole batch, for one block
/// of channels.
struct Part {
  int64_t first;
  int64_t last;
  int64_t block;
  float* sums;  ///< [kernel*kernel, channels], of which the block's channels are overwritten
};

/// x and y in a storage type; sums are float32.
struct Forward {
  const void* x;        ///< [B, height, width, channels], contiguous
  const float* weight;  ///< [kernel*kernel, channels]
  const float* bias;    ///< [channels], or null
  void* y;              ///< [B, out_height, out_width, channels], contiguous
  int64_t height;
  int64_t width;
  int64_t out_height;
  int64_t out_width;
  int64_t channels;
  int64_t padding;
  int kernel;  ///< 3, 5, 7 or 9
  int stride;  ///< 1 or 2
};

struct Table {
  /// Channels in a block.
  int64_t lanes;
  void (*weight_gradient_f32)(const Job&, const Part&);
  void (*weight_gradient_bf16)(const Job&, const Part&);
  /// The output rows [first, last), counted over the whole batch.
  void (*forward_f32)(const Forward&, int64_t first, int64_t last);
  void (*forward_bf16)(const Forward&, int64_t first, int64_t last);
};

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::depthwise_rows
