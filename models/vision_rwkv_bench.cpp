#include <memory>
#include <string>

#include <ATen/ATen.h>
#include <torch/optim/adamw.h>

#include "kernels/bench/aten_forms.h"
#include "kernels/bench/bench.h"
#include "kernels/bench/operator_in_use.h"
#include "models/eager_networks.h"
#include "models/inference.h"
#include "vision/blocks/layout.h"

// Vision-RWKV-T and Vision-RWKV-6-T beside a vision transformer of their width, depth and patch
// (ViT-Ti) whose attention is LibTorch's own, at::scaled_dot_product_attention: on the CPU a fused,
// tiled softmax whose memory is linear in the tokens and whose time is quadratic. Vision-RWKV-T
// also beside itself in plain LibTorch (eager_networks.h).
namespace vireo {
namespace {

constexpr int64_t kClasses = 1000;

struct TransformerBlock : torch::nn::Module {
  TransformerBlock(int64_t channels, int64_t heads) : heads(heads) {
    const auto linear = [&](const char* name, int64_t in, int64_t out) {
      return register_module(name, torch::nn::Linear(in, out));
    };
    const auto norm = [&](const char* name) {
      return register_module(name, torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels})));
    };
    norm1 = norm("norm1");
    norm2 = norm("norm2");
    qkv = linear("qkv", channels, 3 * channels);
    output = linear("output", channels, channels);
    widen = linear("widen", channels, 4 * channels);
    narrow = linear("narrow", 4 * channels, channels);
  }

  at::Tensor attend(const at::Tensor& x) {
    const int64_t batch = x.size(0), tokens = x.size(1), channels = x.size(2);
    const auto parts = qkv(x)
                           .view({batch, tokens, 3, heads, channels / heads})
                           .permute({2, 0, 3, 1, 4})
                           .unbind(0);  // [B, heads, T, N] each
    const at::Tensor y = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
    return output(y.transpose(1, 2).reshape({batch, tokens, channels}));
  }

  /// [B, T, C] -> [B, T, C]
  at::Tensor forward(const at::Tensor& input) {
    const at::Tensor x = input + attend(norm1(input));
    return x + narrow(at::gelu(widen(norm2(x))));
  }

  int64_t heads;
  torch::nn::LayerNorm norm1{nullptr}, norm2{nullptr};
  torch::nn::Linear qkv{nullptr}, output{nullptr}, widen{nullptr}, narrow{nullptr};
};

class Transformer : public Model {
 public:
  explicit Transformer(const VisionRwkvConfig& config) : config_(config) {
    const int64_t channels = config.channels;
    embed_ = register_module(
        "embed",
        torch::nn::Conv2d(
            torch::nn::Conv2dOptions(3, channels, config.patch_size).stride(config.patch_size)));
    positions_ =
        register_parameter("positions", at::randn({1, config.grid() * config.grid(), channels}));
    for (int64_t i = 0; i < config.depth; ++i)
      blocks_.push_back(register_module("block" + std::to_string(i),
                                        std::make_shared<TransformerBlock>(channels, 3)));
    norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({channels})));
    fc_ = register_module("fc", torch::nn::Linear(channels, kClasses));
  }

  at::Tensor forward(const at::Tensor& image) override {
    const at::Tensor map = embed_(image);
    at::Tensor x =
        tokens_from_map(map) +
        resize_positions(positions_, config_.grid(), config_.grid(), map.size(2), map.size(3));
    for (const auto& block : blocks_) x = block->forward(x);
    return fc_(norm_(x).mean(1));
  }
  int64_t input_channels() const override { return 3; }
  int64_t class_count() const override { return kClasses; }

 private:
  VisionRwkvConfig config_;
  torch::nn::Conv2d embed_{nullptr};
  at::Tensor positions_;
  std::vector<std::shared_ptr<TransformerBlock>> blocks_;
  torch::nn::LayerNorm norm_{nullptr};
  torch::nn::Linear fc_{nullptr};
};

using Make = std::shared_ptr<Model> (*)();

std::shared_ptr<Model> vit_ti() {
  return std::make_shared<Transformer>(VisionRwkvConfig::preset('T'));
}
std::shared_ptr<Model> vision_rwkv_t() {
  return std::make_shared<VisionRwkv>(VisionRwkvConfig::preset('T'));
}
std::shared_ptr<Model> vision_rwkv6_t() {
  return std::make_shared<VisionRwkv>(VisionRwkvConfig::preset6('T'));
}

constexpr int64_t kSide = 224;

