#pragma once

#include <ATen/core/Tensor.h>

// Normalisation over channels, and the gate behind it, in one pass each. Tensors are float32,
// float64, bfloat16 or float16 and results have their type; weight and bias are [C] of any of these
// and enter as float32 (float64 for float64), in which all sums are taken. Differentiable once;
// gradients do not depend on the number of threads. Any strides; results lie as their input does.
namespace vireo {

/// LayerNorm over channels, (x - mean) / sqrt(variance + eps) * weight + bias, of tokens [B,T,C] or
/// of every pixel of a map [B,C,H,W], which is not permuted.
at::Tensor channel_norm(const at::Tensor& x,
                        const at::Tensor& weight,
                        const at::Tensor& bias,
                        double eps);

/// sigmoid(r) y for tokens [B,T,C]. r is taken in y's type.
at::Tensor gate(const at::Tensor& r, const at::Tensor& y);

/// sigmoid(r) channel_norm(y): what Vision-RWKV (arXiv 2403.02308) with `key_norm` does with the
/// result of Bi-WKV.
at::Tensor gated_norm(const at::Tensor& r,
                      const at::Tensor& y,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps);

}  // namespace vireo
