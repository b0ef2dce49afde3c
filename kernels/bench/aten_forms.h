#pragma once

#include <ATen/core/Tensor.h>

// The operators in plain ATen operations, differentiable, to compare with. Their arguments are
// those of bi_wkv.h and wkv6.h.
namespace vireo {

/// Bi-WKV as a recurrence: one token after another, from the left and from the right.
at::Tensor bi_wkv_by_token(const at::Tensor& w,
                           const at::Tensor& u,
                           const at::Tensor& k,
                           const at::Tensor& v);

/// Bi-WKV as a softmax over [B, T, T, C].
at::Tensor bi_wkv_quadratic(const at::Tensor& w,
                            const at::Tensor& u,
                            const at::Tensor& k,
                            const at::Tensor& v);

/// v itself: what a network costs without its Bi-WKV.
at::Tensor bi_wkv_left_out(const at::Tensor& w,
                           const at::Tensor& u,
                           const at::Tensor& k,
                           const at::Tensor& v);

/// WKV6 as a recurrence over matrix states: one token after another.
at::Tensor wkv6_by_token(const at::Tensor& r,
                         const at::Tensor& k,
                         const at::Tensor& v,
                         const at::Tensor& w,
                         const at::Tensor& u,
                         bool causal);

/// Not the same function but what transformers have in its place: LibTorch's fused
/// at::scaled_dot_product_attention of the same width, in heads of at most 64 channels. On the CPU
/// its memory is linear in the tokens and its time quadratic. Bi-WKV's keys serve as queries too.
at::Tensor attention_for_bi_wkv(const at::Tensor& w,
                                const at::Tensor& u,
                                const at::Tensor& k,
                                const at::Tensor& v);
at::Tensor attention_for_wkv6(const at::Tensor& r,
                              const at::Tensor& k,
                              const at::Tensor& v,
                              const at::Tensor& w,
                              const at::Tensor& u,
                              bool causal);

}  // namespace vireo
