#include "vision/blocks/ir_rwkv.h"

#include <cmath>

#include "vision/blocks/layout.h"
#include "vision/blocks/observe.h"
#include "vision/core/error.h"

namespace vireo {

IrRwkvBlockImpl::IrRwkvBlockImpl(const IrRwkvOptions& options) : options(options) {
  const auto& o = options;
  const int64_t hidden = o.hidden();
  if (o.skip && (o.stride != 1 || o.in != o.out))
    throw Error("IR-RWKV block: a skip needs stride 1 and as many channels out as in");
  if (o.norm == NormKind::kBatch) batch_norm = register_module("norm", make_batch_norm(o.in));
  if (o.norm == NormKind::kLayer) layer_norm = register_module("norm", LayerNorm2d(o.in));
  conv = register_module("conv", ConvNormAct(ConvNormActOptions{.in = o.in, .out = hidden}));
  if (o.attention) {
    att = register_module(
        "att",
        SpatialMix(SpatialMixOptions{
            .channels = hidden, .key_norm = true, .shift = o.shift, .form = o.form}));
    ln1 = register_module("ln1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({hidden})));
  }
  conv_local = register_module("conv_local",
                               ConvNormAct(ConvNormActOptions{.in = hidden,
                                                              .out = hidden,
                                                              .kernel = o.kernel,
                                                              .stride = o.stride,
                                                              .groups = hidden,
                                                              .act = ActKind::kSilu}));
  if (o.se_ratio > 0) {
    const auto reduced =
        static_cast<int64_t>(std::nearbyint(static_cast<double>(hidden) * o.se_ratio));
    se = register_module("se", SqueezeExcite(hidden, std::max<int64_t>(reduced, 1), o.se_act));
  }
  proj = register_module(
      "proj",
      ConvNormAct(ConvNormActOptions{
          .in = hidden, .out = o.out, .norm = NormKind::kNone, .act = ActKind::kNone}));
  drop_path = register_module("drop_path", DropPath(o.drop_path));
}

at::Tensor IrRwkvBlockImpl::attend(const at::Tensor& map) {
  const int64_t height = map.size(2), width = map.size(3);
  const at::Tensor tokens = tokens_from_map(map);                    // [B, T, C]
  const at::Tensor mixed = run(ln1, att(tokens, height, width));     // [B, T, C]
  return map_from_tokens(tokens + drop_path(mixed), height, width);  // [B, C, H, W]
}

at::Tensor IrRwkvBlockImpl::forward(const at::Tensor& x) {
  at::Tensor y = x;  // [B, in, H, W]
  if (batch_norm) y = run(batch_norm, y);
  if (layer_norm) y = layer_norm(y);
  y = conv(y);                          // [B, hidden, H, W]
  if (att) y = attend(y);               // [B, hidden, H, W]
  at::Tensor local = conv_local(y);     // [B, hidden, H', W']
  if (se) local = se(local);            // [B, hidden, H', W']
  if (options.skip) local = local + y;  // [B, hidden, H, W]
  local = proj(local);                  // [B, out, H', W']
  return observed(*this, options.skip ? x + drop_path(local) : local);
}

}  // namespace vireo
