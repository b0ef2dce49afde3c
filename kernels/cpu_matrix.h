#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu_simd.h"

// Small matrix products and transposes in vectors, for the CPU loops that are compiled once per
// instruction set. Internal linkage, for the reason in cpu_scalars.h.
namespace {

// ---- Small matrix products ----

/// What becomes of the product's target c first.
enum class Before {
  kKeep,
  kClear,  ///< c = 0
  kGrow,   ///< c[i][j] grows by growth[i] c[i][j]
};

/// c[i][j] += sum_l a(i,l) b[l][j] for kRows rows and kVectors vectors; a(i,l) = a[i a_row + l
/// a_column].
template <Before kBefore, class S, int kRows, int kVectors>
inline void tile(const S* growth,
                 int inner,
                 const S* a,
                 int64_t a_row,
                 int64_t a_column,
                 const S* b,
                 int64_t b_row,
                 S* c,
                 int64_t c_row) {
  constexpr int kLanes = Simd<S>::kLanes;
  Vector<S> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j)
      sum[i][j] = kBefore == Before::kClear ? Vector<S>{} : load(c + i * c_row + j * kLanes);
  if constexpr (kBefore == Before::kGrow) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] += sum[i][j] * splat<S>(growth[i]);
  }
  for (int l = 0; l < inner; ++l) {
    Vector<S> row[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) row[j] = load(b + l * b_row + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vector<S> factor = splat<S>(a[i * a_row + l * a_column]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] += factor * row[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) store(c + i * c_row + j * kLanes, sum[i][j]);
}

struct Nothing {
  void operator()(int, int) const {}
};

/// The same for any rows and columns that are multiples of 16. Calls meanwhile(i, j) once before
/// rows [i, j) of the product.
template <Before kBefore = Before::kKeep, class S, class Meanwhile = Nothing>
void multiply_add(int rows,
                  int inner,
                  int columns,
                  const S* a,
                  int64_t a_row,
                  int64_t a_column,
                  const S* b,
                  int64_t b_row,
                  S* c,
                  int64_t c_row,
                  const S* growth = nullptr,
                  const Meanwhile& meanwhile = {}) {
  constexpr int kLanes = Simd<S>::kLanes;
  constexpr int kWide = kVectorBytes == 64 ? 4 : 2;
  const auto from = [&](int i) { return kBefore == Before::kGrow ? growth + i : nullptr; };
  int column = 0;
  for (; column + kWide * kLanes <= columns; column += kWide * kLanes)
    for (int i = 0; i < rows; i += 4) {
      if (column == 0) meanwhile(i, i + 4);
      tile<kBefore, S, 4, kWide>(from(i),
                                 inner,
                                 a + i * a_row,
                                 a_row,
                                 a_column,
                                 b + column,
                                 b_row,
                                 c + i * c_row + column,
                                 c_row);
    }
  for (; column < columns; column += kLanes)
    for (int i = 0; i < rows; i += 8) {
      if (column == 0) meanwhile(i, i + 8);
      tile<kBefore, S, 8, 1>(from(i),
                             inner,
                             a + i * a_row,
                             a_row,
                             a_column,
                             b + column,
                             b_row,
                             c + i * c_row + column,
                             c_row);
    }
}

// ---- Vectors across ----

template <class S>
using LanesOf = std::make_integer_sequence<int, Simd<S>::kLanes>;

/// Lane l takes the first argument's lane l, or, where l has the bit kHalf, the second's lane l -
/// kHalf.
template <class S, int kHalf, int... l>
inline Vector<S> lower_halves(Vector<S> a, Vector<S> b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, (l & kHalf ? Simd<S>::kLanes + l - kHalf : l)...);
}
template <class S, int kHalf>
inline Vector<S> lower_halves(Vector<S> a, Vector<S> b) {
  return lower_halves<S, kHalf>(a, b, LanesOf<S>{});
}
/// Lane l takes the first argument's lane l + kHalf, or, where l has the bit kHalf, the second's
/// lane l.
template <class S, int kHalf, int... l>
inline Vector<S> upper_halves(Vector<S> a, Vector<S> b, std::integer_sequence<int, l...>) {
  return __builtin_shufflevector(a, b, (l & kHalf ? Simd<S>::kLanes + l : l + kHalf)...);
}
template <class S, int kHalf>
inline Vector<S> upper_halves(Vector<S> a, Vector<S> b) {
  return upper_halves<S, kHalf>(a, b, LanesOf<S>{});
}

/// The sums of kLanes vectors, each in the lane of its number; overwrites them.
template <class S, int kHalf = Simd<S>::kLanes / 2>
inline Vector<S> sums_of(Vector<S>* x) {
#pragma GCC unroll 8
  for (int i = 0; i < kHalf; ++i)
    x[i] = lower_halves<S, kHalf>(x[i], x[i + kHalf]) + upper_halves<S, kHalf>(x[i], x[i + kHalf]);
  if constexpr (kHalf > 1) return sums_of<S, kHalf / 2>(x);
  return x[0];
}

/// Transposes kLanes vectors.
template <class S, int kHalf = Simd<S>::kLanes / 2>
inline void transpose(Vector<S>* x) {
#pragma GCC unroll 16
  for (int i = 0; i < Simd<S>::kLanes; ++i) {
    if (i & kHalf) continue;
    const Vector<S> low = x[i], high = x[i + kHalf];
    x[i] = lower_halves<S, kHalf>(low, high);
    x[i + kHalf] = upper_halves<S, kHalf>(low, high);
  }
  if constexpr (kHalf > 1) transpose<S, kHalf / 2>(x);
}

template <class S>
inline void clear(S* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 0;
}

/// to[column][row] = from[row][column]; rows and columns are multiples of 16.
template <class S>
inline void transposed(const S* from, int rows, int columns, S* to) {
  constexpr int kLanes = Simd<S>::kLanes;
  for (int row = 0; row < rows; row += kLanes)
    for (int column = 0; column < columns; column += kLanes) {
      Vector<S> x[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) x[i] = load(from + (row + i) * columns + column);
      transpose<S>(x);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(to + (column + i) * rows + row, x[i]);
    }
}

}  // namespace
