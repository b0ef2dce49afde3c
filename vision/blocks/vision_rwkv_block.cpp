#include "vision/blocks/vision_rwkv_block.h"

#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/zeros.h>

#include "vision/blocks/observe.h"
#include "vision/core/error.h"

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
  QShift shift = o.shift;
  if (o.heads > 0) {
    att6 = register_module(
        "att",
        SpatialMix6(SpatialMix6Options{
            .channels = o.channels, .heads = o.heads, .key_norm = o.key_norm, .shift = o.shift}));
    shift = att6->options.shift;
  } else {
    att = register_module(
        "att",
        SpatialMix(SpatialMixOptions{
            .channels = o.channels, .key_norm = o.key_norm, .shift = o.shift, .form = o.form}));
  }
  ffn = register_module("ffn",
                        ChannelMix(ChannelMixOptions{.channels = o.channels,
                                                     .hidden_rate = o.hidden_rate,
                                                     .key_norm = o.key_norm,
                                                     .shift = shift}));
  if (o.layer_scale != 0) {
    gamma1 = register_parameter("gamma1", at::full({o.channels}, o.layer_scale));
    gamma2 = register_parameter("gamma2", at::full({o.channels}, o.layer_scale));
  }
  drop_path = register_module("drop_path", DropPath(o.drop_path));
}

at::Tensor VisionRwkvBlockImpl::attend(const at::Tensor& x, int64_t height, int64_t width) {
  return att6 ? att6(x, height, width) : att(x, height, width);
}

at::Tensor VisionRwkvBlockImpl::scaled(const at::Tensor& branch, const at::Tensor& gamma) {
  return drop_path(gamma.defined() ? branch * gamma : branch);
}

at::Tensor VisionRwkvBlockImpl::forward(const at::Tensor& input, int64_t height, int64_t width) {
  at::Tensor x = ln0 ? run(ln0, input) : input;  // [B, T, C]
  if (options.post_norm) {
    x = x + scaled(run(ln1, attend(x, height, width)), gamma1);  // [B, T, C]
    x = x + scaled(run(ln2, ffn(x, height, width)), gamma2);     // [B, T, C]
  } else {
    x = x + scaled(attend(run(ln1, x), height, width), gamma1);  // [B, T, C]
    x = x + scaled(ffn(run(ln2, x), height, width), gamma2);     // [B, T, C]
  }
  return observed(*this, x);
}

namespace {

void start_evenly(VisionRwkvBlockImpl& block, double level, double mix) {
  SpatialMixImpl& att = *block.att;
  ChannelMixImpl& ffn = *block.ffn;
  for (auto* p : {&att.spatial_decay, &att.spatial_first}) p->fill_(level);
  for (auto* p : {&att.spatial_mix_k,
                  &att.spatial_mix_v,
                  &att.spatial_mix_r,
                  &ffn.spatial_mix_k,
                  &ffn.spatial_mix_r})
    p->fill_(mix);
}

}  // namespace

void start_mixes(VisionRwkvBlockImpl& block, MixStart start, int64_t layer, int64_t depth) {
  const at::NoGradGuard no_grad;
  if (start != MixStart::kFancy) {
    if (block.att6) throw Error("Vision-RWKV 6: its mixes start by MixStart::kFancy alone");
    return start == MixStart::kLocal ? start_evenly(block, 1, 1) : start_evenly(block, 0, 0.5);
  }
  const auto channels = block.options.channels;
  const auto l = static_cast<double>(layer), layers = static_cast<double>(depth);
  const double rising = depth > 1 ? l / (layers - 1) : 0, falling = 1 - l / layers;
  const at::Tensor along = ratios(channels, channels - 1), ratio = ratios(channels, channels);
  const at::Tensor zigzag = (at::arange(channels, at::kDouble) + 1).remainder(3) - 1;  // 0, 1, -1
  const at::Tensor mix = ratio.pow(falling).view({1, 1, -1});
  const at::Tensor mix_v = mix + 0.3 * rising;
  const at::Tensor mix_r = ratio.pow(0.5 * falling).view({1, 1, -1});
  const at::Tensor decay = along.pow(0.7 + 1.3 * rising);
  block.ffn->spatial_mix_k.copy_(mix);
  block.ffn->spatial_mix_r.copy_(mix);
  if (block.att6) {  // whose mixes are the neighbours' shares
    SpatialMix6Impl& att = *block.att6;
    for (auto* p : {&att.time_maa_x, &att.time_maa_w, &att.time_maa_k}) p->copy_(1 - mix);
    att.time_maa_v.copy_(1 - mix_v);
    for (auto* p : {&att.time_maa_r, &att.time_maa_g}) p->copy_(1 - mix_r);
    att.time_decay.copy_((decay * 5 - 6).view({1, 1, -1}));
    att.time_faaaa.copy_(((1 - along) * rising + zigzag * 0.1).view_as(att.time_faaaa));
    return;
  }
  SpatialMixImpl& att = *block.att;
  att.spatial_decay.copy_(decay * 8 - 5);
  att.spatial_first.copy_(zigzag * 0.5 + std::log(0.3));
  att.spatial_mix_k.copy_(mix);
  att.spatial_mix_v.copy_(mix_v);
  att.spatial_mix_r.copy_(mix_r);
}

}  // namespace vireo
