#include "vision/blocks/ccm.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <torch/nn/modules/conv.h>

#include "vision/blocks/layout.h"
#include "vision/blocks/observe.h"

namespace vireo {

at::Tensor resize_bilinear(const at::Tensor& x, int64_t height, int64_t width) {
  if (x.size(2) == height && x.size(3) == width) return x;
  return at::upsample_bilinear2d(x, {height, width}, /*align_corners=*/false);
}

CcmImpl::CcmImpl(const CcmOptions& options) : options(options) {
  projections = register_module("projections", torch::nn::ModuleList());
  final_projections = register_module("final_projections", torch::nn::ModuleList());
  for (const int64_t width : options.widths) {
    projections->push_back(
        torch::nn::Conv2d(torch::nn::Conv2dOptions(width, options.mixed_width, 1)));
    final_projections->push_back(
        torch::nn::Conv2d(torch::nn::Conv2dOptions(options.mixed_width, width, 1)));
  }
  const int64_t total = options.mixed_width * static_cast<int64_t>(options.widths.size());
  ln1 = register_module("ln1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({total})));
  channel = register_module(
      "channel",
      ChannelMix(ChannelMixOptions{
          .channels = total, .hidden_rate = 2, .key_norm = true, .shift = options.shift}));
  drop_path = register_module("drop_path", DropPath(options.drop_path));
}

// A 1x1 convolution and bilinear resizing commute (the weights of a resize sum to one), so each
// projection runs on the smaller of its two grids.
std::vector<at::Tensor> CcmImpl::forward(const std::vector<at::Tensor>& skips) {
  const int64_t height = skips.back().size(2), width = skips.back().size(3);
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < skips.size(); ++i) {
    auto& projection = projections->at<torch::nn::Conv2dImpl>(i);
    parts.push_back(resize_bilinear(projection.forward(skips[i]), height, width));
  }
  const at::Tensor tokens = tokens_from_map(at::cat(parts, 1));       // [B, T, n·mixed]
  const at::Tensor mixed = run(ln1, channel(tokens, height, width));  // [B, T, n·mixed]
  const at::Tensor map = map_from_tokens(tokens + drop_path(mixed), height, width);

  std::vector<at::Tensor> outputs;
  const auto chunks = map.chunk(static_cast<int64_t>(skips.size()), 1);  // n of [B, mixed, H, W]
  for (size_t i = 0; i < skips.size(); ++i) {
    auto& projection = final_projections->at<torch::nn::Conv2dImpl>(i);
    const at::Tensor part = resize_bilinear(chunks[i], skips[i].size(2), skips[i].size(3));
    outputs.push_back(observed(*this, projection.forward(part), i));  // [B, widths[i], H_i, W_i]
  }
  return outputs;
}

}  // namespace vireo
