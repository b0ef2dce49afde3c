#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vireo {

/// Depthwise 2-D convolution: x [B,C,H,W] with weight [C,1,K,K] and bias [C] or none, zeros beyond
/// the border. The same as at::conv2d with C groups, on every device and type. Channels-last maps
/// of float32 or bfloat16 on the CPU, with K = 3, 5, 7 or 9 and stride 1 or 2, take loops of
/// Vireo's own, which sum in float32; so does the backward pass of those without a bias:
/// differentiable once, and its weight gradient does not depend on the number of threads.
at::Tensor depthwise_conv2d(const at::Tensor& x,
                            const at::Tensor& weight,
                            int64_t stride,
                            int64_t padding,
                            const at::Tensor& bias = {});

}  // namespace vireo
