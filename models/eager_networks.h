#pragma once

#include <map>
#include <string>

#include <ATen/ATen.h>

#include "models/rwkv_unet.h"
#include "models/vision_rwkv.h"
#include "models/weights/state_dict.h"

// What the benchmarks compare with: the networks as one would write them in LibTorch, operation by
// operation as published. Contiguous maps [B,C,H,W]; convolution, BatchNorm and activation each by
// themselves; Q-Shift by copying slices; norms over channels by permuting; resizing before the 1x1
// convolutions where the published code has it so. They take our networks' weights and give the
// same answers, which the benchmarks check before they time anything.
namespace vireo::eager {

using Wkv = at::Tensor (*)(const at::Tensor& w,
                           const at::Tensor& u,
                           const at::Tensor& k,
                           const at::Tensor& v);

/// Bi-WKV token by token from the left and from the right, exponents relative to a running maximum:
/// right for any decay and any key, as ours is. (bi_wkv_by_token takes one maximum for the whole
/// row and five operations a token; it overflows where w T is far below zero.)
inline at::Tensor exact_token_scan(const at::Tensor& w,
                                   const at::Tensor& u,
                                   const at::Tensor& k,
                                   const at::Tensor& v) {
  struct State {
    at::Tensor a, b, p;
  };
  const auto ks = k.unbind(1), vs = v.unbind(1);
  const auto states = [&](bool from_right) {
    std::vector<State> all(ks.size());
    State s{at::zeros_like(ks[0]), at::zeros_like(ks[0]), at::full_like(ks[0], -1e30)};
    for (size_t i = 0; i < ks.size(); ++i) {
      const size_t t = from_right ? ks.size() - 1 - i : i;
      all[t] = s;
      const at::Tensor faded = s.p - w, q = at::maximum(faded, ks[t]);
      const at::Tensor keep = at::exp(faded - q), take = at::exp(ks[t] - q);
      s = {keep * s.a + take * vs[t], keep * s.b + take, q};
    }
    return all;
  };
  const auto left = states(false), right = states(true);
  std::vector<at::Tensor> y;
  for (size_t t = 0; t < ks.size(); ++t) {
    const State &l = left[t], &r = right[t];
    const at::Tensor own = u + ks[t], q = at::maximum(at::maximum(l.p, r.p), own);
    const at::Tensor el = at::exp(l.p - q), er = at::exp(r.p - q), eo = at::exp(own - q);
    y.push_back((el * l.a + er * r.a + eo * vs[t]) / (el * l.b + er * r.b + eo));
  }
  return at::stack(y, 1);
}

/// Weights by name, and the operations that all networks share. Names begin with `at`.
class Network {
 public:
  Network(const Model& model, Wkv wkv, bool training) : wkv_(wkv), training_(training) {
    for (const auto& [name, tensor] : state_of(model))
      state_[name] = tensor.detach().clone(at::MemoryFormat::Contiguous);
    if (!training) return;
    for (const auto& parameter : model.named_parameters())
      parameters_.push_back(state_.at(parameter.key()).requires_grad_());
  }
  virtual ~Network() = default;
  virtual at::Tensor forward(const at::Tensor& image) = 0;

  /// Those that training differentiates by.
  const std::vector<at::Tensor>& parameters() const { return parameters_; }

 protected:
  const at::Tensor& weight(const std::string& name) const { return state_.at(name); }
  bool has(const std::string& name) const { return state_.contains(name); }

  at::Tensor linear(const at::Tensor& x, const std::string& at) const {
    return at::linear(
        x, weight(at + ".weight"), has(at + ".bias") ? weight(at + ".bias") : at::Tensor());
  }
  at::Tensor conv(const at::Tensor& x,
                  const std::string& at,
                  int64_t stride = 1,
                  int64_t groups = 1) const {
    const at::Tensor& w = weight(at + ".weight");
    const int64_t pad = (w.size(2) - stride + 1) / 2;
    return at::conv2d(x,
                      w,
                      has(at + ".bias") ? weight(at + ".bias") : at::Tensor(),
                      {stride, stride},
                      {pad, pad},
                      {1, 1},
                      groups);
  }
  at::Tensor batch_norm(const at::Tensor& x, const std::string& at) const {
    return at::batch_norm(x,
                          weight(at + ".weight"),
                          weight(at + ".bias"),
                          weight(at + ".running_mean"),
                          weight(at + ".running_var"),
                          training_,
                          0.1,
                          1e-6,
                          false);
  }
  at::Tensor layer_norm(const at::Tensor& x, const std::string& at, double eps = 1e-5) const {
    return at::layer_norm(x, {x.size(-1)}, weight(at + ".weight"), weight(at + ".bias"), eps);
  }
  at::Tensor layer_norm_2d(const at::Tensor& x, const std::string& at) const {
    return layer_norm(x.permute({0, 2, 3, 1}), at + ".norm", 1e-6)
        .permute({0, 3, 1, 2})
        .contiguous();
  }

