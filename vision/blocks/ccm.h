#pragma once

#include <array>
#include <vector>

#include <torch/nn/modules/container/modulelist.h>

#include "vision/blocks/drop_path.h"
#include "vision/blocks/rwkv_mix.h"

namespace vireo {

/// Bilinear resizing (align_corners = False) of [B, C, H, W]; the input itself where nothing
/// changes.
at::Tensor resize_bilinear(const at::Tensor& x, int64_t height, int64_t width);

struct CcmOptions {
  std::vector<int64_t> widths;  ///< channels of the skips, deepest first
  int64_t mixed_width = 0;      ///< channels that each skip gets in the mix
  double drop_path = 0;
  QShift shift = {};
};

/// Cross-channel mix of RWKV-UNet's skip connections: all are brought to the finest one's grid and
/// to one width, mixed by a ChannelMix over their concatenation, and brought back.
/// Names: `projections.i`, `ln1`, `channel`, `final_projections.i`.
struct CcmImpl : torch::nn::Module {
  explicit CcmImpl(const CcmOptions& options);
  /// Maps [B, widths[i], H_i, W_i], the last one the finest; returns maps of the same shapes.
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& skips);

  CcmOptions options;
  torch::nn::ModuleList projections{nullptr}, final_projections{nullptr};
  torch::nn::LayerNorm ln1{nullptr};
  ChannelMix channel{nullptr};
  DropPath drop_path{nullptr};
};
TORCH_MODULE(Ccm);

}  // namespace vireo
