#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vireo {

/// Runs this folder's operators on small inputs, forward and backward, in float32, bfloat16 and
/// float16, and compares with what they give on the CPU: row lengths that take every way through
/// the CUDA kernels. Every disagreement, and every failure, is one line; none: the device can be
/// relied on. Takes well under a second on a device that is ready. Deterministic; uses no random
/// numbers.
std::vector<std::string> disagreements_with_cpu(at::Device device);

}  // namespace vireo
