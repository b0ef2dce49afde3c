#pragma once

#include <cstdint>

#include "tests/kernels/cuda_on_cpu/machine.h"
#include "tests/kernels/tensor_core.h"

namespace vireo {

inline void multiply_m16n8k16(float* c, const uint32_t* a, uint32_t b0, uint32_t b1) {
  struct Lane {
    float c[4];
    uint32_t a[4], b[2];
  };
  Lane mine{{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  mine = cuda_on_cpu::meet_warp<Lane>(
      mine,
      [](Lane* all) {
        test::mma_m16n8k16([&](int lane, int i) { return all[lane].a[i]; },
                           [&](int lane, int i) { return all[lane].b[i]; },
                           [&](int lane, int i) -> float& { return all[lane].c[i]; });
      },
      cuda_on_cpu::Place::current());
  for (int i = 0; i < 4; ++i) c[i] = mine.c[i];
}

inline uint32_t transpose_8x8(uint32_t x) {
  return cuda_on_cpu::meet_warp<uint32_t>(
      x,
      [](uint32_t* all) { test::movmatrix([&](int lane) -> uint32_t& { return all[lane]; }); },
      cuda_on_cpu::Place::current());
}

}  // namespace vireo
