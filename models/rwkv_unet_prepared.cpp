#include <algorithm>

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

#include "models/rwkv_unet.h"
#include "vision/blocks/prepared_blocks.h"
#include "vision/core/error.h"

// RWKV-UNet and its encoder as inference on the CPU runs them.
namespace vireo {
namespace {

class PreparedStages {
 public:
  PreparedStages(const RwkvUnetStages& stages, Arithmetic precision)
      : channels_(stages.stem_channels()), precision_(precision) {
    const IrRwkvBlock *before = nullptr, *stem = &stages.blocks()[0][0];
    for (size_t stage = 0; stage < 5; ++stage)
      for (const IrRwkvBlock& block : stages.blocks()[stage]) {
        const bool folds_stem = before == stem && PreparedIrRwkv::can_fold(**stem, *block);
        ProjectionFolding folding;
        if (folds_stem) folding.before = ChannelMap::of(*(*stem)->proj);
        if (&block == stem)
          folding.leave = PreparedIrRwkv::can_fold(*block, *stages.blocks()[1][0]);
        blocks_[stage].emplace_back(*block, precision, folding);
        before = &block;
      }
  }

  /// [B, in_channels, H, W] -> behind stages s = 1 to 4: [B, H / 2^s, W / 2^s, dims[s - 1]]
  std::array<at::Tensor, 4> operator()(const at::Tensor& image) const {
    at::Tensor x = map_from_image(image, channels_, precision_);
    std::array<at::Tensor, 4> levels;
    for (size_t stage = 0; stage < blocks_.size(); ++stage) {
      for (const PreparedIrRwkv& block : blocks_[stage]) x = block(x);
      if (stage > 0) levels[stage - 1] = x;
    }
    return levels;
  }

 private:
  int64_t channels_;
  Arithmetic precision_;
  std::array<std::vector<PreparedIrRwkv>, 5> blocks_;
};

PackedLinear packed_conv(const torch::nn::Conv2dImpl& conv, Arithmetic precision) {
  return ChannelMap::of(conv.weight, conv.bias).packed(precision);
}

/// The cross-channel mix up to its last projections, which the decoder folds into its own.
class PreparedCcm {
 public:
  PreparedCcm(const CcmImpl& ccm, Arithmetic precision)
      : mix_(prepared_channel_mix(*ccm.channel, precision, BehindBlock{{}, packed_norm(ccm.ln1)})) {
    for (size_t i = 0; i < ccm.options.widths.size(); ++i)
      projections_.push_back(packed_conv(ccm.projections->at<torch::nn::Conv2dImpl>(i), precision));
  }

  /// Maps [B, H_i, W_i, widths[i]], the last one the finest; returns [B, H_i, W_i, mixed] each.
  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& skips) const {
    const int64_t batch = skips.back().size(0), height = skips.back().size(1),
                  width = skips.back().size(2);
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i < skips.size(); ++i)
      parts.push_back(resize_map(projections_[i](skips[i]), height, width));
    const at::Tensor map = at::cat(parts, 3);  // [B, H, W, n·mixed]
    parts.clear();
    const at::Tensor tokens = map.view({batch, height * width, map.size(3)});
    const at::Tensor mixed = mix_(tokens, height, width, tokens).view(map.sizes());
    const auto chunks = mixed.chunk(static_cast<int64_t>(skips.size()), 3);
    for (size_t i = 0; i < skips.size(); ++i)
      parts.push_back(resize_map(chunks[i], skips[i].size(1), skips[i].size(2)));
    return parts;
  }

 private:
  std::vector<PackedLinear> projections_;
  PackedChannelMix mix_;
};

/// [x, what the cross-channel mix projects its part to] -> [x, that part], for weights that are
/// then multiplied by this.
ChannelMap with_projected_part(const torch::nn::Conv2dImpl& projection, int64_t own) {
  const ChannelMap part = ChannelMap::of(projection.weight, projection.bias);
  const int64_t wide = part.weight.size(0), mixed = part.weight.size(1);
  ChannelMap map{at::zeros({own + wide, own + mixed}, at::kDouble),
                 at::zeros({own + wide}, at::kDouble)};
  map.weight.narrow(0, 0, own).narrow(1, 0, own).fill_diagonal_(1);
  map.weight.narrow(0, own, wide).narrow(1, own, mixed).copy_(part.weight);
  map.bias.narrow(0, own, wide).copy_(part.bias);
  return map;
}

PackedLocalBlock prepared_decoder(const RwkvUnetDecoderImpl& decoder,
                                  const std::optional<ChannelMap>& before,
                                  Arithmetic precision) {
  ChannelMap expand = ChannelMap::of(*decoder.conv);
  if (before) expand = expand.after(*before);
  const ChannelMap norm = ChannelMap::of(decoder.conv_local->batch_norm);
  PackedLocalBlock::Parts parts;
  parts.expand = expand.packed(precision, Finish::kRelu);
  parts.weight = decoder.conv_local->conv->weight.detach().to(at::kDouble) *
                 norm.weight.diagonal().view({-1, 1, 1, 1});
  parts.bias = norm.bias;
  parts.project = ChannelMap::of(*decoder.proj).packed(precision, Finish::kRelu);
  return {parts, precision};
}

