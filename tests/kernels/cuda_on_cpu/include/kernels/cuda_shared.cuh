#pragma once

#include "tests/kernels/cuda_on_cpu/machine.h"

namespace vireo {

template <class T>
T& shared() {
  static const char tag = 0;
  return *static_cast<T*>(cuda_on_cpu::block_memory(&tag, sizeof(T)));
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(cuda_on_cpu::block_memory(nullptr, 0));
}

}  // namespace vireo
