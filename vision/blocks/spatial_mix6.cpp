#include "vision/blocks/spatial_mix6.h"

#include <ATen/ops/addcmul.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <c10/util/StringUtil.h>

#include "kernels/wkv6/wkv6.h"
#include "vision/blocks/observe.h"
#include "vision/core/error.h"

namespace vireo {

SpatialMix6Impl::SpatialMix6Impl(const SpatialMix6Options& given) : options(given) {
  auto& o = options;
  if (o.heads < 1 || o.channels % o.heads != 0)
    throw Error(c10::str(
        "SpatialMix6: ", o.channels, " channels cannot be divided into ", o.heads, " heads"));
  o.shift.head_dim = o.channels / o.heads;
  const auto vector = [&](const char* name) {
    return register_parameter(name, at::zeros({1, 1, o.channels}));
  };
  const auto small = [&](const char* name, at::IntArrayRef shape) {
    return register_parameter(name, at::empty(shape).uniform_(-1e-4, 1e-4));
  };
  const auto linear = [&](const char* name) {
    return register_module(
        name, torch::nn::Linear(torch::nn::LinearOptions(o.channels, o.channels).bias(false)));
  };
  time_maa_x = vector("time_maa_x");
  time_maa_w = vector("time_maa_w");
  time_maa_k = vector("time_maa_k");
  time_maa_v = vector("time_maa_v");
  time_maa_r = vector("time_maa_r");
  time_maa_g = vector("time_maa_g");
  time_maa_w1 = small("time_maa_w1", {o.channels, 5 * o.mix_rank});
  time_maa_w2 = small("time_maa_w2", {5, o.mix_rank, o.channels});
  time_decay = vector("time_decay");
  time_decay_w1 = small("time_decay_w1", {o.channels, o.decay_rank});
  time_decay_w2 = small("time_decay_w2", {o.decay_rank, o.channels});
  time_faaaa = register_parameter("time_faaaa", at::zeros({o.heads, o.channels / o.heads}));
  receptance = linear("receptance");
  key = linear("key");
  value = linear("value");
  gate = linear("gate");
  if (o.key_norm)
    key_norm = register_module("key_norm",
                               torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.channels})));
  ln_x = register_module("ln_x",
                         torch::nn::GroupNorm(torch::nn::GroupNormOptions(o.heads, o.channels)));
  output = linear("output");
}

at::Tensor SpatialMix6Impl::forward(const at::Tensor& x, int64_t height, int64_t width) {
  const int64_t batch = x.size(0), tokens = x.size(1), channels = x.size(2);
  const at::Tensor away = q_shift(x, height, width, options.shift) - x;  // [B, T, C]
  const at::Tensor hidden =
      at::tanh(at::matmul(at::addcmul(x, away, time_maa_x), time_maa_w1));  // [B, T, 5 R]
  const at::Tensor shared = at::stack({time_maa_w, time_maa_k, time_maa_v, time_maa_r, time_maa_g});
  const auto mixed =
      at::addcmul(x,
                  away,
                  at::baddbmm(shared.view({5, 1, channels}),
                              hidden.view({batch * tokens, 5, options.mix_rank}).transpose(0, 1),
                              time_maa_w2)
                      .view({5, batch, tokens, channels}))
          .unbind(0);  // [B, T, C] each
  const at::Tensor w = time_decay + at::matmul(at::tanh(at::matmul(mixed[0], time_decay_w1)),
                                               time_decay_w2);  // [B, T, C]
  const at::Tensor k = run(key, mixed[1]);                      // [B, T, C]
  const at::Tensor v = run(value, mixed[2]);                    // [B, T, C]
  const at::Tensor r = run(receptance, mixed[3]);               // [B, T, C]
  const at::Tensor g = at::silu(run(gate, mixed[4]));           // [B, T, C]
  at::Tensor y = wkv6(r, k, v, w, time_faaaa);                  // [B, T, C]
  if (key_norm) y = run(key_norm, y);
  y = run(ln_x, y.reshape({batch * tokens, channels})).view({batch, tokens, channels});
  return observed(*this, run(output, y * g));  // [B, T, C]
}

}  // namespace vireo
