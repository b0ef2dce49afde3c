#include "models/vision_rwkv.h"

#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>
#include <c10/util/StringUtil.h>
#include <torch/nn/init.h>

#include "vision/blocks/layout.h"
#include "vision/blocks/observe.h"
#include "vision/blocks/recompute.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

int64_t missing_to_multiple(int64_t extent, int64_t of) {
  return (of - extent % of) % of;
}

}  // namespace

VisionRwkvBackboneImpl::VisionRwkvBackboneImpl(const VisionRwkvConfig& config) : config(config) {
  const auto& c = config;
  const auto patch_embed =
      register_module("patch_embed", std::make_shared<torch::nn::Module>("patch_embed"));
  projection = torch::nn::Conv2d(
      torch::nn::Conv2dOptions(c.stem_channels, c.channels, c.patch_size).stride(c.patch_size));
  patch_embed->register_module("projection", projection.ptr());
  pos_embed = register_parameter("pos_embed", at::zeros({1, c.grid() * c.grid(), c.channels}));
  torch::nn::init::normal_(pos_embed, 0, 0.02);
  const auto list = register_module("layers", std::make_shared<torch::nn::Module>("layers"));
  for (int64_t i = 0; i < c.depth; ++i) {
    const double share =
        c.depth > 1 ? static_cast<double>(i) / static_cast<double>(c.depth - 1) : 0;
    layers.emplace_back(VisionRwkvBlockOptions{.channels = c.channels,
                                               .heads = c.heads,
                                               .hidden_rate = c.hidden_rate,
                                               .first = i == 0,
                                               .post_norm = c.post_norm,
                                               .key_norm = c.key_norm,
                                               .layer_scale = c.layer_scale,
                                               .drop_path = c.drop_path * share,
                                               .shift = c.shift,
                                               .form = c.wkv_form});
    start_mixes(*layers.back(), c.start, i, c.depth);
    list->register_module(std::to_string(i), layers.back().ptr());
  }
  ln1 = register_module("ln1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({c.channels})));
}

at::Tensor VisionRwkvBackboneImpl::positions(int64_t height, int64_t width) const {
  return resize_positions(
      pos_embed, config.grid(), config.grid(), height, width, config.interpolation);
}

void check_vision_rwkv_input(const at::Tensor& image, const VisionRwkvConfig& config) {
  if (image.dim() != 4 || image.size(1) != config.in_channels || image.numel() == 0)
    throw Error(c10::str("Vision-RWKV: the input has the shape ",
                         image.sizes(),
                         "; expected [batch, ",
                         config.in_channels,
                         ", height, width]"));
}

at::Tensor VisionRwkvBackboneImpl::embed(const at::Tensor& image, int64_t* height, int64_t* width) {
  const auto& c = config;
  check_vision_rwkv_input(image, c);
  at::Tensor x = image;
  if (c.stem_channels != c.in_channels) x = x.expand({-1, c.stem_channels, -1, -1});
  const int64_t right = missing_to_multiple(image.size(3), c.patch_size);
  const int64_t below = missing_to_multiple(image.size(2), c.patch_size);
  if (right > 0 || below > 0) x = at::constant_pad_nd(x, {0, right, 0, below});
  x = run(projection, x);  // [B, C, h, w]
  *height = x.size(2);
  *width = x.size(3);
  return tokens_from_map(x) + positions(*height, *width);  // [B, h·w, C]
}

at::Tensor VisionRwkvBackboneImpl::run_layer(size_t index,
                                             const at::Tensor& x,
                                             int64_t height,
                                             int64_t width) {
  auto& layer = layers[index];
  if (!config.checkpointing || !is_training()) return layer(x, height, width);
  return recomputed([layer, height, width](
                        const at::Tensor& input) mutable { return layer(input, height, width); },
                    x);
}

at::Tensor VisionRwkvBackboneImpl::forward(const at::Tensor& image) {
  int64_t height = 0, width = 0;
  at::Tensor x = embed(image, &height, &width);  // [B, T, C]
  for (size_t i = 0; i < layers.size(); ++i) x = run_layer(i, x, height, width);
  return run(ln1, x);  // [B, T, C]
}

std::vector<at::Tensor> VisionRwkvBackboneImpl::features(const at::Tensor& image,
                                                         const std::vector<int64_t>& chosen) {
  const auto depth = static_cast<int64_t>(layers.size());
  for (size_t i = 0; i < chosen.size(); ++i)
    if (chosen[i] < 0 || chosen[i] >= depth || (i > 0 && chosen[i] <= chosen[i - 1]))
      throw Error(c10::str("Vision-RWKV: feature layers must increase from 0 to ",
                           depth - 1,
                           ", found ",
                           at::IntArrayRef(chosen)));
  std::vector<at::Tensor> maps;
  int64_t height = 0, width = 0;
  at::Tensor x = embed(image, &height, &width);  // [B, T, C]
  for (int64_t i = 0; i < depth && maps.size() < chosen.size(); ++i) {
    x = run_layer(static_cast<size_t>(i), x, height, width);
    if (i + 1 == depth) x = run(ln1, x);
    if (chosen[maps.size()] == i) maps.push_back(map_from_tokens(x, height, width));
  }
  return maps;
}

VisionRwkv::VisionRwkv(const VisionRwkvConfig& config) : config_(config) {
  backbone_ = register_module("backbone", VisionRwkvBackbone(config));
  const auto head = register_module("head", std::make_shared<torch::nn::Module>("head"));
  fc_ = head->register_module("fc", torch::nn::Linear(config.channels, config.classes));
  torch::nn::init::normal_(fc_->weight, 0, 0.01);
  torch::nn::init::zeros_(fc_->bias);
}

at::Tensor VisionRwkv::forward(const at::Tensor& image) {
  const at::Tensor tokens = backbone_(image);  // [B, T, C]
  return run(fc_, tokens.mean(1));             // [B, K]
}

}  // namespace vireo
