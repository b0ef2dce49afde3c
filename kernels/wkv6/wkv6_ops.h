#pragma once

#include <tuple>

#include <ATen/core/Tensor.h>

// The operators behind wkv6(), for its own files.
namespace vireo {

constexpr int64_t kWkv6LargestHead = 128;
constexpr double kWkv6LargestW = 10;  ///< exp(-exp(10)) is 0 in float64

/// gr, gk, gv, gw, gu.
using Wkv6Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Throws unless shapes, types and devices are as wkv6.h says.
void check_wkv6(const at::Tensor& r,
                const at::Tensor& k,
                const at::Tensor& v,
                const at::Tensor& w,
                const at::Tensor& u);
/// Also checks the gradient's shape.
void check_wkv6_gradient(const at::Tensor& k, const at::Tensor& gy);

/// ln d = -exp(w), contiguous, in k's state type (float32, or float64 for float64).
at::Tensor wkv6_log_decay(const at::Tensor& w, const at::Tensor& k);
/// gw from the gradient of ln d, which is overwritten.
at::Tensor wkv6_gw(at::Tensor log_decay_gradient, const at::Tensor& log_decay, const at::Tensor& w);

/// The dispatcher's entries vireo::wkv6 and vireo::wkv6_backward.
at::Tensor call_wkv6(const at::Tensor& r,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const at::Tensor& w,
                     const at::Tensor& u,
                     bool causal);
Wkv6Gradients call_wkv6_backward(const at::Tensor& r,
                                 const at::Tensor& k,
                                 const at::Tensor& v,
                                 const at::Tensor& w,
                                 const at::Tensor& u,
                                 const at::Tensor& gy,
                                 bool causal);

}  // namespace vireo
