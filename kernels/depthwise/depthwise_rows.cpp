#include "kernels/depthwise/depthwise_rows.h"

#include "kernels/cpu_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
namespace vireo::depthwise_rows {
namespace {

constexpr int64_t kLanes = Simd<float>::kLanes;
// Rows whose pixels stay in the first-level cache while every row of taps passes over them.
constexpr int64_t kRows = 8;
// Output pixels that share the inputs they read.
constexpr int kColumns = 4;

using V = Vector<float>;

/// Reads `count` channels: all lanes where kAll says so.
template <bool kAll>
struct Lanes {
  int count;
  template <class T>
  V get(const T* from) const {
    if constexpr (kAll) return load(from);
    return load_some<float>(from, count);
  }
  template <class T>
  void put(T* to, V x) const {
    if constexpr (kAll)
      store(to, x);
    else
      store_some<float>(to, x, count);
  }
};

/// One row of taps over one output row. `in` is the input row that these taps read.
template <int kKernel, int kStride, bool kAll, class T>
inline void add_row(
    const Job& job, Lanes<kAll> lanes, const T* in, const T* gy, V (&sums)[kKernel]) {
  const int64_t channels = job.channels, pad = job.padding;
  const auto at_border = [&](int64_t x) {
    const V g = lanes.get(gy + x * channels);
    for (int tap = 0; tap < kKernel; ++tap) {
      const int64_t from = x * kStride + tap - pad;
      if (from >= 0 && from < job.width) sums[tap] += g * lanes.get(in + from * channels);
    }
  };
  // Output columns whose taps all lie inside.
  const int64_t room = job.width - kKernel + pad;
  int64_t begin = (pad + kStride - 1) / kStride, end = room < 0 ? 0 : room / kStride + 1;
  begin = begin < job.out_width ? begin : job.out_width;
  end = end < job.out_width ? end : job.out_width;
  end = end < begin ? begin : end;

  for (int64_t x = 0; x < begin; ++x) at_border(x);
  int64_t x = begin;
  if constexpr (kStride == 1) {
    for (; x + kColumns <= end; x += kColumns) {
      V g[kColumns];
#pragma GCC unroll 4
      for (int i = 0; i < kColumns; ++i) g[i] = lanes.get(gy + (x + i) * channels);
      const T* from = in + (x - pad) * channels;
#pragma GCC unroll 12
      for (int j = 0; j < kKernel + kColumns - 1; ++j) {
        const V value = lanes.get(from + j * channels);
#pragma GCC unroll 4
        for (int i = 0; i < kColumns; ++i)
          if (j >= i && j - i < kKernel) sums[j - i] += g[i] * value;
      }
    }
  }
  for (; x < end; ++x) {
    const V g = lanes.get(gy + x * channels);
    const T* from = in + (x * kStride - pad) * channels;
#pragma GCC unroll 9
    for (int tap = 0; tap < kKernel; ++tap) sums[tap] += g * lanes.get(from + tap * channels);
  }
  for (; x < job.out_width; ++x) at_border(x);
}

/// All taps over the part's rows, for the channels from `channel` on.
template <class T, int kKernel, int kStride, bool kAll>
void add_rows(const Job& job,
              const Part& part,
              Lanes<kAll> lanes,
              int64_t channel,
              V (&sums)[kKernel][kKernel]) {
  const int64_t channels = job.channels;
  const T *x = static_cast<const T*>(job.x) + channel,
          *gy = static_cast<const T*>(job.gy) + channel;
  for (int64_t first = part.first; first < part.last; first += kRows) {
    const int64_t stop = first + kRows < part.last ? first + kRows : part.last;
    for (int row_of_taps = 0; row_of_taps < kKernel; ++row_of_taps) {
      V added[kKernel];
      for (int tap = 0; tap < kKernel; ++tap) added[tap] = sums[row_of_taps][tap];
      for (int64_t row = first; row < stop; ++row) {
        const int64_t image = row / job.out_height, y = row % job.out_height;
        const int64_t from = y * kStride + row_of_taps - job.padding;
        if (from < 0 || from >= job.height) continue;
        add_row<kKernel, kStride, kAll>(job,
                                        lanes,
                                        x + (image * job.height + from) * job.width * channels,
                                        gy + row * job.out_width * channels,
                                        added);
      }
      for (int tap = 0; tap < kKernel; ++tap) sums[row_of_taps][tap] = added[tap];
    }
  }
}

template <class T, int kKernel, int kStride>
void of_lanes(const Job& job, const Part& part) {
  // The last block reads all lanes too where it can, and keeps what is its own.
  const int64_t begin = part.block * kLanes, left = job.channels - begin;
  const int64_t own = left < kLanes ? left : kLanes;
  const int64_t read = left < kLanes && job.channels >= kLanes ? job.channels - kLanes : begin;
  V sums[kKernel][kKernel] = {};
  if (job.channels >= kLanes)
    add_rows<T, kKernel, kStride>(job, part, Lanes<true>{}, read, sums);
  else
    add_rows<T, kKernel, kStride>(job, part, Lanes<false>{static_cast<int>(own)}, 0, sums);
  for (int tap = 0; tap < kKernel * kKernel; ++tap) {
    const V sum = sums[tap / kKernel][tap % kKernel];
    float* out = part.sums + tap * job.channels + begin;
    for (int64_t c = 0; c < own; ++c) out[c] = sum[begin - read + c];
  }
}

template <class T, int kKernel>
void of_stride(const Job& job, const Part& part) {
  if (job.stride == 1)
    of_lanes<T, kKernel, 1>(job, part);
  else
    of_lanes<T, kKernel, 2>(job, part);
}

template <class T>
void weight_gradient(const Job& job, const Part& part) {
  switch (job.kernel) {
    case 3:
      return of_stride<T, 3>(job, part);
    case 5:
      return of_stride<T, 5>(job, part);
    case 7:
      return of_stride<T, 7>(job, part);
    default:
      return of_stride<T, 9>(job, part);
  }
}

// ---- Forward ----

// Output pixels of a row that are summed together, in registers.
constexpr int kTile = 8;

/// One row of taps over the tile whose first tap reads input column `from`; kInside: no tap reads
/// beyond the border.
template <int kKernel, int kStride, bool kInside, class T, class L>
inline void add_taps(
    const Forward& job, L lanes, const T* in, const float* weight, int64_t from, V (&sums)[kTile]) {
  V taps[kKernel];
#pragma GCC unroll 9
  for (int tap = 0; tap < kKernel; ++tap) taps[tap] = lanes.get(weight + tap * job.channels);
#pragma GCC unroll 24
  for (int j = 0; j < (kTile - 1) * kStride + kKernel; ++j) {
    if (!kInside && (from + j < 0 || from + j >= job.width)) continue;
    const V value = lanes.get(in + (from + j) * job.channels);
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i)
      if (j >= i * kStride && j - i * kStride < kKernel) sums[i] += taps[j - i * kStride] * value;
  }
}

/// One output row, for the channels from `channel` on.
template <int kKernel, int kStride, class T, class L>
inline void forward_row(const Forward& job, L lanes, int64_t row, int64_t channel) {
  const int64_t channels = job.channels, image = row / job.out_height;
  const int64_t top = row % job.out_height * kStride - job.padding;
  const T* in = static_cast<const T*>(job.x) + image * job.height * job.width * channels + channel;
  T* out = static_cast<T*>(job.y) + row * job.out_width * channels + channel;
  const float* weight = job.weight + channel;
  const V start = job.bias != nullptr ? lanes.get(job.bias + channel) : V{};
  constexpr int kSpan = (kTile - 1) * kStride + kKernel;
  for (int64_t x = 0; x < job.out_width; x += kTile) {
    V sums[kTile];
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i) sums[i] = start;
    const int64_t from = x * kStride - job.padding;
    const bool inside = from >= 0 && from + kSpan <= job.width;
    for (int tap = 0; tap < kKernel; ++tap) {
      if (top + tap < 0 || top + tap >= job.height) continue;
      const T* at = in + (top + tap) * job.width * channels;
      const float* taps = weight + tap * kKernel * channels;
      if (inside)
        add_taps<kKernel, kStride, true>(job, lanes, at, taps, from, sums);
      else
        add_taps<kKernel, kStride, false>(job, lanes, at, taps, from, sums);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kTile; ++i)
      if (x + i < job.out_width) lanes.put(out + (x + i) * channels, sums[i]);
  }
}

