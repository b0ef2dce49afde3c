#pragma once

#include <string>
#include <vector>

#include <torch/nn/modules/conv.h>

#include "models/registry.h"
#include "vision/blocks/position_embedding.h"
#include "vision/blocks/vision_rwkv_block.h"

// Vision-RWKV (arXiv 2403.02308): patches as tokens, layers of Bi-WKV and channel mixing, and a
// linear classifier on the mean token. Vision-RWKV 6 is the same network with WKV6, a matrix state
// per head with decays of the tokens' own making, in place of Bi-WKV.
namespace vireo {

struct VisionRwkvConfig {
  int64_t in_channels = 3;
  /// Channels of the patch embedding; 3 with one input channel repeats a grey image, so that
  /// published weights fit.
  int64_t stem_channels = 3;
  int64_t classes = 1000;
  int64_t image_size = 224;  ///< of the square that the position embedding is stored for
  int64_t patch_size = 16;
  int64_t channels = 0;
  int64_t depth = 0;
  int64_t heads = 0;  ///< of WKV6; 0: Bi-WKV
  int64_t hidden_rate = 4;
  bool key_norm = false;
  bool post_norm = false;
  double layer_scale = 0;  ///< initial value of gamma1 and gamma2; 0: none
  MixStart start = MixStart::kFancy;
  QShift shift = {};
  double drop_path = 0;  ///< of the last layer; rises linearly from 0
  Interpolation interpolation = Interpolation::kBicubic;  ///< of the position embedding
  WkvForm wkv_form = WkvForm::kExact;
  bool checkpointing = false;  ///< training recomputes every layer instead of keeping its inside

  /// 'T', 'S', 'B' or 'L'. With 1000 classes they hold 6.155, 23.81, 93.63 and 330.1 M parameters.
  /// The paper's table gives 334.9 M for L, which its published layers do not add up to.
  static VisionRwkvConfig preset(char size);
  /// Vision-RWKV 6 of size 'T', 'S' or 'B': 7.64, 27.67 and 104.88 M parameters with 1000 classes.
  static VisionRwkvConfig preset6(char size);
  /// Reads and finishes a [model] table; keys that are absent keep the values of `defaults`.
  /// `six`: of Vision-RWKV 6. Throws ConfigError.
  static VisionRwkvConfig from_toml(ConfigTable& table,
                                    const ModelShape& shape,
                                    const VisionRwkvConfig& defaults,
                                    bool six);
  int64_t grid() const { return image_size / patch_size; }
};

/// Names: `patch_embed.projection`, `pos_embed` [1, grid·grid, C], `layers.<i>`, `ln1`.
struct VisionRwkvBackboneImpl : torch::nn::Module {
  explicit VisionRwkvBackboneImpl(const VisionRwkvConfig& config);
  /// [B, in_channels, H, W] -> [B, h·w, C] with h = ceil(H / patch), w = ceil(W / patch): images
  /// are padded with zeros at the right and bottom.
  at::Tensor forward(const at::Tensor& image);
  /// The maps [B, C, h, w] behind the given layers, counted from 0 and increasing; the last layer's
  /// has passed `ln1`.
  std::vector<at::Tensor> features(const at::Tensor& image, const std::vector<int64_t>& layers);
  /// The position embedding for a grid of tokens, [1, height·width, C].
  at::Tensor positions(int64_t height, int64_t width) const;

  VisionRwkvConfig config;
  torch::nn::Conv2d projection{nullptr};  ///< registered as `patch_embed.projection`
  at::Tensor pos_embed;
  std::vector<VisionRwkvBlock> layers;
  torch::nn::LayerNorm ln1{nullptr};

 private:
  /// [B, h·w, C], before the first layer
  at::Tensor embed(const at::Tensor& image, int64_t* height, int64_t* width);
  at::Tensor run_layer(size_t index, const at::Tensor& x, int64_t height, int64_t width);
};
TORCH_MODULE(VisionRwkvBackbone);

/// Classifier: mean over the tokens of the last norm, then a linear layer. Any height and width;
/// the position embedding is resized to the grid at hand. Published names: `backbone.*`,
/// `head.fc.*`. The position embedding starts normal with deviation 0.02 and the head with 0.01;
/// mixes and decays by `start`, everything else as LibTorch does.
class VisionRwkv : public Model {
 public:
  explicit VisionRwkv(const VisionRwkvConfig& config);

  /// [B, in_channels, H, W] -> [B, classes]
  at::Tensor forward(const at::Tensor& image) override;
  int64_t input_channels() const override { return config_.in_channels; }
  int64_t class_count() const override { return config_.classes; }
  bool classifies() const override { return true; }
  std::shared_ptr<Model> inference_form(Arithmetic precision) const override;
  VisionRwkvBackbone& backbone() { return backbone_; }
  const VisionRwkvConfig& config() const { return config_; }

 private:
  VisionRwkvConfig config_;
  VisionRwkvBackbone backbone_{nullptr};
  torch::nn::Linear fc_{nullptr};
};

/// Throws Error where the image is not [batch, in_channels, height, width].
void check_vision_rwkv_input(const at::Tensor& image, const VisionRwkvConfig& config);

}  // namespace vireo
