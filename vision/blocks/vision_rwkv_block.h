#pragma once

#include "vision/blocks/drop_path.h"
#include "vision/blocks/rwkv_mix.h"
#include "vision/blocks/spatial_mix6.h"

namespace vireo {

struct VisionRwkvBlockOptions {
  int64_t channels = 0;
  int64_t heads = 0;  ///< 0: SpatialMix; otherwise SpatialMix6, and shifts within every head
  int64_t hidden_rate = 4;
  bool first = false;      ///< the first of a network begins with a norm of its own
  bool post_norm = false;  ///< norms behind the branches instead of before them
  bool key_norm = false;
  double layer_scale = 0;  ///< initial factor of both branches; 0: none
  double drop_path = 0;
  QShift shift = {};
  WkvForm form = WkvForm::kExact;
};

/// One layer of Vision-RWKV (arXiv 2403.02308): x + gamma1·att(ln1 x), then x + gamma2·ffn(ln2 x);
/// with post-norm x + gamma1·ln1(att x), and so on.
/// Names: `ln0` (first alone), `ln1`, `ln2`, `att`, `ffn`, `gamma1|2` [C] (with layer scale).
struct VisionRwkvBlockImpl : torch::nn::Module {
  explicit VisionRwkvBlockImpl(const VisionRwkvBlockOptions& options);
  /// [B, height·width, C] -> [B, height·width, C]
  at::Tensor forward(const at::Tensor& x, int64_t height, int64_t width);

  VisionRwkvBlockOptions options;
  torch::nn::LayerNorm ln0{nullptr}, ln1{nullptr}, ln2{nullptr};
  SpatialMix att{nullptr};    ///< registered as `att`, without heads
  SpatialMix6 att6{nullptr};  ///< registered as `att`, with heads
  ChannelMix ffn{nullptr};
  at::Tensor gamma1, gamma2;
  DropPath drop_path{nullptr};

 private:
  at::Tensor attend(const at::Tensor& x, int64_t height, int64_t width);
  at::Tensor scaled(const at::Tensor& branch, const at::Tensor& gamma);
};
TORCH_MODULE(VisionRwkvBlock);

/// How the mixes and decays of a layer start; Vision-RWKV 6 knows kFancy alone.
enum class MixStart {
  kFancy,   ///< spread over channels and layers, as RWKV does; what the published networks use
  kLocal,   ///< decays, bonuses and mixes one: every token begins with itself
  kGlobal,  ///< decays and bonuses zero, mixes one half: a plain mean over all tokens
};

/// Sets the mixes and decays of layer `layer` of `depth`.
void start_mixes(VisionRwkvBlockImpl& block, MixStart start, int64_t layer, int64_t depth);

}  // namespace vireo
