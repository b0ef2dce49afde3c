#pragma once

#include <cstdint>

#include "kernels/wkv6/wkv6_math.h"

#if defined(__CUDACC__)
#define VIREO_WKV6_UNROLL _Pragma("unroll")
#else
#define VIREO_WKV6_UNROLL
#endif

// Tiles of 16 x 16 numbers over the 32 lanes of a warp, as the tensor cores' m16n8k16 takes and
// leaves them: eight numbers a lane, in one order for both factors and for the sums, so that sums
// become factors where they are.
//
// The code is written for a Warp, which says whose registers it holds: one lane's on a GPU
// (kHeld = 1), all 32 lanes' in a test on a CPU (kHeld = 32). A Warp has
//   lane(h)                            which lane the h-th of the held ones is
//   mma(sums, s, a, b, low, high)      adds to the numbers s to s + 3 of every lane (16 x 8) the
//                                      product of a (16 x 16) and b's registers low, high (16 x 8)
//   transpose(from, i, to, j)          to's register j: the transpose of from's i (8 x 8)
//   exchange(numbers, mask)            the numbers of lane ^ mask
namespace vireo::wkv6_math {

constexpr int kTile = 16;
constexpr int kLanes = 32;
constexpr int kOfLane = kTile * kTile / kLanes;

VIREO_WKV6_ANYWHERE int row_of(int lane, int e) {
  return lane / 4 + e / 2 % 2 * 8;
}
VIREO_WKV6_ANYWHERE int column_of(int lane, int e) {
  return lane % 4 * 2 + e % 2 + e / 4 * 8;
}

template <class Warp>
struct Numbers {
  float x[Warp::kHeld][kOfLane];
};

/// Pairs of neighbours in bfloat16, the left one in the lower half.
template <class Warp>
struct Bits {
  uint32_t x[Warp::kHeld][kOfLane / 2];
};

/// A factor, as the sum of kParts tiles in bfloat16: 8 bits of precision each.
template <class Warp, int kParts>
struct Factor {
  Bits<Warp> part[kParts];
};

/// body(h, e, row, column) for every number held.
template <class Warp, class Body>
VIREO_WKV6_ANYWHERE void each_number(const Warp& warp, const Body& body) {
  for (int h = 0; h < Warp::kHeld; ++h) {
    const int lane = warp.lane(h);
    VIREO_WKV6_UNROLL
    for (int e = 0; e < kOfLane; ++e) body(h, e, row_of(lane, e), column_of(lane, e));
  }
}

/// value(h, e, row, column) for every number.
template <class Warp, class Value>
VIREO_WKV6_ANYWHERE Numbers<Warp> numbers(const Warp& warp, const Value& value) {
  Numbers<Warp> result;
  each_number(
      warp, [&](int h, int e, int row, int column) { result.x[h][e] = value(h, e, row, column); });
  return result;
}

template <class Warp>
VIREO_WKV6_ANYWHERE Numbers<Warp> zeros(const Warp& warp) {
  return numbers(warp, [](int, int, int, int) { return 0.0f; });
}

/// What the row whose number differs in bit `bit` holds.
template <class Warp>
VIREO_WKV6_ANYWHERE Numbers<Warp> across_rows(const Warp& warp, const Numbers<Warp>& n, int bit) {
  if (bit < 3) return warp.exchange(n, 4 << bit);
  return numbers(warp, [&](int h, int e, int, int) { return n.x[h][e ^ 2]; });
}

template <class Warp>
struct Scan {
  Numbers<Warp> before, behind, all;
};

/// In blocks of 2^bits rows: what combine makes of the rows before each, behind it, and of all;
/// `none` changes nothing. level(l, scan) is called with the scan of blocks of 2^l, l < bits.
template <class Warp, class Combine, class Level>
VIREO_WKV6_ANYWHERE Scan<Warp> scan_rows(const Warp& warp,
                                         const Numbers<Warp>& x,
                                         int bits,
                                         float none,
                                         const Combine& combine,
                                         const Level& level) {
  const Numbers<Warp> nothing = numbers(warp, [&](int, int, int, int) { return none; });
  Scan<Warp> scan{nothing, nothing, x};
  for (int l = 0; l < bits; ++l) {
    level(l, scan);
    const Numbers<Warp> other = across_rows(warp, scan.all, l);
    each_number(warp, [&](int h, int e, int row, int) {
      const bool later = row >> l & 1;
      scan.before.x[h][e] = combine(scan.before.x[h][e], later ? other.x[h][e] : none);
      scan.behind.x[h][e] = combine(scan.behind.x[h][e], later ? none : other.x[h][e]);
      scan.all.x[h][e] = combine(scan.all.x[h][e], other.x[h][e]);
    });
  }
  return scan;
}

template <class Warp, class Level>
VIREO_WKV6_ANYWHERE Scan<Warp> multiply_rows(const Warp& warp,
                                             const Numbers<Warp>& x,
                                             const Level& level) {
  return scan_rows(
      warp, x, 4, 1.0f, [](float a, float b) { return a * b; }, level);
}

template <class Warp>
VIREO_WKV6_ANYWHERE Scan<Warp> add_rows(const Warp& warp, const Numbers<Warp>& x, int bits) {
  return scan_rows(
      warp, x, bits, 0.0f, [](float a, float b) { return a + b; }, [](int, const Scan<Warp>&) {});
}

VIREO_WKV6_ANYWHERE float float_of_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

/// Two numbers in bfloat16, to nearest, ties to even.
VIREO_WKV6_ANYWHERE uint32_t packed(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  const auto rounded = [](float x) -> uint32_t {
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof(bits));
    return x == x ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : 0x7fffu;
  };
  return rounded(low) | rounded(high) << 16;
#endif
}

