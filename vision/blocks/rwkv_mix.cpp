#include "vision/blocks/rwkv_mix.h"

#include <ATen/ops/full.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/zeros.h>

#include "kernels/norm/norm.h"
#include "vision/blocks/observe.h"

namespace vireo {
namespace {

torch::nn::Linear linear(int64_t in, int64_t out) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
}

torch::nn::LayerNorm layer_norm(int64_t channels) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels}));
}

}  // namespace

SpatialMixImpl::SpatialMixImpl(const SpatialMixOptions& options) : options(options) {
  const int64_t channels = options.channels;
  spatial_decay = register_parameter("spatial_decay", at::zeros({channels}));
  spatial_first = register_parameter("spatial_first", at::zeros({channels}));
  spatial_mix_k = register_parameter("spatial_mix_k", at::full({1, 1, channels}, 0.5));
  spatial_mix_v = register_parameter("spatial_mix_v", at::full({1, 1, channels}, 0.5));
  spatial_mix_r = register_parameter("spatial_mix_r", at::full({1, 1, channels}, 0.5));
  key = register_module("key", linear(channels, channels));
  value = register_module("value", linear(channels, channels));
  receptance = register_module("receptance", linear(channels, channels));
  if (options.key_norm) key_norm = register_module("key_norm", layer_norm(channels));
  output = register_module("output", linear(channels, channels));
}

at::Tensor SpatialMixImpl::forward(const at::Tensor& x, int64_t height, int64_t width) {
  const auto tokens = static_cast<double>(height * width);
  const auto mixed =
      q_shift_mix(x, {spatial_mix_k, spatial_mix_v, spatial_mix_r}, height, width, options.shift);
  const at::Tensor k = run(key, mixed[0]);         // [B, T, C]
  const at::Tensor v = run(value, mixed[1]);       // [B, T, C]
  const at::Tensor r = run(receptance, mixed[2]);  // [B, T, C]
  const at::Tensor y =
      bi_wkv(spatial_decay / tokens, spatial_first / tokens, k, v, options.form);  // [B, T, C]
  return observed(*this, run(output, gated(r, y)));                                // [B, T, C]
}

at::Tensor SpatialMixImpl::gated(const at::Tensor& r, const at::Tensor& y) {
  if (!key_norm) return gate(r, y);
  if (is_observed()) return gate(r, run(key_norm, y));
  return gated_norm(r, y, key_norm->weight, key_norm->bias, key_norm->options.eps());
}

ChannelMixImpl::ChannelMixImpl(const ChannelMixOptions& options) : options(options) {
  const int64_t channels = options.channels, hidden = channels * options.hidden_rate;
  spatial_mix_k = register_parameter("spatial_mix_k", at::full({1, 1, channels}, 0.5));
  spatial_mix_r = register_parameter("spatial_mix_r", at::full({1, 1, channels}, 0.5));
  key = register_module("key", linear(channels, hidden));
  if (options.key_norm) key_norm = register_module("key_norm", layer_norm(hidden));
  receptance = register_module("receptance", linear(channels, channels));
  value = register_module("value", linear(hidden, channels));
}

at::Tensor ChannelMixImpl::forward(const at::Tensor& x, int64_t height, int64_t width) {
  const auto mixed = q_shift_mix(x, {spatial_mix_k, spatial_mix_r}, height, width, options.shift);
  at::Tensor hidden = at::relu(run(key, mixed[0])).square();  // [B, T, hidden]
  if (key_norm) hidden = run(key_norm, hidden);               // [B, T, hidden]
  const at::Tensor r = run(receptance, mixed[1]);             // [B, T, C]
  return observed(*this, gate(r, run(value, hidden)));        // [B, T, C]
}

}  // namespace vireo
