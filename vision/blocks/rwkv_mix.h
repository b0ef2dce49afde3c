#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include "kernels/bi_wkv/bi_wkv.h"
#include "kernels/shift/shift.h"

namespace vireo {

struct SpatialMixOptions {
  int64_t channels = 0;
  bool key_norm = false;  ///< LayerNorm on the result of Bi-WKV
  QShift shift = {};
  WkvForm form = WkvForm::kExact;  ///< kPublished: evaluation only
};

/// Attention of Vision-RWKV (arXiv 2403.02308): tokens are mixed with their shifted neighbours,
/// then with all others by Bi-WKV, and gated by sigmoid(receptance). Names: `spatial_decay`,
/// `spatial_first` [C]; `spatial_mix_k|v|r` [1,1,C]; `key|value|receptance| output.weight` [C,C];
/// `key_norm.*`. Starts with decay = first = 0 and mixes 0.5.
struct SpatialMixImpl : torch::nn::Module {
  explicit SpatialMixImpl(const SpatialMixOptions& options);
  /// [B, height·width, C] -> [B, height·width, C]
  at::Tensor forward(const at::Tensor& x, int64_t height, int64_t width);

  SpatialMixOptions options;
  at::Tensor spatial_decay, spatial_first, spatial_mix_k, spatial_mix_v, spatial_mix_r;
  torch::nn::Linear key{nullptr}, value{nullptr}, receptance{nullptr}, output{nullptr};
  torch::nn::LayerNorm key_norm{nullptr};

 private:
  /// sigmoid(r) times y, normalised where the block has a key_norm.
  at::Tensor gated(const at::Tensor& r, const at::Tensor& y);
};
TORCH_MODULE(SpatialMix);

struct ChannelMixOptions {
  int64_t channels = 0;
  int64_t hidden_rate = 4;  ///< hidden channels per channel
  bool key_norm = false;    ///< LayerNorm on the hidden channels
  QShift shift = {};
};

/// Feed-forward half of Vision-RWKV: sigmoid(receptance)·value(relu(key)^2), key and receptance of
/// tokens mixed with their shifted neighbours.
/// Names: `spatial_mix_k|r` [1,1,C]; `key.weight` [hidden,C]; `value.weight` [C,hidden];
/// `receptance.weight` [C,C]; `key_norm.*`. Starts with mixes 0.5.
struct ChannelMixImpl : torch::nn::Module {
  explicit ChannelMixImpl(const ChannelMixOptions& options);
  /// [B, height·width, C] -> [B, height·width, C]
  at::Tensor forward(const at::Tensor& x, int64_t height, int64_t width);

  ChannelMixOptions options;
  at::Tensor spatial_mix_k, spatial_mix_r;
  torch::nn::Linear key{nullptr}, value{nullptr}, receptance{nullptr};
  torch::nn::LayerNorm key_norm{nullptr};
};
TORCH_MODULE(ChannelMix);

}  // namespace vireo
