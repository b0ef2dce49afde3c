#include "models/rwkv_unet_encoder.h"

#include <c10/util/StringUtil.h>
#include <torch/nn/init.h>

#include "vision/blocks/observe.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

std::vector<std::string> attention_names() {
  std::vector<std::string> names;
  for (const char* name : {"spatial_decay",
                           "spatial_first",
                           "spatial_mix_k",
                           "spatial_mix_v",
                           "spatial_mix_r",
                           "key.weight",
                           "value.weight",
                           "receptance.weight",
                           "key_norm.weight",
                           "key_norm.bias",
                           "output.weight"})
    names.push_back(std::string("att.") + name);
  for (const char* name : {"ln1.weight", "ln1.bias"}) names.emplace_back(name);
  return names;
}

}  // namespace

RwkvUnetStages::RwkvUnetStages(torch::nn::Module& owner, const RwkvUnetEncoderConfig& config)
    : stem_channels_(config.stem_channels()) {
  const auto& c = config;
  int64_t block_count = 0;
  for (const int64_t depth : c.depths) block_count += depth;

  add(owner,
      0,
      {.in = c.stem_channels(),
       .out = c.stem_width,
       .kernel = c.stem_kernel,
       .norm = NormKind::kNone,
       .se_ratio = 1});
  int64_t width = c.stem_width, block = 0;
  for (size_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < c.depths[i]; ++j, ++block) {
      const bool first = j == 0;
      const double rate = block_count > 1 ? c.drop_path * static_cast<double>(block) /
                                                static_cast<double>(block_count - 1)
                                          : 0;
      add(owner,
          i + 1,
          {.in = width,
           .out = c.dims[i],
           .expansion = c.expansions[i] * (first ? 2 : 1),
           .kernel = c.kernels[i],
           .stride = first ? 2 : 1,
           .norm = c.norms[i],
           .attention = c.attention[i] && !first,
           .skip = !first,
           .drop_path = rate,
           .form = c.wkv_form});
      width = c.dims[i];
    }
}

void RwkvUnetStages::add(torch::nn::Module& owner, size_t stage, const IrRwkvOptions& options) {
  const std::string list_name = "stage" + std::to_string(stage);
  auto& blocks = blocks_[stage];
  if (blocks.empty())
    owner.register_module(list_name, std::make_shared<torch::nn::Module>(list_name));
  const std::string index = std::to_string(blocks.size());
  blocks.emplace_back(options);
  owner.named_children()[list_name]->register_module(index, blocks.back().ptr());

  const std::string prefix = list_name + "." + index + ".";
  if (!options.attention)
    for (const auto& name : attention_names()) unused_.insert(prefix + name);
  for (const char* name : {"ln2.weight", "ln2.bias"}) unused_.insert(prefix + name);
}

std::array<at::Tensor, 4> RwkvUnetStages::forward(const at::Tensor& image) {
  at::Tensor x = image;
  if (image.size(1) != stem_channels_) x = x.expand({-1, stem_channels_, -1, -1});
  x = x.contiguous(at::MemoryFormat::ChannelsLast);  // [B, 3, H, W]
  std::array<at::Tensor, 4> levels;
  for (size_t stage = 0; stage < blocks_.size(); ++stage) {
    for (auto& block : blocks_[stage]) x = block(x);
    if (stage > 0) levels[stage - 1] = x;  // [B, dims[s - 1], H / 2^s, W / 2^s]
  }
  return levels;
}

void start_rwkv_unet(torch::nn::Module& network) {
  // Published as a normal distribution cut at a hundred deviations.
  const at::NoGradGuard no_grad;
  for (const auto& module : network.modules(/*include_self=*/false))
    if (auto* linear = module->as<torch::nn::Linear>()) {
      torch::nn::init::normal_(linear->weight, 0, 0.02);
      if (linear->bias.defined()) torch::nn::init::zeros_(linear->bias);
    }
}

RwkvUnetEncoder::RwkvUnetEncoder(const RwkvUnetEncoderConfig& config)
    : config_(config), stages_(*this, config) {
  const int64_t width = config.dims[3];
  if (config.norms[3] == NormKind::kBatch)
    batch_norm_ = register_module("norm", make_batch_norm(width));
  if (config.norms[3] == NormKind::kLayer)
    layer_norm_ = register_module("norm", LayerNorm2d(width));
  head_ = register_module("head", torch::nn::Linear(width, config.classes));
  start_rwkv_unet(*this);
}

std::vector<std::string> RwkvUnetEncoder::classifier_names(const RwkvUnetEncoderConfig& config) {
  std::vector<std::string> names = {"head.weight", "head.bias"};
  if (config.norms[3] == NormKind::kLayer)
    names.insert(names.end(), {"norm.norm.weight", "norm.norm.bias"});
  if (config.norms[3] == NormKind::kBatch)
    names.insert(names.end(),
                 {"norm.weight",
                  "norm.bias",
                  "norm.running_mean",
                  "norm.running_var",
                  "norm.num_batches_tracked"});
  return names;
}

bool RwkvUnetEncoder::is_known_unused(const std::string& state_name) const {
  return stages_.unused_names().contains(state_name);
}

void check_encoder_input(const at::Tensor& image, int64_t channels) {
  if (image.dim() != 4 || image.size(1) != channels || image.numel() == 0)
    throw Error(c10::str("RWKV-UNet encoder: the input has the shape ",
                         image.sizes(),
                         "; expected [batch, ",
                         channels,
                         ", height, width]"));
}

at::Tensor RwkvUnetEncoder::forward(const at::Tensor& image) {
  check_encoder_input(image, config_.in_channels);
  at::Tensor x = stages_.forward(image)[3];  // [B, dims[3], H/16, W/16]
  if (batch_norm_) x = run(batch_norm_, x);
  if (layer_norm_) x = layer_norm_(x);
  return run(head_, x.mean({2, 3}));  // [B, K]
}

}  // namespace vireo