  static at::Tensor tokens(const at::Tensor& map) {
    return map.flatten(2).transpose(1, 2).contiguous();
  }
  static at::Tensor map(const at::Tensor& tokens, int64_t height, int64_t width) {
    return tokens.transpose(1, 2).reshape({tokens.size(0), tokens.size(2), height, width});
  }
  static at::Tensor q_shift(const at::Tensor& x, int64_t height, int64_t width) {
    const at::Tensor from = map(x, height, width);
    at::Tensor to = at::zeros_like(from);
    const auto quarter = [&](const at::Tensor& t, int64_t i) {
      const int64_t begin = i * t.size(1) / 4, end = (i + 1) * t.size(1) / 4;
      return t.narrow(1, begin, end - begin);
    };
    quarter(to, 0).narrow(3, 1, width - 1).copy_(quarter(from, 0).narrow(3, 0, width - 1));
    quarter(to, 1).narrow(3, 0, width - 1).copy_(quarter(from, 1).narrow(3, 1, width - 1));
    quarter(to, 2).narrow(2, 1, height - 1).copy_(quarter(from, 2).narrow(2, 0, height - 1));
    quarter(to, 3).narrow(2, 0, height - 1).copy_(quarter(from, 3).narrow(2, 1, height - 1));
    return tokens(to);
  }

  at::Tensor spatial_mix(const at::Tensor& x,
                         const std::string& at,
                         int64_t height,
                         int64_t width) const {
    const auto count = static_cast<double>(height * width);
    const at::Tensor shifted = q_shift(x, height, width);
    const auto mixed = [&](const char* name) {
      const at::Tensor& mix = weight(at + ".spatial_mix_" + name);
      return x * mix + shifted * (1 - mix);
    };
    const at::Tensor k = linear(mixed("k"), at + ".key"), v = linear(mixed("v"), at + ".value");
    const at::Tensor r = at::sigmoid(linear(mixed("r"), at + ".receptance"));
    at::Tensor y =
        wkv_(weight(at + ".spatial_decay") / count, weight(at + ".spatial_first") / count, k, v);
    if (has(at + ".key_norm.weight")) y = layer_norm(y, at + ".key_norm");
    return linear(r * y, at + ".output");
  }
  at::Tensor channel_mix(const at::Tensor& x,
                         const std::string& at,
                         int64_t height,
                         int64_t width) const {
    const at::Tensor shifted = q_shift(x, height, width);
    const auto mixed = [&](const char* name) {
      const at::Tensor& mix = weight(at + ".spatial_mix_" + name);
      return x * mix + shifted * (1 - mix);
    };
    at::Tensor hidden = at::relu(linear(mixed("k"), at + ".key")).square();
    if (has(at + ".key_norm.weight")) hidden = layer_norm(hidden, at + ".key_norm");
    const at::Tensor r = at::sigmoid(linear(mixed("r"), at + ".receptance"));
    return r * linear(hidden, at + ".value");
  }

 private:
  std::map<std::string, at::Tensor> state_;
  std::vector<at::Tensor> parameters_;
  Wkv wkv_;
  bool training_;
};

/// With the published norms: BatchNorm in stages 1 and 2, LayerNorm in 3 and 4. Without stochastic
/// depth. Sides must be multiples of 16.
class Unet : public Network {
 public:
  Unet(const RwkvUnet& model, Wkv wkv, bool training = false)
      : Network(model, wkv, training), config_(model.config()) {}

  at::Tensor forward(const at::Tensor& image) override {
    at::Tensor x = block(image.contiguous(), "encoder.stage0.0", 1, false);
    std::array<at::Tensor, 4> levels;
    for (size_t stage = 0; stage < 4; ++stage) {
      for (int64_t i = 0; i < config_.depths[stage]; ++i)
        x = block(x,
                  "encoder.stage" + std::to_string(stage + 1) + "." + std::to_string(i),
                  i == 0 ? 2 : 1,
                  i > 0);
      levels[stage] = x;
    }
    const auto skips = ccm({levels[2], levels[1], levels[0]});
    x = decoder(levels[3], "decoder1");
    for (size_t i = 0; i < 3; ++i)
      x = decoder(at::cat(std::vector<at::Tensor>{x, skips[i]}, 1),
                  "decoder" + std::to_string(i + 2));
    return conv(x, "final_conv");
  }

