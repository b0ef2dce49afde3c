#pragma once

#include <vector>

#include <ATen/ATen.h>

#include "kernels/shift/shift.h"
#include "tests/support/deviation.h"

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

/// One head's matrix state, token after token, from both ends. u [H,N].
inline at::Tensor wkv6_reference(const at::Tensor& r,
                                 const at::Tensor& k,
                                 const at::Tensor& v,
                                 const at::Tensor& w,
                                 const at::Tensor& u,
                                 bool causal = false) {
  const int64_t batch = k.size(0), tokens = k.size(1), heads = u.size(0), n = u.size(1);
  const auto by_token = [&](const at::Tensor& x) {
    return x.to(at::kDouble).reshape({batch, tokens, heads, n}).unbind(1);
  };
  const auto rs = by_token(r), ks = by_token(k), vs = by_token(v);
  const auto ds = by_token((-w.to(at::kDouble).exp()).exp());
  std::vector<at::Tensor> ys(static_cast<size_t>(tokens));
  for (size_t t = 0; t < ys.size(); ++t)
    ys[t] = (rs[t] * u.to(at::kDouble) * ks[t]).sum(-1, true) * vs[t];
  for (const bool from_left : {true, false}) {
    if (causal && !from_left) continue;
    at::Tensor state = at::zeros({batch, heads, n, n}, at::kDouble);
    for (size_t i = 0; i < ys.size(); ++i) {
      const size_t t = from_left ? i : ys.size() - 1 - i;
      ys[t] = ys[t] + at::matmul(rs[t].unsqueeze(-2), state).squeeze(-2);
      state = ds[t].unsqueeze(-1) * state + ks[t].unsqueeze(-1) * vs[t].unsqueeze(-2);
    }
  }
  return at::stack(ys, 1).reshape(k.sizes());
}

/// What backward() left in a leaf; zeros where nothing depended on it.
inline at::Tensor gradient_of(const at::Tensor& leaf) {
  return leaf.grad().defined() ? leaf.grad() : at::zeros_like(leaf);
}

}  // namespace vireo::test
