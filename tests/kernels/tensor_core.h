#pragma once

#include <cstdint>

#include "kernels/wkv6/wkv6_tiles.h"

// The tensor cores' instructions over the registers of all 32 lanes. Where these keep what is as in
// the PTX manual, "Matrix Fragments for mma.m16n8k16 with floating point type", in its words and
// numbering.
namespace vireo::test {

/// c += a b. a(laneid, i) and b(laneid, i): a register, two bfloat16; c(laneid, i): a float&.
template <class A, class B, class C>
void mma_m16n8k16(const A& a, const B& b, const C& c) {
  const auto half_of = [](uint32_t bits, int i) {
    return wkv6_math::float_of_bits(i == 0 ? bits << 16 : bits & 0xffff0000u);
  };
  float first[16][16], second[16][8];
  for (int laneid = 0; laneid < 32; ++laneid) {
    const int group = laneid >> 2, thread = laneid % 4;
    for (int i = 0; i < 8; ++i) {
      const int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
      const int col = i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
      first[row][col] = half_of(a(laneid, i / 2), i % 2);
    }
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8;
      second[row][group] = half_of(b(laneid, i / 2), i % 2);
    }
  }
  for (int laneid = 0; laneid < 32; ++laneid)
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? laneid >> 2 : (laneid >> 2) + 8;
      const int col = laneid % 4 * 2 + (i & 1);
      for (int k = 0; k < 16; ++k) c(laneid, i) += first[row][k] * second[k][col];
    }
}

/// movmatrix: thread t holds row t / 4 of an 8 x 8 matrix from element t % 4 * 2 on. x(t): its
/// register, a uint32_t&.
template <class X>
void movmatrix(const X& x) {
  uint32_t matrix[8][8];
  for (int t = 0; t < 32; ++t)
    for (int half = 0; half < 2; ++half)
      matrix[t / 4][t % 4 * 2 + half] = x(t) >> (16 * half) & 0xffffu;
  for (int t = 0; t < 32; ++t) x(t) = matrix[t % 4 * 2][t / 4] | matrix[t % 4 * 2 + 1][t / 4] << 16;
}

}  // namespace vireo::test
