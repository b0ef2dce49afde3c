#pragma once

#include <optional>
#include <vector>

#include "kernels/packed/packed_local_block.h"
#include "kernels/packed/packed_mix.h"
#include "vision/blocks/conv_norm_act.h"
#include "vision/blocks/ir_rwkv.h"
#include "vision/blocks/rwkv_mix.h"
#include "vision/blocks/spatial_mix6.h"

// Blocks in the form that inference on the CPU runs: weights folded and packed once, from trained
// blocks that stay as they are. Maps are [B,H,W,C] and tokens [B,T,C] of activation_type(), the
// same memory. No gradients.
namespace vireo {

/// y = weight x + bias for the channels of a pixel: a 1x1 convolution and what folds into it.
struct ChannelMap {
  at::Tensor weight;  ///< [N,K], float64
  at::Tensor bias;    ///< [N], float64

  /// A 1x1 convolution or linear layer; the bias may be undefined.
  static ChannelMap of(const at::Tensor& weight, const at::Tensor& bias = {});
  /// Its convolution with the BatchNorm behind it, where there is one.
  static ChannelMap of(const ConvNormActImpl& layer);
  static ChannelMap of(const torch::nn::BatchNorm2d& norm);
  /// This map of what `first` gives.
  ChannelMap after(const ChannelMap& first) const;

  PackedLinear packed(Arithmetic precision, Finish finish = Finish::kNone) const;
};

/// The weights of a LayerNorm over channels, times `scale` [C] where that is given.
PackedNorm packed_norm(const torch::nn::LayerNorm& norm, const at::Tensor& scale = {});
/// [..., C] -> [..., C]
at::Tensor normalised(const at::Tensor& x, const PackedNorm& norm);

/// What stands behind a block: its result is multiplied by `scale` [C], or passes a `norm`.
struct BehindBlock {
  at::Tensor scale;
  PackedNorm norm;
};

class PreparedSpatialMix {
 public:
  PreparedSpatialMix(const SpatialMixImpl& block,
                     Arithmetic precision,
                     const BehindBlock& behind = {});
  /// x [B, height·width, C] -> the block's result and what stands behind it, plus `added` if given
  at::Tensor operator()(const at::Tensor& x,
                        int64_t height,
                        int64_t width,
                        const at::Tensor& added = {}) const;

 private:
  SpatialMixOptions options_;
  at::Tensor mixes_, decay_, first_;
  PackedLinear key_, value_, receptance_, output_;
  PackedNorm key_norm_, last_;
};

class PreparedSpatialMix6 {
 public:
  PreparedSpatialMix6(const SpatialMix6Impl& block,
                      Arithmetic precision,
                      const BehindBlock& behind = {});
  at::Tensor operator()(const at::Tensor& x,
                        int64_t height,
                        int64_t width,
                        const at::Tensor& added = {}) const;

 private:
  SpatialMix6Options options_;
  at::Tensor maa_x_, maa_, maa_w2_, decay_, bonus_;
  PackedLinear maa_w1_, decay_w1_, decay_w2_, receptance_, key_, value_, gate_, output_;
  PackedNorm key_norm_, group_norm_, last_;
};

PackedChannelMix prepared_channel_mix(const ChannelMixImpl& block,
                                      Arithmetic precision,
                                      const BehindBlock& behind = {});

/// A block whose projection meets no norm over channels, activation or skip may leave it to the
/// next one, which folds it into its expansion.
struct ProjectionFolding {
  bool leave = false;
  std::optional<ChannelMap> before;  ///< the projection that the block before left
};

class PreparedIrRwkv {
 public:
  PreparedIrRwkv(const IrRwkvBlockImpl& block,
                 Arithmetic precision,
                 const ProjectionFolding& folding = {});
  /// [B,H,W,in] -> [B,H',W',out]
  at::Tensor operator()(const at::Tensor& x) const;

  /// Whether `next` can take over the projection of `block`.
  static bool can_fold(const IrRwkvBlockImpl& block, const IrRwkvBlockImpl& next);

 private:
  at::Tensor attended(const at::Tensor& map) const;
  void excite(at::Tensor& map) const;

  IrRwkvOptions options_;
  PackedNorm norm_;
  PackedLinear expand_;  ///< before an attention
  std::optional<PreparedSpatialMix> att_;
  PackedLocalBlock local_;
  PackedLinear project_;  ///< behind squeeze and excitation
  at::Tensor reduce_weight_, reduce_bias_, expand_weight_, expand_bias_;
};

/// Bilinear resizing of [B,H,W,C]; the input itself where nothing changes.
at::Tensor resize_map(const at::Tensor& x, int64_t height, int64_t width);

/// Images [B,C,H,W] as maps [B,H,W,channels]; a single channel is repeated.
at::Tensor map_from_image(const at::Tensor& image, int64_t channels, Arithmetic precision);

}  // namespace vireo
