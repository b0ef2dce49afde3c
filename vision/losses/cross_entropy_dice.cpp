#include "vision/losses/cross_entropy_dice.h"

#include <ATen/ATen.h>

namespace vireo {

SegmentationLoss cross_entropy_dice(const at::Tensor& logits,
                                    const at::Tensor& target,
                                    const CrossEntropyDice& settings) {
  TORCH_CHECK(logits.dim() == 4 && target.dim() == 3 && logits.size(0) == target.size(0) &&
                  logits.size(2) == target.size(1) && logits.size(3) == target.size(2),
              "cross_entropy_dice: logits ",
              logits.sizes(),
              " and target ",
              target.sizes(),
              " do not belong together; expected [B, K, H, W] and [B, H, W]");
  const at::Tensor classes = target.to(at::kLong);
  const at::Tensor counted = classes.ne(kIgnoredPixel);
  // log_softmax in at least float32, also under autocast.
  const at::Tensor scores =
      logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);  // [B, K, H, W]
  const at::Tensor log_p = at::log_softmax(scores, 1);

  const at::Tensor count = counted.sum().clamp_min(1);
  const at::Tensor cross_entropy =
      at::nll_loss2d(log_p, classes, {}, at::Reduction::Sum, kIgnoredPixel) / count;

  const at::Tensor mask = counted.unsqueeze(1).to(log_p.scalar_type());  // [B, 1, H, W]
  const at::Tensor p = log_p.exp() * mask;
  const at::Tensor s = at::zeros_like(p).scatter_(
      1, classes.masked_fill(counted.logical_not(), 0).unsqueeze(1), mask);
  const std::vector<int64_t> summed =
      settings.batch_dice ? std::vector<int64_t>{0, 2, 3} : std::vector<int64_t>{2, 3};
  const at::Tensor overlap = (p * s).sum(summed);                // [K] or [B, K]
  const at::Tensor total = (p * p).sum(summed) + s.sum(summed);  // s^2 = s
  const at::Tensor dice = (1 - (2 * overlap + settings.smooth) / (total + settings.smooth)).mean();

  return {settings.cross_entropy_weight * cross_entropy + settings.dice_weight * dice,
          cross_entropy,
          dice};
}

}  // namespace vireo
