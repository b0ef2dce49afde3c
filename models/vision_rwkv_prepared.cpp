#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linear.h>

#include "models/vision_rwkv.h"
#include "vision/blocks/prepared_blocks.h"

// Vision-RWKV of both generations as inference on the CPU runs it.
namespace vireo {
namespace {

class PreparedLayer {
 public:
  PreparedLayer(const VisionRwkvBlockImpl& block, Arithmetic precision)
      : post_norm_(block.options.post_norm),
        ffn_(prepared_channel_mix(*block.ffn, precision, behind(block.ln2, block.gamma2))) {
    if (block.ln0) ln0_ = packed_norm(block.ln0);
    if (!post_norm_) {
      ln1_ = packed_norm(block.ln1);
      ln2_ = packed_norm(block.ln2);
    }
    const BehindBlock last = behind(block.ln1, block.gamma1);
    if (block.att) att_.emplace(*block.att, precision, last);
    if (block.att6) att6_.emplace(*block.att6, precision, last);
  }

  /// [B, T, C] -> [B, T, C]
  at::Tensor operator()(const at::Tensor& input, int64_t height, int64_t width) const {
    at::Tensor x = before(input, ln0_);
    const at::Tensor y = before(x, ln1_);
    x = att_ ? (*att_)(y, height, width, x) : (*att6_)(y, height, width, x);
    return ffn_(before(x, ln2_), height, width, x);
  }

 private:
  BehindBlock behind(const torch::nn::LayerNorm& norm, const at::Tensor& gamma) const {
    if (post_norm_) return {{}, packed_norm(norm, gamma)};
    return {gamma, {}};
  }
  static at::Tensor before(const at::Tensor& x, const PackedNorm& norm) {
    return norm.defined() ? normalised(x, norm) : x;
  }

  bool post_norm_;
  PackedNorm ln0_, ln1_, ln2_;
  std::optional<PreparedSpatialMix> att_;
  std::optional<PreparedSpatialMix6> att6_;
  PackedChannelMix ffn_;
};

class PreparedVisionRwkv : public Model {
 public:
  PreparedVisionRwkv(const VisionRwkvConfig& config,
                     const VisionRwkvBackboneImpl& backbone,
                     const torch::nn::Linear& head,
                     Arithmetic precision)
      : config_(config),
        precision_(precision),
        pos_embed_(backbone.pos_embed.detach().clone()),
        embed_(ChannelMap::of(backbone.projection->weight.permute({0, 2, 3, 1}),
                              backbone.projection->bias)
                   .packed(precision)),
        norm_(packed_norm(backbone.ln1)),
        head_weight_(head->weight.detach().clone()),
        head_bias_(head->bias.detach().clone()) {
    for (const VisionRwkvBlock& layer : backbone.layers) layers_.emplace_back(*layer, precision);
  }

  at::Tensor forward(const at::Tensor& image) override {
    check_vision_rwkv_input(image, config_);
    const at::NoGradGuard no_grad;
    int64_t height = 0, width = 0;
    at::Tensor x = embed(image, &height, &width);  // [B, T, C]
    for (const PreparedLayer& layer : layers_) x = layer(x, height, width);
    return at::linear(
        normalised(x, norm_).mean(1, false, at::kFloat), head_weight_, head_bias_);  // [B, K]
  }
  int64_t input_channels() const override { return config_.in_channels; }
  int64_t class_count() const override { return config_.classes; }
  bool classifies() const override { return true; }

 private:
  /// Patches are rows of a matrix: one copy, and one product.
  at::Tensor embed(const at::Tensor& image, int64_t* height, int64_t* width) const {
    const int64_t patch = config_.patch_size, batch = image.size(0);
    const auto missing = [&](int64_t extent) { return (patch - extent % patch) % patch; };
    at::Tensor x = image;
    if (missing(image.size(3)) > 0 || missing(image.size(2)) > 0)
      x = at::constant_pad_nd(x, {0, missing(image.size(3)), 0, missing(image.size(2))});
    x = map_from_image(x, config_.stem_channels, precision_);  // [B, H, W, 3]
    *height = x.size(1) / patch;
    *width = x.size(2) / patch;
    x = x.view({batch, *height, patch, *width, patch * config_.stem_channels})
            .transpose(2, 3)
            .reshape({batch, *height * *width, patch * patch * config_.stem_channels});
    const at::Tensor positions = resize_positions(
        pos_embed_, config_.grid(), config_.grid(), *height, *width, config_.interpolation);
    return embed_(x).add_(positions);  // [B, T, C]
  }

  VisionRwkvConfig config_;
  Arithmetic precision_;
  at::Tensor pos_embed_;
  PackedLinear embed_;
  std::vector<PreparedLayer> layers_;
  PackedNorm norm_;
  at::Tensor head_weight_, head_bias_;
};

}  // namespace

std::shared_ptr<Model> VisionRwkv::inference_form(Arithmetic precision) const {
  return std::make_shared<PreparedVisionRwkv>(config_, *backbone_, fc_, precision);
}

}  // namespace vireo
