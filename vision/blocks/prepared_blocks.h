#pragma once

#include <optional>
#include <vector>

#include "kernels/packed/packed_local_block.h"
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

/// A LayerNorm over channels.
class PreparedNorm {
 public:
  PreparedNorm() = default;
  explicit PreparedNorm(const torch::nn::LayerNorm& norm, const at::Tensor& scale = {});
  /// [..., C] -> [..., C]
  at::Tensor operator()(const at::Tensor& x) const;
  bool defined() const { return weight_.defined(); }

 private:
  at::Tensor weight_, bias_;
  double eps_ = 0;
};

/// The finish that an activation is; GELU has none.
std::optional<Finish> finish_of(ActKind act);

/// `scale` [C] multiplies the result.
class PreparedSpatialMix {
 public:
  PreparedSpatialMix(const SpatialMixImpl& block,
                     Arithmetic precision,
                     const at::Tensor& scale = {});
  /// x [B, height·width, C] -> the block's result, with `added` if that is given
  at::Tensor operator()(const at::Tensor& x,
                        int64_t height,
                        int64_t width,
                        const at::Tensor& added = {}) const;

 private:
  SpatialMixOptions options_;
  at::Tensor mixes_[3], decay_, first_;
  PackedLinear key_, value_, receptance_, output_;
  PreparedNorm key_norm_;
};

class PreparedSpatialMix6 {
 public:
  PreparedSpatialMix6(const SpatialMix6Impl& block,
                      Arithmetic precision,
                      const at::Tensor& scale = {});
  at::Tensor operator()(const at::Tensor& x,
                        int64_t height,
                        int64_t width,
                        const at::Tensor& added = {}) const;

 private:
  SpatialMix6Options options_;
  at::Tensor maa_x_, maa_, maa_w2_, decay_, bonus_;
  PackedLinear maa_w1_, decay_w1_, decay_w2_, receptance_, key_, value_, gate_, output_;
  PreparedNorm key_norm_;
  at::Tensor group_weight_, group_bias_;
  double group_eps_ = 0;
};

class PreparedChannelMix {
 public:
  PreparedChannelMix(const ChannelMixImpl& block,
                     Arithmetic precision,
                     const at::Tensor& scale = {});
  at::Tensor operator()(const at::Tensor& x,
                        int64_t height,
                        int64_t width,
                        const at::Tensor& added = {}) const;

 private:
  ChannelMixOptions options_;
  at::Tensor mixes_[2];
  PackedLinear key_, value_, receptance_;
  PreparedNorm key_norm_;
};

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
  PreparedNorm norm_, ln1_;
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