/// value(h, e) for every number, as a factor.
template <int kParts, class Warp, class Value>
VIREO_WKV6_ANYWHERE Factor<Warp, kParts> factor(const Warp&, const Value& value) {
  Factor<Warp, kParts> result;
  for (int h = 0; h < Warp::kHeld; ++h) {
    VIREO_WKV6_UNROLL
    for (int i = 0; i < kOfLane / 2; ++i) {
      float low = value(h, 2 * i), high = value(h, 2 * i + 1);
      VIREO_WKV6_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const uint32_t bits = packed(low, high);
        result.part[part].x[h][i] = bits;
        low -= float_of_bits(bits << 16);
        high -= float_of_bits(bits & 0xffff0000u);
      }
    }
  }
  return result;
}

template <int kParts, class Warp>
VIREO_WKV6_ANYWHERE Factor<Warp, kParts> factor(const Warp& warp, const Numbers<Warp>& n) {
  return factor<kParts>(warp, [&](int h, int e) { return n.x[h][e]; });
}

template <class Warp, int kParts>
VIREO_WKV6_ANYWHERE Numbers<Warp> sum_of_parts(const Warp& warp, const Factor<Warp, kParts>& f) {
  return numbers(warp, [&](int h, int e, int, int) {
    float sum = 0;
    VIREO_WKV6_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const uint32_t bits = f.part[part].x[h][e / 2];
      sum += float_of_bits(e % 2 == 0 ? bits << 16 : bits & 0xffff0000u);
    }
    return sum;
  });
}

template <class Warp, int kParts>
VIREO_WKV6_ANYWHERE Factor<Warp, kParts> transposed(const Warp& warp,
                                                    const Factor<Warp, kParts>& from) {
  Factor<Warp, kParts> result;
  VIREO_WKV6_UNROLL
  for (int part = 0; part < kParts; ++part) {
    warp.transpose(from.part[part], 0, result.part[part], 0);
    warp.transpose(from.part[part], 2, result.part[part], 1);
    warp.transpose(from.part[part], 1, result.part[part], 2);
    warp.transpose(from.part[part], 3, result.part[part], 3);
  }
  return result;
}

/// sums[i][j] += sum_k a[i][k] b[j][k]. Of factors in parts, products of the order of the last
/// part and larger.
template <class Warp, int kParts>
VIREO_WKV6_ANYWHERE void multiply(const Warp& warp,
                                  Numbers<Warp>& sums,
                                  const Factor<Warp, kParts>& a,
                                  const Factor<Warp, kParts>& b) {
  VIREO_WKV6_UNROLL
  for (int i = 0; i < kParts; ++i) {
    VIREO_WKV6_UNROLL
    for (int j = 0; i + j < kParts; ++j) {
      warp.mma(sums, 0, a.part[i], b.part[j], 0, 2);
      warp.mma(sums, 4, a.part[i], b.part[j], 1, 3);
    }
  }
}

}  // namespace vireo::wkv6_math
