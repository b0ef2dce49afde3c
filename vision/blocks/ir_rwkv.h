#pragma once

#include "vision/blocks/conv_norm_act.h"
#include "vision/blocks/drop_path.h"
#include "vision/blocks/rwkv_mix.h"

namespace vireo {

struct IrRwkvOptions {
  int64_t in = 0, out = 0;
  double expansion = 1;  ///< hidden width = int(in · expansion)
  int64_t kernel = 5;    ///< of the depthwise convolution; odd
  int64_t stride = 1;
  NormKind norm = NormKind::kBatch;  ///< of the input
  ActKind se_act = ActKind::kSilu;
  double se_ratio = 0;  ///< squeezed share of the hidden width; 0: no squeeze and excitation
  bool attention = false;
  bool skip = false;  ///< needs stride 1 and in = out
  double drop_path = 0;
  QShift shift = {};
  WkvForm form = WkvForm::kExact;

  int64_t hidden() const { return static_cast<int64_t>(static_cast<double>(in) * expansion); }
};

/// Inverted residual block with RWKV attention, "GLSP" in the published code (RWKV-UNet, arXiv
/// 2501.08458): norm, 1x1 expansion, SpatialMix over all pixels, depthwise convolution, squeeze and
/// excitation, 1x1 projection.
/// Names: `norm`, `conv`, `att`, `ln1`, `conv_local`, `se`, `proj`; those without a use are absent.
struct IrRwkvBlockImpl : torch::nn::Module {
  explicit IrRwkvBlockImpl(const IrRwkvOptions& options);
  /// [B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]
  at::Tensor forward(const at::Tensor& x);

  IrRwkvOptions options;
  torch::nn::BatchNorm2d batch_norm{nullptr};  ///< registered as `norm`
  LayerNorm2d layer_norm{nullptr};             ///< registered as `norm`
  ConvNormAct conv{nullptr}, conv_local{nullptr}, proj{nullptr};
  SpatialMix att{nullptr};
  torch::nn::LayerNorm ln1{nullptr};
  SqueezeExcite se{nullptr};
  DropPath drop_path{nullptr};

 private:
  at::Tensor attend(const at::Tensor& map);
};
TORCH_MODULE(IrRwkvBlock);

}  // namespace vireo
