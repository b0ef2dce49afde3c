#pragma once

#include <ATen/core/Tensor.h>

namespace vireo {

/// Bidirectional WKV6, the attention of Vision-RWKV 6 (Finch, arXiv 2404.05892). C channels are H
/// heads of N; for every batch item and head, with d = exp(-exp(w)) per channel of the head:
///
///     y_t = r_t ( sum_{i<t} (prod_{i<j<t} d_j) k_i (x) v_i  +  u k_t (x) v_t
///               + sum_{i>t} (prod_{t<j<i} d_j) k_i (x) v_i )
///
/// causal leaves out the sum over i > t.
///
/// r, k, v  [B,T,C]  one of float32, float64, bfloat16, float16; any strides; finite. T >= 1.
/// w        [B,T,C]  any floating type. Above 10, where d is 0 in float64, it acts as 10.
/// u        [H,N]    any floating type; N from 1 to 128.
/// returns [B,T,C] in k's type, contiguous. Sums are kept in float32 (float64 for float64 input).
///
/// Linear in T, in time and memory. Differentiable once in all five; results and gradients do not
/// depend on the number of threads, bit for bit.
/// Throws c10::Error where shapes, types or devices do not fit.
at::Tensor wkv6(const at::Tensor& r,
                const at::Tensor& k,
                const at::Tensor& v,
                const at::Tensor& w,
                const at::Tensor& u,
                bool causal = false);

}  // namespace vireo
