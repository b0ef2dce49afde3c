#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include "kernels/shift/shift.h"

namespace vireo {

struct SpatialMix6Options {
  int64_t channels = 0;
  int64_t heads = 1;        ///< divides the channels into at most 128 each
  bool key_norm = false;    ///< LayerNorm on the result of WKV6
  QShift shift = {};        ///< within every head, whatever its head_dim says
  int64_t mix_rank = 32;    ///< of the matrices that make the mixes depend on the token
  int64_t decay_rank = 64;  ///< of those that make the decay depend on it
};

/// Attention of Vision-RWKV 6 (Finch, arXiv 2404.05892): mixes of every token with its shifted
/// neighbours and a decay, both of the token's own making; WKV6 over all tokens; GroupNorm per
/// head; a SiLU gate. Names: `time_maa_x|w|k|v|r|g` [1,1,C]; `time_maa_w1` [C,5·mix_rank];
/// `time_maa_w2` [5,mix_rank,C]; `time_decay` [1,1,C]; `time_decay_w1` [C,decay_rank];
/// `time_decay_w2` [decay_rank,C]; `time_faaaa` [heads,C/heads];
/// `receptance|key|value|gate|output.weight` [C,C]; `key_norm.*`; `ln_x.*`. Starts with mixes and
/// decays zero and the low-rank matrices within 1e-4.
struct SpatialMix6Impl : torch::nn::Module {
  explicit SpatialMix6Impl(const SpatialMix6Options& options);
  /// [B, height·width, C] -> [B, height·width, C]
  at::Tensor forward(const at::Tensor& x, int64_t height, int64_t width);

  SpatialMix6Options options;
  at::Tensor time_maa_x, time_maa_w, time_maa_k, time_maa_v, time_maa_r, time_maa_g;
  at::Tensor time_maa_w1, time_maa_w2, time_decay, time_decay_w1, time_decay_w2, time_faaaa;
  torch::nn::Linear receptance{nullptr}, key{nullptr}, value{nullptr}, gate{nullptr},
      output{nullptr};
  torch::nn::LayerNorm key_norm{nullptr};
  torch::nn::GroupNorm ln_x{nullptr};
};
TORCH_MODULE(SpatialMix6);

}  // namespace vireo
