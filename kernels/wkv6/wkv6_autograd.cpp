#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/wkv6/wkv6_ops.h"

namespace vireo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Wkv6Function : torch::autograd::Function<Wkv6Function> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& r,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const at::Tensor& w,
                            const at::Tensor& u,
                            bool causal) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({r, k, v, w, u});
    context->saved_data["causal"] = causal;
    return call_wkv6(r, k, v, w, u, causal);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    auto [gr, gk, gv, gw, gu] = call_wkv6_backward(saved[0],
                                                   saved[1],
                                                   saved[2],
                                                   saved[3],
                                                   saved[4],
                                                   gradients[0],
                                                   context->saved_data["causal"].toBool());
    return {gr, gk, gv, gw, gu, at::Tensor()};
  }
};

struct Wkv6BackwardFunction : torch::autograd::Function<Wkv6BackwardFunction> {
  static variable_list forward(AutogradContext*,
                               const at::Tensor& r,
                               const at::Tensor& k,
                               const at::Tensor& v,
                               const at::Tensor& w,
                               const at::Tensor& u,
                               const at::Tensor& gy,
                               bool causal) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [gr, gk, gv, gw, gu] = call_wkv6_backward(r, k, v, w, u, gy, causal);
    return {gr, gk, gv, gw, gu};
  }

  static variable_list backward(AutogradContext*, variable_list) {
    TORCH_CHECK(false, "wkv6: differentiable once; a gradient of its gradient was asked for");
  }
};

at::Tensor wkv6_autograd(const at::Tensor& r,
                         const at::Tensor& k,
                         const at::Tensor& v,
                         const at::Tensor& w,
                         const at::Tensor& u,
                         bool causal) {
  return Wkv6Function::apply(r, k, v, w, u, causal);
}

Wkv6Gradients wkv6_backward_autograd(const at::Tensor& r,
                                     const at::Tensor& k,
                                     const at::Tensor& v,
                                     const at::Tensor& w,
                                     const at::Tensor& u,
                                     const at::Tensor& gy,
                                     bool causal) {
  const variable_list g = Wkv6BackwardFunction::apply(r, k, v, w, u, gy, causal);
  return {g[0], g[1], g[2], g[3], g[4]};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, Autograd, library) {
  library.impl("wkv6", wkv6_autograd);
  library.impl("wkv6_backward", wkv6_backward_autograd);
}

}  // namespace vireo
