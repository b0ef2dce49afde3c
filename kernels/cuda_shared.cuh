#pragma once

// A block's shared memory, by functions that tests/kernels/cuda_on_cpu has its own of.
namespace vireo {

/// One T of the block, the same in every call; its constructor does not run.
template <class T>
__device__ __forceinline__ T& shared() {
  __shared__ __align__(16) unsigned char memory[sizeof(T)];
  return *reinterpret_cast<T*>(memory);
}

/// What the launch asked for.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

}  // namespace vireo
