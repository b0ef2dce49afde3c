#include "kernels/bench/aten_forms.h"

#include <vector>

#include <ATen/ATen.h>

namespace vireo {
namespace {

constexpr int64_t kHead = 64;

/// [B,T,C] each, heads of the largest size up to 64 that divides C.
at::Tensor attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
  const int64_t batch = keys.size(0), tokens = keys.size(1), channels = keys.size(2);
  int64_t head = std::min(channels, kHead);
  while (channels % head != 0) --head;
  const auto by_head = [&](const at::Tensor& x) {
    return x.reshape({batch, tokens, channels / head, head}).transpose(1, 2);
  };
  return at::scaled_dot_product_attention(by_head(queries), by_head(keys), by_head(values))
      .transpose(1, 2)
      .reshape({batch, tokens, channels});
}

}  // namespace

at::Tensor bi_wkv_by_token(const at::Tensor& w,
                           const at::Tensor& u,
                           const at::Tensor& k,
                           const at::Tensor& v) {
  const at::Tensor weight = at::exp(k - k.detach().amax(1, true)), keep = at::exp(-w);
  const at::Tensor weighted = weight * v;
  const auto neighbours = [&](const at::Tensor& values, bool from_right) {
    const std::vector<at::Tensor> tokens = values.unbind(1);
    std::vector<at::Tensor> sums(tokens.size());
    at::Tensor sum = at::zeros_like(tokens[0]);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const size_t t = from_right ? tokens.size() - 1 - i : i;
      sums[t] = sum;
      sum = sum * keep + tokens[t];
    }
    return at::stack(sums, 1);
  };
  const at::Tensor own = at::exp(u);
  return (neighbours(weighted, false) + neighbours(weighted, true) + own * weighted) /
         (neighbours(weight, false) + neighbours(weight, true) + own * weight);
}

at::Tensor bi_wkv_quadratic(const at::Tensor& w,
                            const at::Tensor& u,
                            const at::Tensor& k,
                            const at::Tensor& v) {
  const at::Tensor at_token = at::arange(k.size(1), k.options());
  const at::Tensor distance = (at_token.unsqueeze(0) - at_token.unsqueeze(1)).abs().unsqueeze(-1);
  const at::Tensor bias = at::where(distance == 0, u, w * (1 - distance));  // [T, T, C]
  return (at::softmax(k.unsqueeze(1) + bias, 2) * v.unsqueeze(1)).sum(2);
}

at::Tensor bi_wkv_left_out(const at::Tensor&,
                           const at::Tensor&,
                           const at::Tensor&,
                           const at::Tensor& v) {
  return v;
}

at::Tensor wkv6_by_token(const at::Tensor& r,
                         const at::Tensor& k,
                         const at::Tensor& v,
                         const at::Tensor& w,
                         const at::Tensor& u,
                         bool causal) {
  const int64_t batch = k.size(0), tokens = k.size(1), heads = u.size(0), n = u.size(1);
  const auto by_token = [&](const at::Tensor& x) {
    return x.reshape({batch, tokens, heads, n}).unbind(1);
  };
  const auto rs = by_token(r), ks = by_token(k), vs = by_token(v), ds = by_token((-w.exp()).exp());
  std::vector<at::Tensor> ys(static_cast<size_t>(tokens));
  for (const bool from_left : {true, false}) {
    if (causal && !from_left) continue;
    at::Tensor state = at::zeros({batch, heads, n, n}, k.options());
    for (size_t i = 0; i < ys.size(); ++i) {
      const size_t t = from_left ? i : ys.size() - 1 - i;
      const at::Tensor kv = ks[t].unsqueeze(-1) * vs[t].unsqueeze(-2);
      const at::Tensor seen = from_left ? state + u.unsqueeze(-1) * kv : state;
      const at::Tensor y = at::matmul(rs[t].unsqueeze(-2), seen).squeeze(-2);
      ys[t] = from_left ? y : ys[t] + y;
      state = ds[t].unsqueeze(-1) * state + kv;
    }
  }
  return at::stack(ys, 1).reshape(k.sizes());
}

at::Tensor attention_for_bi_wkv(const at::Tensor&,
                                const at::Tensor&,
                                const at::Tensor& k,
                                const at::Tensor& v) {
  return attention(k, k, v);
}

at::Tensor attention_for_wkv6(const at::Tensor& r,
                              const at::Tensor& k,
                              const at::Tensor& v,
                              const at::Tensor&,
                              const at::Tensor&,
                              bool) {
  return attention(r, k, v);
}

}  // namespace vireo