template <class T, int kKernel, int kStride>
void forward_rows(const Forward& job, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; ++row) {
    if (job.channels < kLanes) {
      forward_row<kKernel, kStride, T>(job, Lanes<false>{static_cast<int>(job.channels)}, row, 0);
      continue;
    }
    // The last block ends with the last channel, and repeats some of the block before it.
    for (int64_t channel = 0; channel < job.channels; channel += kLanes)
      forward_row<kKernel, kStride, T>(
          job,
          Lanes<true>{},
          row,
          channel + kLanes <= job.channels ? channel : job.channels - kLanes);
  }
}

template <class T, int kKernel>
void forward_of_stride(const Forward& job, int64_t first, int64_t last) {
  if (job.stride == 1)
    forward_rows<T, kKernel, 1>(job, first, last);
  else
    forward_rows<T, kKernel, 2>(job, first, last);
}

template <class T>
void forward(const Forward& job, int64_t first, int64_t last) {
  switch (job.kernel) {
    case 3:
      return forward_of_stride<T, 3>(job, first, last);
    case 5:
      return forward_of_stride<T, 5>(job, first, last);
    case 7:
      return forward_of_stride<T, 7>(job, first, last);
    default:
      return forward_of_stride<T, 9>(job, first, last);
  }
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{
      kLanes, weight_gradient<float>, weight_gradient<Bf16>, forward<float>, forward<Bf16>};
  return table;
}

}  // namespace vireo::depthwise_rows
