#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/bi_wkv/bi_wkv_ops.h"

namespace vireo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct BiWkvFunction : torch::autograd::Function<BiWkvFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& w,
                            const at::Tensor& u,
                            const at::Tensor& k,
                            const at::Tensor& v) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({w, u, k, v});
    return call_bi_wkv(w, u, k, v);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    auto [gw, gu, gk, gv] =
        call_bi_wkv_backward(saved[0], saved[1], saved[2], saved[3], gradients[0]);
    return {gw, gu, gk, gv};
  }
};

struct BiWkvBackwardFunction : torch::autograd::Function<BiWkvBackwardFunction> {
  static variable_list forward(AutogradContext*,
                               const at::Tensor& w,
                               const at::Tensor& u,
                               const at::Tensor& k,
                               const at::Tensor& v,
                               const at::Tensor& gy) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [gw, gu, gk, gv] = call_bi_wkv_backward(w, u, k, v, gy);
    return {gw, gu, gk, gv};
  }

  static variable_list backward(AutogradContext*, variable_list) {
    TORCH_CHECK(false, "bi_wkv: differentiable once; a gradient of its gradient was asked for");
  }
};

struct BiWkvPublishedFunction : torch::autograd::Function<BiWkvPublishedFunction> {
  static at::Tensor forward(AutogradContext*,
                            const at::Tensor& w,
                            const at::Tensor& u,
                            const at::Tensor& k,
                            const at::Tensor& v) {
    at::AutoDispatchBelowADInplaceOrView below;
    return call_bi_wkv_published(w, u, k, v);
  }

  static variable_list backward(AutogradContext*, variable_list) {
    TORCH_CHECK(false, "bi_wkv: WkvForm::kPublished has no gradient; train with WkvForm::kExact");
  }
};

at::Tensor bi_wkv_autograd(const at::Tensor& w,
                           const at::Tensor& u,
                           const at::Tensor& k,
                           const at::Tensor& v) {
  return BiWkvFunction::apply(w, u, k, v);
}

BiWkvGradients bi_wkv_backward_autograd(const at::Tensor& w,
                                        const at::Tensor& u,
                                        const at::Tensor& k,
                                        const at::Tensor& v,
                                        const at::Tensor& gy) {
  const variable_list gradients = BiWkvBackwardFunction::apply(w, u, k, v, gy);
  return {gradients[0], gradients[1], gradients[2], gradients[3]};
}

at::Tensor bi_wkv_published_autograd(const at::Tensor& w,
                                     const at::Tensor& u,
                                     const at::Tensor& k,
                                     const at::Tensor& v) {
  return BiWkvPublishedFunction::apply(w, u, k, v);
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, Autograd, library) {
  library.impl("bi_wkv", bi_wkv_autograd);
  library.impl("bi_wkv_backward", bi_wkv_backward_autograd);
  library.impl("bi_wkv_published", bi_wkv_published_autograd);
}

}  // namespace vireo
