#include "models/rwkv_unet.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/reflection_pad2d.h>
#include <ATen/ops/replication_pad2d.h>
#include <c10/util/StringUtil.h>

#include "vision/blocks/observe.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr int64_t kStride = 16;        // of the deepest stage
constexpr int64_t kDecoderWidth = 24;  // of the last decoder step

int64_t missing_to_multiple(int64_t extent) {
  return (kStride - extent % kStride) % kStride;
}

/// Pads one side, the right or the bottom.
at::Tensor pad_side(const at::Tensor& x, bool right, int64_t extra) {
  if (extra == 0) return x;
  const int64_t side = x.size(right ? 3 : 2);
  const std::array<int64_t, 4> amounts{0, right ? extra : 0, 0, right ? 0 : extra};
  return extra < side ? at::reflection_pad2d(x, amounts) : at::replication_pad2d(x, amounts);
}

at::Tensor joined(const at::Tensor& a, const at::Tensor& b) {
  return at::cat(std::vector<at::Tensor>{a, b}, 1);
}

at::Tensor doubled(const at::Tensor& x) {
  return resize_bilinear(x, 2 * x.size(2), 2 * x.size(3));
}

}  // namespace

RwkvUnetConfig RwkvUnetConfig::preset(char size) {
  return {RwkvUnetEncoderConfig::preset(size)};
}

RwkvUnetConfig RwkvUnetConfig::from_toml(ConfigTable& table,
                                         const ModelShape& shape,
                                         const RwkvUnetConfig& defaults) {
  RwkvUnetConfig config = defaults;
  config.read(table, shape);
  config.decoder_kernel = table.integer("decoder_kernel", defaults.decoder_kernel, 1, 63);
  if (config.decoder_kernel % 2 == 0)
    table.fail("decoder_kernel",
               "holds " + std::to_string(config.decoder_kernel) + "; kernels must be odd");
  config.ccm_drop_path = table.number("ccm_drop_path", defaults.ccm_drop_path, 0, 0.99);
  table.finish();
  return config;
}

RwkvUnetDecoderImpl::RwkvUnetDecoderImpl(int64_t in, int64_t out, int64_t kernel) {
  conv = register_module("conv", ConvNormAct(ConvNormActOptions{.in = in, .out = in}));
  conv_local = register_module(
      "conv_local",
      ConvNormAct(ConvNormActOptions{
          .in = in, .out = in, .kernel = kernel, .groups = in, .act = ActKind::kSilu}));
  proj = register_module("proj", ConvNormAct(ConvNormActOptions{.in = in, .out = out}));
}

at::Tensor RwkvUnetDecoderImpl::features(const at::Tensor& x) {
  return proj(conv_local(conv(x)));
}

at::Tensor RwkvUnetDecoderImpl::forward(const at::Tensor& x) {
  return observed(*this, doubled(features(x)));
}

RwkvUnet::RwkvUnet(const RwkvUnetConfig& config)
    : config_(config),
      encoder_(register_module("encoder", std::make_shared<torch::nn::Module>("encoder"))),
      stages_(*encoder_, config) {
  for (const auto& name : stages_.unused_names()) unused_.insert("encoder." + name);
  for (const auto& name : RwkvUnetEncoder::classifier_names(config))
    unused_.insert("encoder." + name);
  build_decoder();
  start_rwkv_unet(*this);
}

void RwkvUnet::build_decoder() {
  const auto& d = config_.dims;
  ccm_ = register_module(
      "ccm",
      Ccm(CcmOptions{
          .widths = {d[2], d[1], d[0]}, .mixed_width = d[0], .drop_path = config_.ccm_drop_path}));
  const std::array<int64_t, 4> in = {d[3], 2 * d[2], 2 * d[1], 2 * d[0]};
  const std::array<int64_t, 4> out = {d[2], d[1], d[0], kDecoderWidth};
  for (size_t i = 0; i < 4; ++i) {
    const std::string name = "decoder" + std::to_string(i + 1);
    decoders_[i] = register_module(name, RwkvUnetDecoder(in[i], out[i], config_.decoder_kernel));
    for (const char* unused : {".ln1.weight", ".ln1.bias"}) unused_.insert(name + unused);
  }
  final_conv_ = register_module(
      "final_conv", torch::nn::Conv2d(torch::nn::Conv2dOptions(kDecoderWidth, config_.classes, 1)));
}

bool RwkvUnet::is_known_unused(const std::string& state_name) const {
  return unused_.contains(state_name);
}

at::Tensor on_padded(const at::Tensor& image,
                     int64_t channels,
                     const std::function<at::Tensor(const at::Tensor&)>& network) {
  if (image.dim() != 4 || image.size(1) != channels || image.numel() == 0)
    throw Error(c10::str("RWKV-UNet: the input has the shape ",
                         image.sizes(),
                         "; expected [batch, ",
                         channels,
                         ", height, width]"));
  const int64_t height = image.size(2), width = image.size(3);
  at::Tensor x = pad_side(image, /*right=*/true, missing_to_multiple(width));
  x = pad_side(x, /*right=*/false, missing_to_multiple(height));  // [B, C, 16 h, 16 w]
  x = network(x);                                                 // [B, K, 16 h, 16 w]
  return x.narrow(2, 0, height).narrow(3, 0, width);              // [B, K, H, W]
}

at::Tensor RwkvUnet::forward(const at::Tensor& image) {
  return on_padded(
      image, config_.in_channels, [this](const at::Tensor& x) { return forward_padded(x); });
}

at::Tensor RwkvUnet::forward_padded(const at::Tensor& image) {
  const auto levels = stages_.forward(image);
  const auto skips = ccm_->forward({levels[2], levels[1], levels[0]});

  at::Tensor x = decoders_[0](levels[3]);  // [B, dims[2], H/8, W/8]
  x = decoders_[1](joined(x, skips[0]));   // [B, dims[1], H/4, W/4]
  x = decoders_[2](joined(x, skips[1]));   // [B, dims[0], H/2, W/2]
  // The last 1x1 convolution commutes with the bilinear x2 before it and costs a quarter there.
  x = decoders_[3]->features(joined(x, skips[2]));  // [B, 24, H/2, W/2]
  if (is_observed()) observed(*decoders_[3], doubled(x));
  return observed(*final_conv_, doubled(final_conv_(x)));  // [B, K, H, W]
}

}  // namespace vireo