// Images go through the network together as long as they hold no more pixels than this, so that its
// maps stay in the processor's last cache and its weights are read once for small ones.
constexpr int64_t kPixelsTogether = 1 << 16;

class PreparedRwkvUnet : public Model {
 public:
  PreparedRwkvUnet(const RwkvUnet& network, Arithmetic precision)
      : config_(network.config()),
        stages_(network.stages(), precision),
        ccm_(*network.ccm(), precision),
        final_conv_(packed_conv(*network.final_conv(), precision)) {
    for (size_t i = 0; i < 4; ++i) {
      std::optional<ChannelMap> before;
      if (i > 0) {
        const auto& projection = network.ccm()->final_projections->at<torch::nn::Conv2dImpl>(i - 1);
        before = with_projected_part(projection, config_.dims[3 - i]);
      }
      decoders_.push_back(prepared_decoder(*network.decoders()[i], before, precision));
    }
  }

  at::Tensor forward(const at::Tensor& image) override {
    return on_padded(image, config_.in_channels, [this](const at::Tensor& x) {
      const at::NoGradGuard no_grad;
      const int64_t batch = x.size(0);
      const int64_t together = std::max<int64_t>(1, kPixelsTogether / (x.size(2) * x.size(3)));
      if (batch <= together) return logits(x);
      std::vector<at::Tensor> parts;
      for (int64_t first = 0; first < batch; first += together)
        parts.push_back(logits(x.narrow(0, first, std::min(together, batch - first))));
      return at::cat(parts, 0);
    });
  }
  int64_t input_channels() const override { return config_.in_channels; }
  int64_t class_count() const override { return config_.classes; }

 private:
  at::Tensor logits(const at::Tensor& image) const {
    auto levels = stages_(image);
    auto skips = ccm_({levels[2], levels[1], levels[0]});
    at::Tensor x = decoders_[0](levels[3]);  // [B, H/16, W/16, dims[2]]
    levels = {};
    for (size_t i = 1; i < 4; ++i) {
      at::Tensor& skip = skips[i - 1];
      x = decoders_[i](at::cat({resize_map(x, skip.size(1), skip.size(2)), skip}, 3));
      skip = at::Tensor();
    }
    x = final_conv_(x, {}, {}, /*as_float32=*/true);                           // [B, H/2, W/2, K]
    return resize_map(x, 2 * x.size(1), 2 * x.size(2)).permute({0, 3, 1, 2});  // [B, K, H, W]
  }

  RwkvUnetConfig config_;
  PreparedStages stages_;
  PreparedCcm ccm_;
  std::vector<PackedLocalBlock> decoders_;
  PackedLinear final_conv_;
};

class PreparedRwkvUnetEncoder : public Model {
 public:
  PreparedRwkvUnetEncoder(const RwkvUnetEncoderConfig& config,
                          const RwkvUnetStages& stages,
                          const std::function<at::Tensor(const at::Tensor&)>& head,
                          Arithmetic precision)
      : config_(config), stages_(stages, precision), head_(head) {}

  at::Tensor forward(const at::Tensor& image) override {
    check_encoder_input(image, config_.in_channels);
    const at::NoGradGuard no_grad;
    return head_(stages_(image)[3].to(at::kFloat));  // [B, K]
  }
  int64_t input_channels() const override { return config_.in_channels; }
  int64_t class_count() const override { return config_.classes; }
  bool classifies() const override { return true; }

 private:
  RwkvUnetEncoderConfig config_;
  PreparedStages stages_;
  std::function<at::Tensor(const at::Tensor&)> head_;
};

at::Tensor copied(const at::Tensor& parameter) {
  return parameter.detach().clone();
}

}  // namespace

std::shared_ptr<Model> RwkvUnet::inference_form(Arithmetic precision) const {
  return std::make_shared<PreparedRwkvUnet>(*this, precision);
}

std::shared_ptr<Model> RwkvUnetEncoder::inference_form(Arithmetic precision) const {
  const at::Tensor weight = copied(head_->weight), bias = copied(head_->bias);
  PackedNorm layer_norm;
  if (layer_norm_) layer_norm = packed_norm(layer_norm_->norm);
  ChannelMap last = ChannelMap::of(weight, bias);
  if (batch_norm_) last = last.after(ChannelMap::of(batch_norm_));
  const at::Tensor last_weight = last.weight.to(at::kFloat), last_bias = last.bias.to(at::kFloat);
  const auto head = [=](const at::Tensor& map) {  // [B, H/16, W/16, dims[3]]
    const at::Tensor x = layer_norm.defined() ? normalised(map, layer_norm) : map;
    return at::linear(x.mean(at::IntArrayRef{1, 2}), last_weight, last_bias);
  };
  return std::make_shared<PreparedRwkvUnetEncoder>(config_, stages_, head, precision);
}

}  // namespace vireo
