#include "vision/blocks/conv_norm_act.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include "kernels/depthwise/depthwise.h"
#include "kernels/norm/norm.h"
#include "vision/blocks/observe.h"

namespace vireo {

at::Tensor activate(at::Tensor x, ActKind kind) {
  const bool keep_input = at::GradMode::is_enabled() && x.requires_grad();
  switch (kind) {
    case ActKind::kNone:
      return x;
    case ActKind::kRelu:  // its gradient needs the output alone
      return x.relu_();
    case ActKind::kSilu:
      return keep_input ? at::silu(x) : at::silu_(x);
    case ActKind::kGelu:
      return at::gelu(x);
  }
  return x;
}

LayerNorm2dImpl::LayerNorm2dImpl(int64_t channels) {
  norm = register_module("norm",
                         torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels}).eps(1e-6)));
}

at::Tensor LayerNorm2dImpl::forward(const at::Tensor& x) {
  return observed(*this, channel_norm(x, norm->weight, norm->bias, norm->options.eps()));
}

torch::nn::BatchNorm2d make_batch_norm(int64_t channels) {
  return torch::nn::BatchNorm2d(torch::nn::BatchNorm2dOptions(channels).eps(1e-6).momentum(0.1));
}

ConvNormActImpl::ConvNormActImpl(const ConvNormActOptions& options) : options(options) {
  const auto& o = options;
  conv = register_module("conv",
                         torch::nn::Conv2d(torch::nn::Conv2dOptions(o.in, o.out, o.kernel)
                                               .stride(o.stride)
                                               .padding((o.kernel - o.stride + 1) / 2)
                                               .groups(o.groups)
                                               .bias(false)));
  if (o.norm == NormKind::kBatch) batch_norm = register_module("norm", make_batch_norm(o.out));
  if (o.norm == NormKind::kLayer) layer_norm = register_module("norm", LayerNorm2d(o.out));
}

at::Tensor ConvNormActImpl::folded(const at::Tensor& x) {
  const auto& norm = *batch_norm;
  const at::Tensor scale = norm.weight * at::rsqrt(norm.running_var + norm.options.eps());
  const at::Tensor weight = conv->weight * scale.view({-1, 1, 1, 1});
  const at::Tensor bias = norm.bias - norm.running_mean * scale;
  const int64_t pad = (options.kernel - options.stride + 1) / 2;
  return at::conv2d(
      x, weight, bias, {options.stride, options.stride}, {pad, pad}, {1, 1}, options.groups);
}

at::Tensor ConvNormActImpl::convolved(const at::Tensor& x) {
  const bool depthwise = options.groups == options.in && options.groups == options.out;
  if (!depthwise) return conv->forward(x);
  return depthwise_conv2d(
      x, conv->weight, options.stride, (options.kernel - options.stride + 1) / 2);
}

at::Tensor ConvNormActImpl::forward(const at::Tensor& x) {
  at::Tensor y;
  if (batch_norm && !is_training() && !at::GradMode::is_enabled()) {
    y = folded(x);
  } else {
    y = observed(*conv, convolved(x));
    if (batch_norm) y = run(batch_norm, y);
    if (layer_norm) y = layer_norm(y);
  }
  return observed(*this, activate(y, options.act));  // [B, out, H', W']
}

SqueezeExciteImpl::SqueezeExciteImpl(int64_t channels, int64_t reduced, ActKind act) : act(act) {
  conv_reduce = register_module("conv_reduce",
                                torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, reduced, 1)));
  conv_expand = register_module("conv_expand",
                                torch::nn::Conv2d(torch::nn::Conv2dOptions(reduced, channels, 1)));
}

at::Tensor SqueezeExciteImpl::forward(const at::Tensor& x) {
  at::Tensor gate = x.mean({2, 3}, /*keepdim=*/true);  // [B, C, 1, 1]
  gate = activate(run(conv_reduce, gate), act);        // [B, reduced, 1, 1]
  gate = at::sigmoid(run(conv_expand, gate));          // [B, C, 1, 1]
  return observed(*this, x * gate);                    // [B, C, H, W]
}

}  // namespace vireo
