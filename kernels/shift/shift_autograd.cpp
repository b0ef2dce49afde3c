#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "kernels/shift/shift_ops.h"

namespace vireo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What every operator of this room takes after its tensors.
struct Where {
  int64_t height;
  int64_t width;
  QShift shift;
};

void save(AutogradContext* context, const Where& where) {
  context->saved_data["height"] = where.height;
  context->saved_data["width"] = where.width;
  context->saved_data["pixels"] = where.shift.pixels;
  context->saved_data["gamma"] = where.shift.gamma;
  context->saved_data["head_dim"] = where.shift.head_dim;
  context->saved_data["class_token"] = where.shift.class_token;
}

Where saved(AutogradContext* context) {
  auto& data = context->saved_data;
  return {data["height"].toInt(),
          data["width"].toInt(),
          {data["pixels"].toInt(),
           data["gamma"].toDouble(),
           data["head_dim"].toInt(),
           data["class_token"].toBool()}};
}

// Linear: its gradient is the shift the other way, and differentiable again.
struct QShiftFunction : torch::autograd::Function<QShiftFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const Where& where,
                            bool adjoint) {
    at::AutoDispatchBelowADInplaceOrView below;
    save(context, where);
    context->saved_data["adjoint"] = adjoint;
    return call_q_shift(x, where.height, where.width, where.shift, adjoint);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const Where where = saved(context);
    const bool adjoint = context->saved_data["adjoint"].toBool();
    return {call_q_shift(gradients[0], where.height, where.width, where.shift, !adjoint), {}, {}};
  }
};

struct QShiftMixFunction : torch::autograd::Function<QShiftMixFunction> {
  static variable_list forward(AutogradContext* context,
                               const at::Tensor& x,
                               const at::Tensor& mixes,
                               const Where& where) {
    at::AutoDispatchBelowADInplaceOrView below;
    save(context, where);
    context->save_for_backward({x, mixes});
    return call_q_shift_mix(x, mixes, where.height, where.width, where.shift);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const Where where = saved(context);
    const variable_list inputs = context->get_saved_variables();
    auto [gx, gmixes] = call_q_shift_mix_backward(
        inputs[0], inputs[1], gradients, where.height, where.width, where.shift);
    return {gx, gmixes, {}};
  }
};

struct QShiftMixBackwardFunction : torch::autograd::Function<QShiftMixBackwardFunction> {
  static variable_list forward(AutogradContext*,
                               const at::Tensor& x,
                               const at::Tensor& mixes,
                               at::TensorList gys,
                               const Where& where) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [gx, gmixes] =
        call_q_shift_mix_backward(x, mixes, gys, where.height, where.width, where.shift);
    return {gx, gmixes};
  }

  static variable_list backward(AutogradContext*, variable_list) {
    TORCH_CHECK(false,
                "q_shift_mix: differentiable once; a gradient of its gradient was asked for");
  }
};

at::Tensor q_shift_autograd(const at::Tensor& x,
                            int64_t height,
                            int64_t width,
                            int64_t pixels,
                            double gamma,
                            int64_t head_dim,
                            bool class_token,
                            bool adjoint) {
  return QShiftFunction::apply(
      x, Where{height, width, {pixels, gamma, head_dim, class_token}}, adjoint);
}

std::vector<at::Tensor> q_shift_mix_autograd(const at::Tensor& x,
                                             const at::Tensor& mixes,
                                             int64_t height,
                                             int64_t width,
                                             int64_t pixels,
                                             double gamma,
                                             int64_t head_dim,
                                             bool class_token) {
  return QShiftMixFunction::apply(
      x, mixes, Where{height, width, {pixels, gamma, head_dim, class_token}});
}

std::tuple<at::Tensor, at::Tensor> q_shift_mix_backward_autograd(const at::Tensor& x,
                                                                 const at::Tensor& mixes,
                                                                 at::TensorList gys,
                                                                 int64_t height,
                                                                 int64_t width,
                                                                 int64_t pixels,
                                                                 double gamma,
                                                                 int64_t head_dim,
                                                                 bool class_token) {
  const variable_list gradients = QShiftMixBackwardFunction::apply(
      x, mixes, gys, Where{height, width, {pixels, gamma, head_dim, class_token}});
  return {gradients[0], gradients[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, Autograd, library) {
  library.impl("q_shift", q_shift_autograd);
  library.impl("q_shift_mix", q_shift_mix_autograd);
  library.impl("q_shift_mix_backward", q_shift_mix_backward_autograd);
}

}  // namespace vireo
