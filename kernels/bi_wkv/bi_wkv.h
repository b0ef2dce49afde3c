#pragma once

#include <ATen/core/Tensor.h>

namespace vireo {

enum class WkvForm {
  kExact,      ///< the formula below
  kPublished,  ///< what the published CUDA forward evaluates; forward only
};

/// Bidirectional WKV (Vision-RWKV, arXiv 2403.02308). For every batch item and channel:
///
///     y_t = sum_i W[t,i] v_i / sum_i W[t,i],   W[t,i] = exp(k_i - w (|t-i| - 1)),  W[t,t] =
///     exp(k_t + u)
///
/// w, u   [C]      decay (positive: distant tokens fade) and bonus, already divided by the token
/// count;
///                 any floating type. |w| above 2000 acts as 2000.
/// k, v   [B,T,C]  one of float32, float64, bfloat16, float16; any strides; finite.
/// returns [B,T,C] in k's type, contiguous. Sums are kept in float32 (float64 for float64 input).
///
/// Differentiable once in all four; gradients do not depend on the number of threads, bit for bit.
/// kPublished (see README.md) can be evaluated but not differentiated.
/// Throws c10::Error where shapes, types or devices do not fit.
at::Tensor bi_wkv(const at::Tensor& w,
                  const at::Tensor& u,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  WkvForm form = WkvForm::kExact);

}  // namespace vireo
