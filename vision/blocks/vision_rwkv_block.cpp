#include "vision/blocks/vision_rwkv_block.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/zeros.h>

#include "vision/blocks/observe.h"

namespace vireo {
namespace {

torch::nn::LayerNorm layer_norm(int64_t channels) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels}));
}

/// h / count for h = 0, 1, ...; zeros where there is one channel alone.
at::Tensor ratios(int64_t channels, int64_t count) {
  const auto steps = at::arange(channels, at::kDouble);
  return count > 0 ? steps / static_cast<double>(count) : steps;
}

}  // namespace

VisionRwkvBlockImpl::VisionRwkvBlockImpl(const VisionRwkvBlockOptions& options) : options(options) {
  const auto& o = options;
  if (o.first) ln0 = register_module("ln0", layer_norm(o.channels));
  ln1 = register_module("ln1", layer_norm(o.channels));
  ln2 = register_module("ln2", layer_norm(o.channels));
  att = register_module(
      "att",
      SpatialMix(SpatialMixOptions{
          .channels = o.channels, .key_norm = o.key_norm, .shift = o.shift, .form = o.form}));
  ffn = register_module("ffn",
                        ChannelMix(ChannelMixOptions{.channels = o.channels,
                                                     .hidden_rate = o.hidden_rate,
                                                     .key_norm = o.key_norm,
                                                     .shift = o.shift}));
  if (o.layer_scale != 0) {
    gamma1 = register_parameter("gamma1", at::full({o.channels}, o.layer_scale));
    gamma2 = register_parameter("gamma2", at::full({o.channels}, o.layer_scale));
  }
  drop_path = register_module("drop_path", DropPath(o.drop_path));
}

at::Tensor VisionRwkvBlockImpl::scaled(const at::Tensor& branch, const at::Tensor& gamma) {
  return drop_path(gamma.defined() ? branch * gamma : branch);
}

at::Tensor VisionRwkvBlockImpl::forward(const at::Tensor& input, int64_t height, int64_t width) {
  at::Tensor x = ln0 ? run(ln0, input) : input;  // [B, T, C]
  if (options.post_norm) {
    x = x + scaled(run(ln1, att(x, height, width)), gamma1);  // [B, T, C]
    x = x + scaled(run(ln2, ffn(x, height, width)), gamma2);  // [B, T, C]
  } else {
    x = x + scaled(att(run(ln1, x), height, width), gamma1);  // [B, T, C]
    x = x + scaled(ffn(run(ln2, x), height, width), gamma2);  // [B, T, C]
  }
  return observed(*this, x);
}

void start_mixes(VisionRwkvBlockImpl& block, MixStart start, int64_t layer, int64_t depth) {
  const at::NoGradGuard no_grad;
  SpatialMixImpl& att = *block.att;
  ChannelMixImpl& ffn = *block.ffn;
  if (start != MixStart::kFancy) {
    const double level = start == MixStart::kLocal ? 1 : 0;
    const double mix = start == MixStart::kLocal ? 1 : 0.5;
    for (auto* p : {&att.spatial_decay, &att.spatial_first}) p->fill_(level);
    for (auto* p : {&att.spatial_mix_k,
                    &att.spatial_mix_v,
                    &att.spatial_mix_r,
                    &ffn.spatial_mix_k,
                    &ffn.spatial_mix_r})
      p->fill_(mix);
    return;
  }
  const auto channels = block.options.channels;
  const auto l = static_cast<double>(layer), layers = static_cast<double>(depth);
  const double rising = depth > 1 ? l / (layers - 1) : 0, falling = 1 - l / layers;
  const at::Tensor along = ratios(channels, channels - 1), ratio = ratios(channels, channels);
  const at::Tensor zigzag = (at::arange(channels, at::kDouble) + 1).remainder(3) - 1;  // -1, 0, 1
  const at::Tensor mix = ratio.pow(falling).view({1, 1, -1});
  att.spatial_decay.copy_(along.pow(0.7 + 1.3 * rising) * 8 - 5);
  att.spatial_first.copy_(zigzag * 0.5 + std::log(0.3));
  att.spatial_mix_k.copy_(mix);
  att.spatial_mix_v.copy_(mix + 0.3 * rising);
  att.spatial_mix_r.copy_(ratio.pow(0.5 * falling).view({1, 1, -1}));
  ffn.spatial_mix_k.copy_(mix);
  ffn.spatial_mix_r.copy_(mix);
}

}  // namespace vireo
