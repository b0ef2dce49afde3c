#pragma once

#include <cstdint>

// The CPU's weight gradient of a depthwise convolution, compiled once per instruction set.
namespace vireo::depthwise_rows {

/// x is [B, height, width, channels], gy [B, out_height, out_width, channels], both contiguous.
struct Job {
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
  /// sums [kernel*kernel, channels]: what the output rows [first, last), counted over the whole
  /// batch, give the channels of this block. Overwrites these.
  void (*weight_gradient)(const Job&,
                          const float* x,
                          const float* gy,
                          float* sums,
                          int64_t first,
                          int64_t last,
                          int64_t block);
};

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::depthwise_rows
