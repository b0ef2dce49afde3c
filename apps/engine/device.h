#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "kernels/process_memory.h"

namespace vireo {

/// The device that "auto", "cpu" or "cuda" asks for; auto takes CUDA where it is usable and its
/// operators give what the CPU's give (kernels/device_check.h). Throws Error when CUDA is asked for
/// and is not.
at::Device choose_device(const std::string& device);

/// Threads that make batches beside the network: `asked`, or where that is negative a number that
/// suits the machine.
int64_t choose_batch_threads(int64_t asked, at::Device device);

}  // namespace vireo
