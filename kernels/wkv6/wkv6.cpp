#include "kernels/wkv6/wkv6.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "kernels/wkv6/wkv6_ops.h"

namespace vireo {
namespace {

bool is_wkv6_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf;
}

}  // namespace

void check_wkv6(const at::Tensor& r,
                const at::Tensor& k,
                const at::Tensor& v,
                const at::Tensor& w,
                const at::Tensor& u) {
  TORCH_CHECK(k.dim() == 3, "wkv6: k must be [B,T,C], found ", k.sizes());
  const auto check = [&](const at::Tensor& x, const char* name) {
    TORCH_CHECK(x.device() == k.device(),
                "wkv6: ",
                name,
                " must be on k's device ",
                k.device(),
                ", found ",
                x.device());
    TORCH_CHECK(is_wkv6_type(x.scalar_type()),
                "wkv6: ",
                name,
                " must be float32, float64, bfloat16 or float16, found ",
                x.scalar_type());
  };
  check(k, "k");
  check(w, "w");
  check(u, "u");
  const auto check_shape = [&](const at::Tensor& x, const char* name) {
    TORCH_CHECK(x.sizes() == k.sizes(),
                "wkv6: ",
                name,
                " must have k's shape ",
                k.sizes(),
                ", found ",
                x.sizes());
  };
  check_shape(w, "w");
  const auto check_like = [&](const at::Tensor& x, const char* name) {
    check(x, name);
    check_shape(x, name);
    TORCH_CHECK(x.scalar_type() == k.scalar_type(),
                "wkv6: ",
                name,
                " must have k's type ",
                k.scalar_type(),
                ", found ",
                x.scalar_type());
  };
  check_like(r, "r");
  check_like(v, "v");
  TORCH_CHECK(u.dim() == 2 && u.numel() == k.size(2),
              "wkv6: u must be [heads, channels of a head], together k's ",
              k.size(2),
              " channels, found ",
              u.sizes());
  TORCH_CHECK(u.size(1) <= kWkv6LargestHead,
              "wkv6: a head has at most ",
              kWkv6LargestHead,
              " channels, found u ",
              u.sizes());
}

void check_wkv6_gradient(const at::Tensor& k, const at::Tensor& gy) {
  TORCH_CHECK(
      gy.sizes() == k.sizes(), "wkv6: gy must have k's shape ", k.sizes(), ", found ", gy.sizes());
}

at::Tensor wkv6_log_decay(const at::Tensor& w, const at::Tensor& k) {
  const at::ScalarType state = k.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return w.to(state).clamp_max(kWkv6LargestW).exp_().neg_().contiguous();
}

at::Tensor wkv6_gw(at::Tensor log_decay_gradient,
                   const at::Tensor& log_decay,
                   const at::Tensor& w) {
  return log_decay_gradient.mul_(log_decay).to(w.scalar_type());
}

at::Tensor call_wkv6(const at::Tensor& r,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const at::Tensor& w,
                     const at::Tensor& u,
                     bool causal) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vireo::wkv6", "")
                             .typed<at::Tensor(const at::Tensor&,
                                               const at::Tensor&,
                                               const at::Tensor&,
                                               const at::Tensor&,
                                               const at::Tensor&,
                                               bool)>();
  return op.call(r, k, v, w, u, causal);
}

Wkv6Gradients call_wkv6_backward(const at::Tensor& r,
                                 const at::Tensor& k,
                                 const at::Tensor& v,
                                 const at::Tensor& w,
                                 const at::Tensor& u,
                                 const at::Tensor& gy,
                                 bool causal) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vireo::wkv6_backward", "")
                             .typed<Wkv6Gradients(const at::Tensor&,
                                                  const at::Tensor&,
                                                  const at::Tensor&,
                                                  const at::Tensor&,
                                                  const at::Tensor&,
                                                  const at::Tensor&,
                                                  bool)>();
  return op.call(r, k, v, w, u, gy, causal);
}

at::Tensor wkv6(const at::Tensor& r,
                const at::Tensor& k,
                const at::Tensor& v,
                const at::Tensor& w,
                const at::Tensor& u,
                bool causal) {
  return call_wkv6(r, k, v, w, u, causal);
}

TORCH_LIBRARY_FRAGMENT(vireo, library) {
  library.def(
      "wkv6(Tensor r, Tensor k, Tensor v, Tensor w, Tensor u, bool causal=False) -> Tensor");
  library.def(
      "wkv6_backward(Tensor r, Tensor k, Tensor v, Tensor w, Tensor u, Tensor gy, bool causal)"
      " -> (Tensor gr, Tensor gk, Tensor gv, Tensor gw, Tensor gu)");
}

}  // namespace vireo
