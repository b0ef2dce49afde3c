#pragma once

#include <array>
#include <functional>
#include <set>
#include <string>

#include "models/rwkv_unet_encoder.h"
#include "vision/blocks/ccm.h"

// RWKV-UNet (arXiv 2501.08458): an encoder of IR-RWKV blocks, the cross-channel mix over its skips,
// and a decoder of large depthwise convolutions.
namespace vireo {

struct RwkvUnetConfig : RwkvUnetEncoderConfig {
  int64_t decoder_kernel = 9;
  double ccm_drop_path = 0.05;  ///< of the cross-channel mix

  /// 'T', 'S' or 'B'.
  static RwkvUnetConfig preset(char size);
  /// Reads and finishes a [model] table; keys that are absent keep the values of `defaults`.
  /// Throws ConfigError.
  static RwkvUnetConfig from_toml(ConfigTable& table,
                                  const ModelShape& shape,
                                  const RwkvUnetConfig& defaults);
};

/// One step of the decoder: 1x1 and large depthwise convolution, projection, bilinear x2.
/// Names: `conv`, `conv_local`, `proj`.
struct RwkvUnetDecoderImpl : torch::nn::Module {
  RwkvUnetDecoderImpl(int64_t in, int64_t out, int64_t kernel);
  /// [B, in, H, W] -> [B, out, H, W], before the upsampling
  at::Tensor features(const at::Tensor& x);
  /// [B, in, H, W] -> [B, out, 2H, 2W]
  at::Tensor forward(const at::Tensor& x);

  ConvNormAct conv{nullptr}, conv_local{nullptr}, proj{nullptr};
};
TORCH_MODULE(RwkvUnetDecoder);

/// Any height and width: images are padded at the right and bottom to multiples of 16 (reflected;
/// replicated where the padding is not smaller than the side) and the logits cropped back.
/// Names are those of the published checkpoints; what these hold beside is `is_known_unused`.
class RwkvUnet : public Model {
 public:
  explicit RwkvUnet(const RwkvUnetConfig& config);

  /// [B, in_channels, H, W] -> [B, classes, H, W]
  at::Tensor forward(const at::Tensor& image) override;
  int64_t input_channels() const override { return config_.in_channels; }
  int64_t class_count() const override { return config_.classes; }
  bool is_known_unused(const std::string& state_name) const override;
  std::shared_ptr<Model> inference_form(Arithmetic precision) const override;
  const RwkvUnetConfig& config() const { return config_; }
  const RwkvUnetStages& stages() const { return stages_; }
  const Ccm& ccm() const { return ccm_; }
  const std::array<RwkvUnetDecoder, 4>& decoders() const { return decoders_; }
  const torch::nn::Conv2d& final_conv() const { return final_conv_; }

 private:
  void build_decoder();
  at::Tensor forward_padded(const at::Tensor& image);

  RwkvUnetConfig config_;
  std::shared_ptr<torch::nn::Module> encoder_;
  RwkvUnetStages stages_;
  Ccm ccm_{nullptr};
  std::array<RwkvUnetDecoder, 4> decoders_{nullptr, nullptr, nullptr, nullptr};
  torch::nn::Conv2d final_conv_{nullptr};
  std::set<std::string> unused_;
};

/// [B, C, H, W] of any size -> [B, K, H, W] by a network for multiples of 16, as RwkvUnet says.
/// Throws Error where the image has not `channels` channels.
at::Tensor on_padded(const at::Tensor& image,
                     int64_t channels,
                     const std::function<at::Tensor(const at::Tensor&)>& network);

}  // namespace vireo
