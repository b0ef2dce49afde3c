#include "kernels/bi_wkv/bi_wkv.h"

#include <tuple>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "kernels/bi_wkv/bi_wkv_ops.h"

namespace vireo {
namespace {

bool is_supported(at::ScalarType type) {
  return type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf;
}

}  // namespace

void check_bi_wkv(const at::Tensor& w,
                  const at::Tensor& u,
                  const at::Tensor& k,
                  const at::Tensor& v) {
  TORCH_CHECK(k.dim() == 3, "bi_wkv: k must be [B,T,C], found ", k.sizes());
  TORCH_CHECK(
      v.sizes() == k.sizes(), "bi_wkv: v must have k's shape ", k.sizes(), ", found ", v.sizes());
  TORCH_CHECK(is_supported(k.scalar_type()),
              "bi_wkv: k must be float32, float64, bfloat16 or float16, found ",
              k.scalar_type());
  TORCH_CHECK(v.scalar_type() == k.scalar_type(),
              "bi_wkv: v must have k's type ",
              k.scalar_type(),
              ", found ",
              v.scalar_type());
  const int64_t channels = k.size(2);
  const auto check_parameter = [&](const at::Tensor& p, const char* name) {
    TORCH_CHECK(p.dim() == 1 && p.size(0) == channels,
                "bi_wkv: ",
                name,
                " must be [",
                channels,
                "], one per channel of k, found ",
                p.sizes());
    TORCH_CHECK(is_supported(p.scalar_type()),
                "bi_wkv: ",
                name,
                " must be float32, float64, bfloat16 or float16, found ",
                p.scalar_type());
    TORCH_CHECK(p.device() == k.device(),
                "bi_wkv: ",
                name,
                " must be on k's device ",
                k.device(),
                ", found ",
                p.device());
  };
  check_parameter(w, "w");
  check_parameter(u, "u");
  TORCH_CHECK(v.device() == k.device(),
              "bi_wkv: v must be on k's device ",
              k.device(),
              ", found ",
              v.device());
}

at::Tensor call_bi_wkv(const at::Tensor& w,
                       const at::Tensor& u,
                       const at::Tensor& k,
                       const at::Tensor& v) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("vireo::bi_wkv", "")
          .typed<at::Tensor(
              const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
  return op.call(w, u, k, v);
}

BiWkvGradients call_bi_wkv_backward(const at::Tensor& w,
                                    const at::Tensor& u,
                                    const at::Tensor& k,
                                    const at::Tensor& v,
                                    const at::Tensor& gy) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vireo::bi_wkv_backward", "")
                             .typed<BiWkvGradients(const at::Tensor&,
                                                   const at::Tensor&,
                                                   const at::Tensor&,
                                                   const at::Tensor&,
                                                   const at::Tensor&)>();
  return op.call(w, u, k, v, gy);
}

at::Tensor call_bi_wkv_published(const at::Tensor& w,
                                 const at::Tensor& u,
                                 const at::Tensor& k,
                                 const at::Tensor& v) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("vireo::bi_wkv_published", "")
          .typed<at::Tensor(
              const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&)>();
  return op.call(w, u, k, v);
}

at::Tensor bi_wkv(const at::Tensor& w,
                  const at::Tensor& u,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  WkvForm form) {
  return form == WkvForm::kExact ? call_bi_wkv(w, u, k, v) : call_bi_wkv_published(w, u, k, v);
}

TORCH_LIBRARY_FRAGMENT(vireo, library) {
  library.def("bi_wkv(Tensor w, Tensor u, Tensor k, Tensor v) -> Tensor");
  library.def(
      "bi_wkv_backward(Tensor w, Tensor u, Tensor k, Tensor v, Tensor gy)"
      " -> (Tensor gw, Tensor gu, Tensor gk, Tensor gv)");
  library.def("bi_wkv_published(Tensor w, Tensor u, Tensor k, Tensor v) -> Tensor");
}

}  // namespace vireo
