#include "vision/blocks/prepared_blocks.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>

#include "kernels/wkv6/wkv6.h"
#include "vision/blocks/ccm.h"

namespace vireo {
namespace {

/// Parameters that inference reads in float32.
at::Tensor plain(const at::Tensor& parameter) {
  return parameter.defined() ? parameter.detach().to(at::kFloat).contiguous() : parameter;
}

/// A linear layer without bias, its outputs times `scale`.
PackedLinear packed(const torch::nn::Linear& layer,
                    Arithmetic precision,
                    Finish finish = Finish::kNone,
                    const at::Tensor& scale = {}) {
  ChannelMap map = ChannelMap::of(layer->weight, layer->bias);
  if (scale.defined()) map.weight = map.weight * scale.detach().to(at::kDouble).unsqueeze(1);
  return map.packed(precision, finish);
}

}  // namespace

ChannelMap ChannelMap::of(const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t outer = weight.size(0);
  const at::Tensor numbers = weight.detach().to(at::kDouble).reshape({outer, -1});
  return {numbers,
          bias.defined() ? bias.detach().to(at::kDouble) : at::zeros({outer}, at::kDouble)};
}

ChannelMap ChannelMap::of(const torch::nn::BatchNorm2d& norm) {
  const auto number = [](const at::Tensor& x) { return x.detach().to(at::kDouble); };
  const at::Tensor scale =
      number(norm->weight) * (number(norm->running_var) + norm->options.eps()).rsqrt();
  return {scale.diag(), number(norm->bias) - number(norm->running_mean) * scale};
}

ChannelMap ChannelMap::of(const ConvNormActImpl& layer) {
  const ChannelMap conv = of(layer.conv->weight, layer.conv->bias);
  TORCH_CHECK(!layer.layer_norm, "a LayerNorm cannot be folded into the convolution before it");
  if (!layer.batch_norm) return conv;
  const ChannelMap norm = of(layer.batch_norm);
  const at::Tensor scale = norm.weight.diagonal();
  return {conv.weight * scale.unsqueeze(1), conv.bias * scale + norm.bias};
}

ChannelMap ChannelMap::after(const ChannelMap& first) const {
  return {weight.matmul(first.weight), weight.mv(first.bias) + bias};
}

PackedLinear ChannelMap::packed(Arithmetic precision, Finish finish) const {
  return {weight, bias, precision, finish};
}

PackedNorm packed_norm(const torch::nn::LayerNorm& norm, const at::Tensor& scale) {
  PackedNorm packed{plain(norm->weight), plain(norm->bias), norm->options.eps()};
  if (!scale.defined()) return packed;
  packed.weight = packed.weight * plain(scale);
  packed.bias = packed.bias * plain(scale);
  return packed;
}

at::Tensor normalised(const at::Tensor& x, const PackedNorm& norm) {
  return at::layer_norm(x, norm.weight.sizes(), norm.weight, norm.bias, norm.eps);
}

PreparedSpatialMix::PreparedSpatialMix(const SpatialMixImpl& block,
                                       Arithmetic precision,
                                       const BehindBlock& behind)
    : options_(block.options),
      mixes_(plain(at::cat({block.spatial_mix_k, block.spatial_mix_v, block.spatial_mix_r}, 1))
                 .view({3, options_.channels})),
      decay_(plain(block.spatial_decay)),
      first_(plain(block.spatial_first)),
      key_(packed(block.key, precision)),
      value_(packed(block.value, precision)),
      receptance_(packed(block.receptance, precision, Finish::kSigmoid)),
      output_(packed(block.output, precision, Finish::kNone, behind.scale)),
      last_(behind.norm) {
  if (block.key_norm) key_norm_ = packed_norm(block.key_norm);
}

at::Tensor PreparedSpatialMix::operator()(const at::Tensor& x,
                                          int64_t height,
                                          int64_t width,
                                          const at::Tensor& added) const {
  const auto tokens = static_cast<double>(height * width);
  auto kvr = packed_token_mix(
      x, mixes_, {&key_, &value_, &receptance_}, height, width, options_.shift);  // [B, T, C]
  const at::Tensor y =
      bi_wkv(decay_ / tokens, first_ / tokens, kvr[0], kvr[1], options_.form);  // [B, T, C]
  kvr[0] = kvr[1] = at::Tensor();
  return packed_readout(y, key_norm_, kvr[2], output_, last_, added);  // [B, T, C]
}

PreparedSpatialMix6::PreparedSpatialMix6(const SpatialMix6Impl& block,
                                         Arithmetic precision,
                                         const BehindBlock& behind)
    : options_(block.options),
      bonus_(plain(block.time_faaaa)),
      maa_w1_(ChannelMap::of(block.time_maa_w1.t()).packed(precision)),
      decay_w1_(ChannelMap::of(block.time_decay_w1.t()).packed(precision)),
      decay_w2_(
          ChannelMap::of(block.time_decay_w2.t(), block.time_decay.flatten()).packed(precision)),
      receptance_(packed(block.receptance, precision)),
      key_(packed(block.key, precision)),
      value_(packed(block.value, precision)),
      gate_(packed(block.gate, precision, Finish::kSilu)),
      output_(packed(block.output, precision, Finish::kNone, behind.scale)),
      group_norm_{plain(block.ln_x->weight), plain(block.ln_x->bias), block.ln_x->options.eps()},
      last_(behind.norm) {
  const at::ScalarType type = activation_type(precision);
  maa_x_ = plain(block.time_maa_x).to(type);
  maa_ = at::stack({block.time_maa_w,
                    block.time_maa_k,
                    block.time_maa_v,
                    block.time_maa_r,
                    block.time_maa_g})
             .detach()
             .to(type)
             .view({5, 1, options_.channels});
  maa_w2_ = block.time_maa_w2.detach().to(type);
  if (block.key_norm) key_norm_ = packed_norm(block.key_norm);
}

at::Tensor PreparedSpatialMix6::operator()(const at::Tensor& x,
                                           int64_t height,
                                           int64_t width,
                                           const at::Tensor& added) const {
  const int64_t batch = x.size(0), tokens = x.size(1), channels = x.size(2);
  const at::Tensor away = q_shift(x, height, width, options_.shift).sub_(x);  // [B, T, C]
  const at::Tensor hidden = maa_w1_(at::addcmul(x, away, maa_x_)).tanh_();    // [B, T, 5 R]
  at::Tensor mixed =
      at::baddbmm(
          maa_, hidden.view({batch * tokens, 5, options_.mix_rank}).transpose(0, 1), maa_w2_)
          .view({5, batch, tokens, channels});
  mixed.mul_(away).add_(x);
  const at::Tensor w = decay_w2_(decay_w1_(mixed[0]).tanh_());      // [B, T, C]
  const at::Tensor k = key_(mixed[1]), v = value_(mixed[2]);        // [B, T, C]
  const at::Tensor r = receptance_(mixed[3]), g = gate_(mixed[4]);  // [B, T, C]
  mixed = at::Tensor();
  at::Tensor y = wkv6(r, k, v, w, bonus_);  // [B, T, C]
  if (key_norm_.defined()) y = normalised(y, key_norm_);
  y = at::group_norm(y.reshape({batch * tokens, channels}),
                     options_.heads,
                     group_norm_.weight,
                     group_norm_.bias,
                     group_norm_.eps)
          .view({batch, tokens, channels});
  return packed_readout(y, {}, g, output_, last_, added);  // [B, T, C]
}

PackedChannelMix prepared_channel_mix(const ChannelMixImpl& block,
                                      Arithmetic precision,
                                      const BehindBlock& behind) {
  const int64_t channels = block.options.channels;
  PackedChannelMix mix;
  mix.mixes = plain(at::cat({block.spatial_mix_k, block.spatial_mix_r}, 1)).view({2, channels});
  mix.key = packed(block.key, precision, Finish::kReluSquared);
  mix.receptance = packed(block.receptance, precision, Finish::kSigmoid);
  mix.value = packed(block.value, precision, Finish::kNone, behind.scale);
  if (block.key_norm) mix.norm = packed_norm(block.key_norm);
  mix.last = behind.norm;
  mix.shift = block.options.shift;
  return mix;
}

bool PreparedIrRwkv::can_fold(const IrRwkvBlockImpl& block, const IrRwkvBlockImpl& next) {
  return !block.options.skip && !next.options.skip && !next.layer_norm;
}

PreparedIrRwkv::PreparedIrRwkv(const IrRwkvBlockImpl& block,
                               Arithmetic precision,
                               const ProjectionFolding& folding)
    : options_(block.options) {
  TORCH_CHECK(!(block.se && options_.skip),
              "an IR-RWKV block with squeeze and excitation and a skip has no inference form");
  if (block.layer_norm) norm_ = packed_norm(block.layer_norm->norm);
  ChannelMap expand = ChannelMap::of(*block.conv);
  if (block.batch_norm) expand = expand.after(ChannelMap::of(block.batch_norm));
  if (folding.before) expand = expand.after(*folding.before);
  const PackedLinear expansion = expand.packed(precision, Finish::kRelu);
  const PackedLinear projection =
      folding.leave ? PackedLinear() : ChannelMap::of(*block.proj).packed(precision);

  const auto& conv = *block.conv_local;
  PackedLocalBlock::Parts parts;
  const ChannelMap norm = ChannelMap::of(conv.batch_norm);
  parts.weight =
      conv.conv->weight.detach().to(at::kDouble) * norm.weight.diagonal().view({-1, 1, 1, 1});
  parts.bias = norm.bias;
  parts.stride = options_.stride;
  parts.skip = options_.skip;
  if (block.att) {
    expand_ = expansion;
    att_.emplace(*block.att, precision, BehindBlock{{}, packed_norm(block.ln1)});
  } else {
    parts.expand = expansion;
  }
  if (block.se) {
    project_ = projection;
    reduce_weight_ = plain(block.se->conv_reduce->weight).flatten(1);
    reduce_bias_ = plain(block.se->conv_reduce->bias);
    expand_weight_ = plain(block.se->conv_expand->weight).flatten(1);
    expand_bias_ = plain(block.se->conv_expand->bias);
  } else {
    parts.project = projection;
  }
  local_ = PackedLocalBlock(parts, precision);
}

at::Tensor PreparedIrRwkv::attended(const at::Tensor& map) const {
  const int64_t height = map.size(1), width = map.size(2);
  const at::Tensor tokens = map.view({map.size(0), height * width, map.size(3)});  // [B, T, C]
  return (*att_)(tokens, height, width, tokens).view(map.sizes());
}

void PreparedIrRwkv::excite(at::Tensor& map) const {
  at::Tensor gate = map.mean(at::IntArrayRef{1, 2}, /*keepdim=*/true, at::kFloat);  // [B, 1, 1, C]
  gate = activate(at::linear(gate, reduce_weight_, reduce_bias_), options_.se_act);
  gate = at::sigmoid(at::linear(gate, expand_weight_, expand_bias_));
  map.mul_(gate.to(map.scalar_type()));
}

at::Tensor PreparedIrRwkv::operator()(const at::Tensor& x) const {
  at::Tensor y = norm_.defined() ? normalised(x, norm_) : x;  // [B, H, W, in]
  if (att_) y = attended(expand_(y));                         // [B, H, W, hidden]
  y = local_(y, options_.skip ? x : at::Tensor());
  if (reduce_weight_.defined()) excite(y);
  return project_.defined() ? project_(y) : y;  // [B, H', W', out]
}

at::Tensor resize_map(const at::Tensor& x, int64_t height, int64_t width) {
  return resize_bilinear(x.permute({0, 3, 1, 2}), height, width)
      .contiguous(at::MemoryFormat::ChannelsLast)
      .permute({0, 2, 3, 1});
}

at::Tensor map_from_image(const at::Tensor& image, int64_t channels, Arithmetic precision) {
  const at::Tensor x = image.size(1) == channels ? image : image.expand({-1, channels, -1, -1});
  return x.permute({0, 2, 3, 1}).to(activation_type(precision)).contiguous();
}

}  // namespace vireo
