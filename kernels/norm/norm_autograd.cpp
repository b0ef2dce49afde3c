#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/norm/norm_ops.h"

namespace vireo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_first_derivative(const char* op) {
  TORCH_CHECK(!at::GradMode::is_enabled(),
              op,
              ": differentiable once; a gradient of its gradient was asked for");
}

struct ChannelNormFunction : torch::autograd::Function<ChannelNormFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            const at::Tensor& bias,
                            double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    context->saved_data["eps"] = eps;
    return call_channel_norm(x, weight, bias, eps);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    check_first_derivative("channel_norm");
    const variable_list saved = context->get_saved_variables();
    auto [gx, gweight, gbias] = call_channel_norm_backward(
        saved[0], saved[1], gradients[0], context->saved_data["eps"].toDouble());
    return {gx, gweight, gbias, {}};
  }
};

struct GateFunction : torch::autograd::Function<GateFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& r,
                            const at::Tensor& y,
                            const std::optional<at::Tensor>& weight_in,
                            const std::optional<at::Tensor>& bias_in,
                            double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    const at::Tensor weight = weight_in.value_or(at::Tensor());
    const at::Tensor bias = bias_in.value_or(at::Tensor());
    context->save_for_backward({r, y, weight, bias});
    context->saved_data["eps"] = eps;
    return call_gate(r, y, weight, bias, eps);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    check_first_derivative("gate");
    const variable_list saved = context->get_saved_variables();
    auto [gr, gy, gweight, gbias] = call_gate_backward(saved[0],
                                                       saved[1],
                                                       saved[2],
                                                       saved[3],
                                                       gradients[0],
                                                       context->saved_data["eps"].toDouble());
    if (!saved[2].defined()) return {gr, gy, {}, {}, {}};
    return {gr, gy, gweight, gbias, {}};
  }
};

at::Tensor channel_norm_autograd(const at::Tensor& x,
                                 const at::Tensor& weight,
                                 const at::Tensor& bias,
                                 double eps) {
  return ChannelNormFunction::apply(x, weight, bias, eps);
}

at::Tensor gate_autograd(const at::Tensor& r,
                         const at::Tensor& y,
                         const std::optional<at::Tensor>& weight,
                         const std::optional<at::Tensor>& bias,
                         double eps) {
  return GateFunction::apply(r, y, weight, bias, eps);
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, Autograd, library) {
  library.impl("channel_norm", channel_norm_autograd);
  library.impl("gate", gate_autograd);
}

}  // namespace vireo
