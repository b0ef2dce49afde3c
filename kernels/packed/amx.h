#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu_scalars.h"

// Products of bfloat16 on Intel's tile unit (AMX-BF16): eight registers, called tiles, of up to 16
// rows of 64 bytes. One instruction adds the product of two of them, 16 rows of 32 bfloat16 and 16
// rows of 16 pairs of bfloat16, to a third of 16 rows of 16 floats. With VIREO_AMX_EMULATED the
// same is plain C++ for any processor. Internal linkage, for the reason in cpu_scalars.h.
namespace {
namespace amx {

constexpr int kRows = 16;        // of a tile, and floats in a row of sums
constexpr int64_t kInputs = 32;  // that one instruction sums over

constexpr int kPanelTiles = 3, kRowTiles = 2;  // sums: tiles 0 to 5, panel by panel
constexpr int kLeft = 6, kRight = 7;           // the factors

#if defined(VIREO_AMX_EMULATED)

struct Tile {
  unsigned char bytes[kRows][64];
};
thread_local Tile tiles[8];
thread_local int left_rows;

inline void configure(int rows) {
  if (rows < 1 || rows > kRows) __builtin_trap();
  left_rows = rows;
}
inline void release() {}

template <int kTile>
void zero() {
  tiles[kTile] = {};
}
template <int kTile>
void load(const void* from, int64_t stride_bytes) {
  const int rows = kTile == kRight ? kRows : left_rows;
  for (int i = 0; i < rows; ++i)
    __builtin_memcpy(tiles[kTile].bytes[i], static_cast<const char*>(from) + i * stride_bytes, 64);
}
template <int kTile>
void store(void* to, int64_t stride_bytes) {
  for (int i = 0; i < left_rows; ++i)
    __builtin_memcpy(static_cast<char*>(to) + i * stride_bytes, tiles[kTile].bytes[i], 64);
}
template <int kSum>
void multiply() {
  for (int i = 0; i < left_rows; ++i)
    for (int n = 0; n < kRows; ++n) {
      float sum, of[2] = {};
      for (int k = 0; k < kRows; ++k) {
        Bf16 a[2], b[2];
        __builtin_memcpy(a, tiles[kLeft].bytes[i] + 4 * k, sizeof(a));
        __builtin_memcpy(b, tiles[kRight].bytes[k] + 4 * n, sizeof(b));
        for (int e = 0; e < 2; ++e) of[e] += load_as_float(a[e]) * load_as_float(b[e]);
      }
      __builtin_memcpy(&sum, tiles[kSum].bytes[i] + 4 * n, sizeof(sum));
      sum += of[0] + of[1];
      __builtin_memcpy(tiles[kSum].bytes[i] + 4 * n, &sum, sizeof(sum));
    }
}

#else

/// Tiles of sums and the left factor get `rows` rows; the right one has 16.
inline void configure(int rows) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {};
  } layout;
  static_assert(sizeof(layout) == 64);
  for (int tile = 0; tile < 8; ++tile)
    layout.rows[tile] = static_cast<uint8_t>(tile == kRight ? kRows : rows);
  asm volatile("ldtilecfg %0" ::"m"(layout));
}
inline void release() {
  asm volatile("tilerelease");
}

template <int kTile>
void zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}
template <int kTile>
void load(const void* from, int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(kTile)
               : "memory");
}
template <int kTile>
void store(void* to, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(kTile)
               : "memory");
}
template <int kSum>
void multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight));
}

#endif

template <class Body, int... i>
void each(std::integer_sequence<int, i...>, const Body& body) {
  (body(std::integral_constant<int, i>{}), ...);
}
/// body(0), body(1), ... with numbers that are known to the compiler.
template <int kCount, class Body>
void each(const Body& body) {
  each(std::make_integer_sequence<int, kCount>{}, body);
}

/// Rounded up to what whole instructions sum over.
constexpr int64_t padded_inputs(int64_t inputs) {
  return (inputs + kInputs - 1) / kInputs * kInputs;
}
/// Where the step that sums inputs [32 s, 32 s + 32) reads: the last one ends with the inputs, so
/// that nothing behind them is read, and meets weights of zero where the one before it has been.
constexpr int64_t first_input(int64_t step, int64_t inputs) {
  const int64_t last = inputs > kInputs ? inputs - kInputs : 0;
  return step * kInputs < last ? step * kInputs : last;
}
/// Which input the weight at `position` of padded_inputs() belongs to; -1: none, it is zero.
constexpr int64_t input_at(int64_t position, int64_t inputs) {
  const int64_t step = position / kInputs;
  const int64_t input = first_input(step, inputs) + position % kInputs;
  return input >= step * kInputs && input < inputs ? input : -1;
}

/// sums [kBlocks * 16][kPanel * 16] of as many rows as are configured, from each of x on, in 16s;
/// `inputs` at least 32. The weights of a panel are [padded_inputs / 2][kPanel * 16][2].
template <int kPanel, int kBlocks>
void product(const Bf16* const (&x)[kBlocks],
             int64_t stride,
             const Bf16* weights,
             int64_t inputs,
             float* sums) {
  static_assert(kPanel <= kPanelTiles && kBlocks <= kRowTiles);
  constexpr int64_t kPanelBytes = kPanel * 64;
  each<kPanel>(
      [](auto j) { each<kBlocks>([](auto b) { zero<b * kPanelTiles + decltype(j)::value>(); }); });
  for (int64_t step = 0; step * kInputs < inputs; ++step, weights += kPanel * kRows * kInputs) {
    const int64_t first = first_input(step, inputs);
    each<kBlocks>([&](auto b) {
      load<kLeft>(x[b] + first, stride * 2);
      each<kPanel>([&](auto j) {
        load<kRight>(weights + j * 32, kPanelBytes);
        multiply<decltype(b)::value * kPanelTiles + j>();
      });
    });
  }
  each<kPanel>([&](auto j) {
    each<kBlocks>([&](auto b) {
      store<b * kPanelTiles + decltype(j)::value>(
          sums + (b * kRows * kPanel + decltype(j)::value) * 16, kPanelBytes);
    });
  });
}

}  // namespace amx
}  // namespace
