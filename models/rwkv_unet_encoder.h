#pragma once

#include <array>
#include <set>
#include <string>
#include <vector>

#include "models/registry.h"
#include "vision/blocks/ir_rwkv.h"

// The encoder of RWKV-UNet (arXiv 2501.08458): a stem and four stages of IR-RWKV blocks.
namespace vireo {

struct RwkvUnetEncoderConfig {
  int64_t in_channels = 1;  ///< 1: the image is repeated for a stem of three, as published
  int64_t classes = 2;
  int64_t stem_width = 24;
  std::array<int64_t, 4> depths{};  ///< blocks in stages 1 to 4
  std::array<int64_t, 4> dims{};
  std::array<double, 4> expansions{};
  int64_t stem_kernel = 5;
  std::array<int64_t, 4> kernels{5, 5, 5, 5};
  std::array<NormKind, 4> norms{
      NormKind::kBatch, NormKind::kBatch, NormKind::kLayer, NormKind::kLayer};
  std::array<bool, 4> attention{false, false, true, true};
  double drop_path = 0.05;  ///< of the last block; rises linearly from 0
  WkvForm wkv_form = WkvForm::kExact;

  /// 'T', 'S' or 'B'.
  static RwkvUnetEncoderConfig preset(char size);
  /// Reads and finishes the [model] table of a classifier; keys that are absent keep the values of
  /// `defaults`. Throws ConfigError.
  static RwkvUnetEncoderConfig from_toml(ConfigTable& table,
                                         const ModelShape& shape,
                                         const RwkvUnetEncoderConfig& defaults);
  int64_t stem_channels() const { return in_channels == 1 ? 3 : in_channels; }

 protected:
  void read(ConfigTable& table, const ModelShape& shape);
};

/// The blocks of stage 0 (the stem) to stage 4.
class RwkvUnetStages {
 public:
  /// Registers them in `owner` as `stage<s>.<i>`.
  RwkvUnetStages(torch::nn::Module& owner, const RwkvUnetEncoderConfig& config);

  /// [B, in_channels, H, W] -> behind stages s = 1 to 4: [B, dims[s - 1], ceil(H / 2^s), ceil(W /
  /// 2^s)], channels-last
  std::array<at::Tensor, 4> forward(const at::Tensor& image);
  /// Names below `owner` that published files hold though the blocks never use them: an attention
  /// and two norms in every block.
  const std::set<std::string>& unused_names() const { return unused_; }
  const std::array<std::vector<IrRwkvBlock>, 5>& blocks() const { return blocks_; }
  int64_t stem_channels() const { return stem_channels_; }

 private:
  void add(torch::nn::Module& owner, size_t stage, const IrRwkvOptions& options);

  int64_t stem_channels_;
  std::array<std::vector<IrRwkvBlock>, 5> blocks_;
  std::set<std::string> unused_;
};

/// Linear weights start normal with deviation 0.02 and their biases at zero; norms start at one and
/// zero and convolutions as LibTorch does.
void start_rwkv_unet(torch::nn::Module& network);

/// The encoder as a classifier, as it is published for ImageNet: norm, mean over all pixels, linear
/// layer. (The published code holds the two layers without using them; this is their use in EMO's
/// classifier, arXiv 2301.01146, in whose framework the encoder was pretrained.) Any height and
/// width; nothing is padded. Names are those of the published files: `stage<s>.<i>`, `norm`,
/// `head`. In an RWKV-UNet they stand below `encoder.`.
class RwkvUnetEncoder : public Model {
 public:
  explicit RwkvUnetEncoder(const RwkvUnetEncoderConfig& config);

  /// [B, in_channels, H, W] -> [B, classes]
  at::Tensor forward(const at::Tensor& image) override;
  int64_t input_channels() const override { return config_.in_channels; }
  int64_t class_count() const override { return config_.classes; }
  bool classifies() const override { return true; }
  bool is_known_unused(const std::string& state_name) const override;
  std::shared_ptr<Model> inference_form(Arithmetic precision) const override;
  /// Names of what follows the stages.
  static std::vector<std::string> classifier_names(const RwkvUnetEncoderConfig& config);

 private:
  RwkvUnetEncoderConfig config_;
  RwkvUnetStages stages_;
  torch::nn::BatchNorm2d batch_norm_{nullptr};  ///< registered as `norm`
  LayerNorm2d layer_norm_{nullptr};             ///< registered as `norm`
  torch::nn::Linear head_{nullptr};
};

/// Throws Error where the image is not [batch, channels, height, width].
void check_encoder_input(const at::Tensor& image, int64_t channels);

}  // namespace vireo
