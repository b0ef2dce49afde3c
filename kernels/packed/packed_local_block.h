#pragma once

#include <vector>

#include "kernels/packed/packed_linear.h"

namespace vireo {

/// Expansion, depthwise convolution and projection in one pass over the image, for inference on the
/// CPU: the wide maps between the three exist only as the few rows that are at work, in the
/// processor's cache.
///
///     h = expand(x);  z = finish(depthwise(h) + b) + [h];  y = project(z) + [added]
///
/// The convolution is padded with ceil((kernel - stride) / 2) zeros on every side.
class PackedLocalBlock {
 public:
  struct Parts {
    PackedLinear expand;            ///< undefined: h = x
    PackedLinear project;           ///< undefined: y = z
    at::Tensor weight;              ///< [C,1,K,K], K odd
    at::Tensor bias;                ///< [C]
    Finish finish = Finish::kSilu;  ///< kNone, kRelu or kSilu
    int64_t stride = 1;             ///< 1 or 2
    bool skip = false;              ///< adds h; needs stride 1
  };
  PackedLocalBlock() = default;
  PackedLocalBlock(const Parts& parts, Arithmetic precision);

  /// x [B,H,W,Cin] of activation_type() -> [B, ceil(H/stride), ceil(W/stride), Cout], contiguous.
  /// added: as the result, or undefined.
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& added = {}) const;

 private:
  class Worker;
  int64_t kernel() const { return parts_.weight.size(2); }
  int64_t padding() const { return (kernel() - parts_.stride + 1) / 2; }

  Parts parts_;
  at::Tensor taps_;  ///< [K, K, channels rounded up to lanes]
  at::Tensor bias_;  ///< [channels rounded up to lanes]
  int64_t hidden_ = 0, padded_hidden_ = 0;
  Arithmetic precision_ = Arithmetic::kFloat32;
};

}  // namespace vireo
