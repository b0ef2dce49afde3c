#include <algorithm>
#include <fstream>
#include <limits>
#include <memory>
#include <string>

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <malloc.h>
#include <torch/optim/adamw.h>

#include "kernels/bench_support.h"
#include "models/vision_rwkv.h"
#include "vision/blocks/layout.h"

// Vision-RWKV-T and Vision-RWKV-6-T beside a vision transformer of their width, depth and patch
// (ViT-Ti) whose attention is LibTorch's own, at::scaled_dot_product_attention: on the CPU a fused,
// tiled softmax whose memory is linear in the tokens and whose time is quadratic.
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

/// A number of bytes from /proc/self/status, or NaN.
double resident(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;)
    if (double kib = 0; word == key + ":" && file >> kib) return kib * 1024;
  return std::numeric_limits<double>::quiet_NaN();
}

/// The most that the process held resident since it was made, beyond what it held then.
class PeakMemory {
 public:
  PeakMemory() {
    malloc_trim(0);
    std::ofstream("/proc/self/clear_refs") << "5";  // begins VmHWM anew (Linux)
    before_ = resident("VmRSS");
  }
  double mebibytes() const { return (resident("VmHWM") - before_) / (1 << 20); }

 private:
  double before_;
};

/// One pass without gradients, of `batch` square images.
void time_forward(benchmark::State& state, Make make, int64_t batch, int64_t side) {
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  const auto model = make();
  model->eval();
  const at::Tensor image = at::randn({batch, 3, side, side});
  const PeakMemory peak;
  for (auto _ : state) benchmark::DoNotOptimize(model->forward(image));
  state.counters["peak_MiB"] = peak.mebibytes();
  count_each(state, "per_image", batch);
  count_each(state, "per_patch", batch * (side / 16) * (side / 16));
}

void forward(benchmark::State& state, Make make) {
  time_forward(state, make, state.range(0), 224);
}

/// Of one image, as its area grows.
void latency(benchmark::State& state, Make make) {
  time_forward(state, make, 1, state.range(0));
}

/// Forward, loss, backward and update.
void training_step(benchmark::State& state, Make make) {
  at::manual_seed(1);
  const auto model = make();
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-4));
  const int64_t batch = state.range(0);
  const at::Tensor image = at::randn({batch, 3, 224, 224});
  const at::Tensor truth = at::randint(kClasses, {batch}, at::kLong);
  const PeakMemory peak;
  for (auto _ : state) {
    optimizer.zero_grad();
    at::cross_entropy_loss(model->forward(image), truth).backward();
    optimizer.step();
  }
  state.counters["peak_MiB"] = peak.mebibytes();
  count_each(state, "per_image", batch);
}

void batches(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->ArgName("batch")->Arg(1)->Arg(16);
}
void one_batch(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->ArgName("batch")->Arg(16);
}
void sides(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->ArgName("side")->Arg(224)->Arg(512)->Arg(1024);
}
// The transformer takes long here: once.
void largest_side(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->ArgName("side")->Arg(2048)->Repetitions(1);
}

BENCHMARK_CAPTURE(forward, vit_ti, vit_ti)->Apply(batches);
BENCHMARK_CAPTURE(forward, vision_rwkv_t, vision_rwkv_t)->Apply(batches);
BENCHMARK_CAPTURE(forward, vision_rwkv6_t, vision_rwkv6_t)->Apply(batches);
BENCHMARK_CAPTURE(latency, vit_ti, vit_ti)->Apply(sides);
BENCHMARK_CAPTURE(latency, vision_rwkv_t, vision_rwkv_t)->Apply(sides);
BENCHMARK_CAPTURE(latency, vision_rwkv6_t, vision_rwkv6_t)->Apply(sides);
BENCHMARK_CAPTURE(latency, vit_ti, vit_ti)->Apply(largest_side);
BENCHMARK_CAPTURE(latency, vision_rwkv_t, vision_rwkv_t)->Apply(largest_side);
BENCHMARK_CAPTURE(latency, vision_rwkv6_t, vision_rwkv6_t)->Apply(largest_side);
BENCHMARK_CAPTURE(training_step, vit_ti, vit_ti)->Apply(one_batch);
BENCHMARK_CAPTURE(training_step, vision_rwkv_t, vision_rwkv_t)->Apply(one_batch);
BENCHMARK_CAPTURE(training_step, vision_rwkv6_t, vision_rwkv6_t)->Apply(one_batch);

}  // namespace
}  // namespace vireo

BENCHMARK_MAIN();
