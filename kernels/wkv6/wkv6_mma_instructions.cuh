#pragma once

#include <cstdint>

// The tensor cores' instructions, over the 32 lanes of a warp that runs them together.
// tests/kernels/cuda_on_cpu has its own of these.
namespace vireo {

/// mma.m16n8k16: c[4] += a[4] b[2], this lane's registers of 16 x 8, 16 x 16 and 16 x 8 numbers, a
/// and b in bfloat16.
__device__ __forceinline__ void multiply_m16n8k16(float* c,
                                                  const uint32_t* a,
                                                  uint32_t b0,
                                                  uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// movmatrix: this lane's register of the transpose of an 8 x 8 matrix of 16 bits each.
__device__ __forceinline__ uint32_t transpose_8x8(uint32_t x) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(x));
  return result;
}

}  // namespace vireo