/// One pass without gradients.
std::function<void()> inference(Make make, int64_t batch, at::Device device) {
  at::manual_seed(1);
  const std::shared_ptr<Model> model = make();
  model->to(device);
  model->eval();
  const at::Tensor images = at::randn({batch, 3, kSide, kSide}, device);
  return [=] {
    const at::NoGradGuard no_grad;
    model->forward(images);
  };
}

/// Forward, loss, backward and update.
std::function<void()> training_step(Make make, int64_t batch, at::Device device) {
  at::manual_seed(1);
  const std::shared_ptr<Model> model = make();
  model->to(device);
  const auto optimizer =
      std::make_shared<torch::optim::AdamW>(model->parameters(), torch::optim::AdamWOptions(1e-4));
  const at::Tensor images = at::randn({batch, 3, kSide, kSide}, device);
  const at::Tensor truth = at::randint(kClasses, {batch}, at::device(device).dtype(at::kLong));
  return [=] {
    optimizer->zero_grad();
    at::cross_entropy_loss(model->forward(images), truth).backward();
    optimizer->step();
  };
}

struct Form {
  const char* name;
  eager::Wkv wkv;
  bool once;  ///< a pass takes long
};
constexpr Form kForms[] = {
    {"plain LibTorch, Bi-WKV left out", bi_wkv_left_out, false},
    {"plain LibTorch, Bi-WKV by token", eager::exact_token_scan, false},
    {"plain LibTorch, by token, one maximum", bi_wkv_by_token, false},
    {"plain LibTorch, Bi-WKV quadratic", bi_wkv_quadratic, true},
};

/// Vision-RWKV-T in its inference form.
void measure_prepared(Bench& bench, int64_t batch, Arithmetic precision) {
  BenchCase c;
  c.name = "Vision-RWKV-T inference form, " + shape_text({batch, 3, kSide, kSide}) + ", " +
           name_of(precision);
  if (!bench.wants(c.name)) return;
  c.images = batch;
  at::manual_seed(1);
  const auto model = std::make_shared<VisionRwkv>(VisionRwkvConfig::preset('T'));
  model->eval();
  const at::Tensor images = at::randn({batch, 3, kSide, kSide});
  const auto passes = [&](auto network) {
    return [=] {
      const at::NoGradGuard no_grad;
      network->forward(images);
    };
  };
  const auto ours = prepare_for_inference(model, precision);
  c.ours = {"", passes(ours)};
  for (const Form& form : kForms) {
    if (form.once && batch > 1) continue;
    const auto eager = std::make_shared<eager::Classifier>(*model, form.wkv);
    const at::NoGradGuard no_grad;
    const at::Tensor x = images.narrow(0, 0, 1);
    if (form.wkv != bi_wkv_left_out && precision == Arithmetic::kFloat32)
      check_same(form.name, ours->forward(x), eager->forward(x));
    c.others.push_back({form.name, passes(eager)});
  }
  bench.measure(c);
}

void measure_all(Bench& bench) {
  if (bench.device().is_cpu())
    for (const int64_t batch : {1, 8})
      for (const auto precision : {Arithmetic::kFloat32, Arithmetic::kBfloat16, Arithmetic::kInt8})
        measure_prepared(bench, batch, precision);

  const at::Device device = bench.device();
  for (const bool trains : {false, true})
    for (const int64_t batch : {1, 16})
      for (const bool six : {false, true}) {
        if (trains && batch == 1) continue;
        BenchCase c;
        c.name = std::string(six ? "Vision-RWKV-6-T " : "Vision-RWKV-T ") +
                 (trains ? "training step, " : "forward, ") + shape_text({batch, 3, kSide, kSide}) +
                 ", float32";
        if (!bench.wants(c.name)) continue;
        c.images = batch;
        const auto run = trains ? training_step : inference;
        c.ours = {"", run(six ? vision_rwkv6_t : vision_rwkv_t, batch, device)};
        c.others = {{"ViT-Ti", run(vit_ti, batch, device)}};
        const auto beside = [&](const char* name, const char* op, auto* form) {
          c.others.push_back({name, c.ours.run, [=]() -> std::shared_ptr<void> {
                                return std::make_shared<OperatorInUse>(op, form, device.type());
                              }});
        };
        if (six) {
          beside("WKV6 in ATen, by token", "wkv6", wkv6_by_token);
        } else {
          beside("Bi-WKV left out", "bi_wkv", bi_wkv_left_out);
          beside("Bi-WKV in ATen, by token", "bi_wkv", bi_wkv_by_token);
          // One pass of it takes seconds.
          if (batch == 1 && !trains)
            beside("Bi-WKV in ATen, quadratic", "bi_wkv", bi_wkv_quadratic);
        }
        bench.measure(c);
      }
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "vision_rwkv", vireo::measure_all);
}
