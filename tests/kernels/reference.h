#pragma once

#include <vector>

#include <ATen/ATen.h>

#include "kernels/shift/shift.h"

// The operators by their definitions, slow and plain, on float64 ATen operations with autograd.
namespace vireo::test {

/// y = softmax(L) v with the whole T x T matrix L.
inline at::Tensor bi_wkv_reference(const at::Tensor& w,
                                   const at::Tensor& u,
                                   const at::Tensor& k,
                                   const at::Tensor& v) {
  const int64_t tokens = k.size(1);
  const at::Tensor at = at::arange(tokens, at::kDouble);
  const at::Tensor between = (at.unsqueeze(1) - at.unsqueeze(0)).abs() - 1;  // -1 on the diagonal
  const at::Tensor self = at::eye(tokens, at::kDouble);
  const at::Tensor decay = -between * (1 - self) * w.to(at::kDouble).view({-1, 1, 1});
  const at::Tensor bonus = self * u.to(at::kDouble).view({-1, 1, 1});
  const at::Tensor keys = k.to(at::kDouble).transpose(1, 2).unsqueeze(2);     // [B,C,1,T]
  const at::Tensor values = v.to(at::kDouble).transpose(1, 2).unsqueeze(-1);  // [B,C,T,1]
  const at::Tensor weights = at::softmax(keys + decay + bonus, -1);
  return weights.matmul(values).squeeze(-1).transpose(1, 2);
}

/// The shifted copy, one direction after the other.
inline at::Tensor q_shift_reference(const at::Tensor& x,
                                    int64_t height,
                                    int64_t width,
                                    const QShift& shift = {}) {
  using at::indexing::Slice;
  const int64_t channels = x.size(2), s = shift.pixels;
  const int64_t head = shift.head_dim == 0 ? channels : shift.head_dim;
  const at::Tensor image =
      x.narrow(1, 0, height * width).transpose(1, 2).reshape({-1, channels, height, width});
  const at::Tensor padded = at::constant_pad_nd(image, {s, s, s, s});
  const int64_t offset[5][2] = {{s, 0}, {s, 2 * s}, {0, s}, {2 * s, s}, {s, s}};
  std::vector<at::Tensor> parts;
  for (int64_t start = 0; start < channels; start += head)
    for (int j = 0; j < 5; ++j) {
      const int64_t begin = start + static_cast<int64_t>(std::floor(j * head * shift.gamma));
      const int64_t end =
          j == 4 ? start + head
                 : start + static_cast<int64_t>(std::floor((j + 1) * head * shift.gamma));
      parts.push_back(padded.index({Slice(),
                                    Slice(begin, end),
                                    Slice(offset[j][0], offset[j][0] + height),
                                    Slice(offset[j][1], offset[j][1] + width)}));
    }
  const at::Tensor moved = at::cat(parts, 1).flatten(2).transpose(1, 2);
  return shift.class_token ? at::cat({moved, x.narrow(1, height * width, 1)}, 1) : moved;
}

/// max|a - b| / max|b|, in float64; infinite where a is not finite.
inline double deviation(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().to(at::kDouble), y = b.detach().to(at::kDouble);
  if (!x.isfinite().all().item<bool>()) return std::numeric_limits<double>::infinity();
  const double scale = y.abs().max().item<double>();
  return (x - y).abs().max().item<double>() / (scale > 0 ? scale : 1.0);
}

}  // namespace vireo::test
