#pragma once

#include <cstdint>
#include <tuple>

#include "tests/kernels/cuda_on_cpu/machine.h"

// What nvcc and its runtime add to C++, as far as Vireo's CUDA sources use it. Included before each
// of them.

#define __global__
#define __device__
#define __launch_bounds__(threads)

using dim3 = vireo::cuda_on_cpu::Size;
inline constexpr const vireo::cuda_on_cpu::Index& threadIdx = vireo::cuda_on_cpu::thread_index;
inline constexpr const vireo::cuda_on_cpu::Index& blockIdx = vireo::cuda_on_cpu::block_index;
inline constexpr const dim3& blockDim = vireo::cuda_on_cpu::running.block;

inline void __syncthreads(vireo::cuda_on_cpu::Place place = vireo::cuda_on_cpu::Place::current()) {
  vireo::cuda_on_cpu::meet_block(place);
}

template <class T>
T __shfl_xor_sync(unsigned lanes,
                  T value,
                  int mask,
                  vireo::cuda_on_cpu::Place place = vireo::cuda_on_cpu::Place::current()) {
  struct Lane {
    T value;
    int mask;
  };
  if (lanes != 0xffffffffu) vireo::cuda_on_cpu::fail("shuffles among some lanes only");
  const auto exchange = [](Lane* all) {
    Lane before[32];
    for (int i = 0; i < 32; ++i) before[i] = all[i];
    for (int i = 0; i < 32; ++i) {
      if (all[i].mask != all[0].mask) vireo::cuda_on_cpu::fail("shuffles with another mask");
      all[i].value = before[(i ^ all[i].mask) % 32].value;
    }
  };
  return vireo::cuda_on_cpu::meet_warp<Lane>({value, mask}, exchange, place).value;
}

// ---- The runtime. ----

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };

enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const auto& device = vireo::cuda_on_cpu::device();
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? device.major : device.shared_bytes();
  return cudaSuccess;
}

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize,
  cudaFuncAttributeNonPortableClusterSizeAllowed,
};
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  auto& limits = vireo::cuda_on_cpu::limits_of(reinterpret_cast<const void*>(kernel));
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed)
    limits.large_clusters = value != 0;
  else if (value <= vireo::cuda_on_cpu::device().shared_bytes())
    limits.dynamic_shared_bytes = value;
  else
    vireo::cuda_on_cpu::fail("no device has so much shared memory");
  return cudaSuccess;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

template <class Kernel>
cudaError_t cudaOccupancyMaxActiveClusters(int* count, Kernel*, const cudaLaunchConfig_t* config) {
  *count = config->attrs->val.clusterDim.x <= vireo::cuda_on_cpu::device().cluster_room ? 1 : 0;
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config,
                               void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  const std::tuple<Parameters...> parameters(arguments...);
  vireo::cuda_on_cpu::run({config->gridDim,
                           config->blockDim,
                           config->dynamicSmemBytes,
                           config->numAttrs == 0 ? 1 : config->attrs->val.clusterDim.x},
                          vireo::cuda_on_cpu::limits_of(reinterpret_cast<const void*>(kernel)),
                          [&] { std::apply(kernel, parameters); });
  return cudaSuccess;
}
