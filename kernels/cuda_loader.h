#pragma once

namespace vireo {

/// Loads the CUDA half of the operators (libvireo_kernels_cuda.so beside libvireo_kernels.so) where
/// an NVIDIA driver is present. True once it is loaded; false on machines without a driver and in
/// builds without CUDA. Throws c10::Error when driver and library are there but do not load.
/// Programs that never call it start without libtorch_cuda.
bool load_cuda_kernels();

}  // namespace vireo
