#pragma once

#include <cstdint>

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

// How kernels are launched: by functions, not by <<< >>>, so that the .cu files are also C++
// (tests/kernels/cuda_on_cpu).
namespace vireo {

struct LaunchPlan {
  dim3 grid, block;
  cudaStream_t stream;
  int64_t shared_bytes = 0;  ///< dynamic ones; above 48 KB the kernel may have no others
  unsigned cluster = 1;      ///< so many blocks of the grid's x share their memory; from sm_90 on
};

constexpr unsigned kPortableCluster = 8;

/// Of the current device.
inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

/// Asks for what `kernel` may not have without asking, and calls body(config).
template <class Kernel, class Body>
void with_launch_config(const LaunchPlan& plan, Kernel* kernel, const Body& body) {
  if (plan.shared_bytes > 48 * 1024) {
    const int most = device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    TORCH_CHECK(plan.shared_bytes <= most,
                "this size takes ",
                plan.shared_bytes,
                " bytes of shared memory per block, this GPU has ",
                most);
    // Always the same number, so that another thread's launch of another size cannot come between.
    C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most));
  }
  if (plan.cluster > kPortableCluster)
    C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = plan.cluster;
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = plan.grid;
  config.blockDim = plan.block;
  config.dynamicSmemBytes = static_cast<size_t>(plan.shared_bytes);
  config.stream = plan.stream;
  config.attrs = &cluster;
  config.numAttrs = plan.cluster > 1 ? 1 : 0;
  body(config);
}

template <class... Parameters, class... Arguments>
void launch(const LaunchPlan& plan, void (*kernel)(Parameters...), const Arguments&... arguments) {
  with_launch_config(plan, kernel, [&](const cudaLaunchConfig_t& config) {
    C10_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
  });
}

/// Whether the device has as many processors close to each other as plan's cluster needs.
template <class Kernel>
bool cluster_fits(const LaunchPlan& plan, Kernel* kernel) {
  int fitting = 0;
  with_launch_config(plan, kernel, [&](const cudaLaunchConfig_t& config) {
    C10_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&fitting, kernel, &config));
  });
  return fitting > 0;
}

}  // namespace vireo
