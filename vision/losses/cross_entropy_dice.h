#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vireo {

/// The segmentation loss of the published RWKV-UNet recipe:
///   total = cross_entropy_weight * CE + dice_weight * Dice
///   CE    mean over pixels of -log softmax(logits)[target]
///   Dice  mean over all classes c, background included, of
///         1 - (2 * sum p_c s_c + smooth) / (sum p_c^2 + sum s_c^2 + smooth),
///         p = softmax(logits), s = one-hot target
/// Published weights: 0.5 / 0.5 (Synapse), 0.2 / 0.8 (ACDC).
struct CrossEntropyDice {
  double cross_entropy_weight = 0.5;
  double dice_weight = 0.5;
  double smooth = 1e-5;
  /// true: the sums run over the whole batch (published); false: over each image, then the mean.
  bool batch_dice = true;
};

/// Scalars in float32 (float64 for float64 logits); `cross_entropy` and `dice` are unweighted.
struct SegmentationLoss {
  at::Tensor total;
  at::Tensor cross_entropy;
  at::Tensor dice;
};

/// The target value of pixels that neither train nor count.
inline constexpr int64_t kIgnoredPixel = 255;

/// logits [B, K, H, W] of any floating type; target [B, H, W], an integer type, 0..K-1 or 255.
/// Without a single counted pixel all three are zero (and so are the gradients).
SegmentationLoss cross_entropy_dice(const at::Tensor& logits,
                                    const at::Tensor& target,
                                    const CrossEntropyDice& settings = {});

}  // namespace vireo