 private:
  at::Tensor conv_norm(const at::Tensor& x,
                       const std::string& at,
                       int64_t stride = 1,
                       int64_t groups = 1) const {
    return batch_norm(conv(x, at + ".conv", stride, groups), at + ".norm");
  }

  at::Tensor block(const at::Tensor& x, const std::string& at, int64_t stride, bool skip) const {
    at::Tensor y = x;
    if (has(at + ".norm.norm.weight")) y = layer_norm_2d(y, at + ".norm");
    if (has(at + ".norm.running_mean")) y = batch_norm(y, at + ".norm");
    y = at::relu(conv_norm(y, at + ".conv"));
    if (has(at + ".att.key.weight")) {
      const int64_t height = y.size(2), width = y.size(3);
      const at::Tensor mixed = spatial_mix(tokens(y), at + ".att", height, width);
      y = y + map(layer_norm(mixed, at + ".ln1"), height, width);
    }
    at::Tensor local = at::silu(conv_norm(y, at + ".conv_local", stride, y.size(1)));
    if (has(at + ".se.conv_reduce.weight")) {
      const at::Tensor squeezed = at::silu(conv(local.mean({2, 3}, true), at + ".se.conv_reduce"));
      local = local * at::sigmoid(conv(squeezed, at + ".se.conv_expand"));
    }
    if (skip) local = local + y;
    local = conv(local, at + ".proj.conv");
    return skip ? x + local : local;
  }

  std::vector<at::Tensor> ccm(const std::vector<at::Tensor>& skips) const {
    const int64_t height = skips.back().size(2), width = skips.back().size(3);
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i < skips.size(); ++i)
      parts.push_back(
          conv(resized(skips[i], height, width), "ccm.projections." + std::to_string(i)));
    const at::Tensor joined = at::cat(parts, 1);
    const at::Tensor mixed = channel_mix(tokens(joined), "ccm.channel", height, width);
    const at::Tensor sum = joined + map(layer_norm(mixed, "ccm.ln1"), height, width);
    const auto chunks = sum.chunk(static_cast<int64_t>(skips.size()), 1);
    std::vector<at::Tensor> outputs;
    for (size_t i = 0; i < skips.size(); ++i)
      outputs.push_back(resized(conv(chunks[i], "ccm.final_projections." + std::to_string(i)),
                                skips[i].size(2),
                                skips[i].size(3)));
    return outputs;
  }

  at::Tensor decoder(const at::Tensor& x, const std::string& at) const {
    at::Tensor y = at::relu(conv_norm(x, at + ".conv"));
    y = at::silu(conv_norm(y, at + ".conv_local", 1, y.size(1)));
    y = at::relu(conv_norm(y, at + ".proj"));
    return resized(y, 2 * y.size(2), 2 * y.size(3));
  }

  static at::Tensor resized(const at::Tensor& x, int64_t height, int64_t width) {
    return at::upsample_bilinear2d(x, {height, width}, /*align_corners=*/false);
  }

  RwkvUnetConfig config_;
};

/// Pre-norm, with Bi-WKV, at the size that its positions are stored for.
class Classifier : public Network {
 public:
  Classifier(const VisionRwkv& model, Wkv wkv, bool training = false)
      : Network(model, wkv, training), config_(model.config()) {}

  at::Tensor forward(const at::Tensor& image) override {
    const at::Tensor patches = at::conv2d(image,
                                          weight("backbone.patch_embed.projection.weight"),
                                          weight("backbone.patch_embed.projection.bias"),
                                          {config_.patch_size, config_.patch_size});
    const int64_t height = patches.size(2), width = patches.size(3);
    at::Tensor x = tokens(patches) + weight("backbone.pos_embed");
    for (int64_t i = 0; i < config_.depth; ++i) {
      const std::string at = "backbone.layers." + std::to_string(i);
      if (has(at + ".ln0.weight")) x = layer_norm(x, at + ".ln0");
      x = x + spatial_mix(layer_norm(x, at + ".ln1"), at + ".att", height, width);
      x = x + channel_mix(layer_norm(x, at + ".ln2"), at + ".ffn", height, width);
    }
    const at::Tensor last = map(layer_norm(x, "backbone.ln1"), height, width);
    return linear(at::adaptive_avg_pool2d(last, {1, 1}).flatten(1), "head.fc");
  }

 private:
  VisionRwkvConfig config_;
};

}  // namespace vireo::eager
