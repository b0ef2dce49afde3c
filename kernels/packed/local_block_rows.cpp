#include "kernels/packed/local_block_rows.h"

#include "kernels/packed/finish_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
namespace vireo::local_block_rows {
namespace {

using linear_rows::Finish;
using V = Vector<float>;

constexpr int64_t kLanes = Simd<float>::kLanes;
// Outputs side by side that share the inputs and the taps they read.
constexpr int kColumns = 8;

/// kCount outputs of one vector of channels from column x on; kKernel 0: any.
template <int kKernel, int kStride, int kCount>
inline void sum_up(const Job& job, int64_t channel, int64_t x, V (&sums)[kCount]) {
  const int kernel = kKernel > 0 ? kKernel : job.kernel;
  const int64_t channels = job.channels;
  const V bias = load(job.bias + channel);
  for (int i = 0; i < kCount; ++i) sums[i] = bias;
  for (int row = 0; row < kernel; ++row) {
    if (!job.in[row]) continue;
    const float* in = job.in[row] + x * kStride * channels + channel;
    const float* weight = job.weight + row * kernel * channels + channel;
    if constexpr (kKernel > 0) {
#pragma GCC unroll 9
      for (int tap = 0; tap < kKernel; ++tap) {
        const V w = load(weight + tap * channels);
#pragma GCC unroll 8
        for (int i = 0; i < kCount; ++i) sums[i] += w * load(in + (i * kStride + tap) * channels);
      }
    } else {
      for (int tap = 0; tap < kernel; ++tap) {
        const V w = load(weight + tap * channels);
#pragma GCC unroll 8
        for (int i = 0; i < kCount; ++i) sums[i] += w * load(in + (i * kStride + tap) * channels);
      }
    }
  }
}

template <class Y, int kCount>
inline void put_out(const Job& job, int64_t channel, int64_t x, const V (&sums)[kCount]) {
  for (int i = 0; i < kCount; ++i) {
    const int64_t at = (x + i) * job.channels + channel;
    V y = sums[i];
    if (job.finish == Finish::kSilu) y = finished<Finish::kSilu>(y);
    if (job.finish == Finish::kRelu) y = finished<Finish::kRelu>(y);
    if (job.skipped) y = y + load(job.skipped + at);
    store(static_cast<Y*>(job.out) + at, y);
  }
}

template <class Y, int kKernel, int kStride>
void depthwise_as(const Job& job) {
  for (int64_t channel = 0; channel < job.channels; channel += kLanes) {
    int64_t x = 0;
    for (; x + kColumns <= job.width; x += kColumns) {
      V sums[kColumns];
      sum_up<kKernel, kStride>(job, channel, x, sums);
      put_out<Y>(job, channel, x, sums);
    }
    for (; x < job.width; ++x) {
      V sums[1];
      sum_up<kKernel, kStride>(job, channel, x, sums);
      put_out<Y>(job, channel, x, sums);
    }
  }
}

template <class Y, int kStride>
void of_kernel(const Job& job) {
  switch (job.kernel) {
    case 3:
      return depthwise_as<Y, 3, kStride>(job);
    case 5:
      return depthwise_as<Y, 5, kStride>(job);
    case 7:
      return depthwise_as<Y, 7, kStride>(job);
    case 9:
      return depthwise_as<Y, 9, kStride>(job);
    default:
      return depthwise_as<Y, 0, kStride>(job);
  }
}

void depthwise(const Job& job) {
  if (job.out_bf16) {
    if (job.stride == 1) return of_kernel<Bf16, 1>(job);
    return of_kernel<Bf16, 2>(job);
  }
  if (job.stride == 1) return of_kernel<float, 1>(job);
  of_kernel<float, 2>(job);
}

template <class X>
void widen_as(const X* from, int64_t pixels, int64_t channels, float* to, int64_t stride) {
  for (int64_t i = 0; i < pixels; ++i)
#pragma GCC ivdep
    for (int64_t c = 0; c < channels; ++c)
      to[i * stride + c] = load_as_float(from[i * channels + c]);
}

void widen(
    const void* from, bool bf16, int64_t pixels, int64_t channels, float* to, int64_t stride) {
  if (bf16) return widen_as(static_cast<const Bf16*>(from), pixels, channels, to, stride);
  widen_as(static_cast<const float*>(from), pixels, channels, to, stride);
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{depthwise, widen};
  return table;
}

}  // namespace vireo::local_block_rows
