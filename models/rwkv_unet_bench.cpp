#include <memory>

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <torch/library.h>
#include <torch/optim/adamw.h>

#include "kernels/bench_support.h"
#include "kernels/bi_wkv/bi_wkv.h"
#include "models/rwkv_unet.h"
#include "vision/losses/cross_entropy_dice.h"

// RWKV-UNet-T at 224x224, three channels and nine classes, beside the same network with its Bi-WKV
// made of plain ATen operations, or left out.
namespace vireo {
namespace {

using Wkv = at::Tensor (*)(const at::Tensor&,
                           const at::Tensor&,
                           const at::Tensor&,
                           const at::Tensor&);

/// The recurrence, token by token from the left and from the right.
at::Tensor token_scan(const at::Tensor& w,
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

/// Every token against every other: softmax over [B, T, T, C].
at::Tensor quadratic(const at::Tensor& w,
                     const at::Tensor& u,
                     const at::Tensor& k,
                     const at::Tensor& v) {
  const at::Tensor at_token = at::arange(k.size(1), k.options());
  const at::Tensor distance = (at_token.unsqueeze(0) - at_token.unsqueeze(1)).abs().unsqueeze(-1);
  const at::Tensor bias = at::where(distance == 0, u, w * (1 - distance));  // [T, T, C]
  return (at::softmax(k.unsqueeze(1) + bias, 2) * v.unsqueeze(1)).sum(2);
}

at::Tensor left_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor& v) {
  return v;
}

/// While it lives, `form` is what the network's Bi-WKV runs; null: Vireo's own.
class WkvInUse {
 public:
  explicit WkvInUse(Wkv form) {
    if (!form) return;
    library_ = std::make_unique<torch::Library>(
        torch::Library::IMPL, "vireo", c10::DispatchKey::AutogradCPU, __FILE__, __LINE__);
    library_->impl("bi_wkv", form);
  }

 private:
  std::unique_ptr<torch::Library> library_;
};

void check_same(Wkv form) {
  if (!form || form == left_out) return;
  const at::Tensor w = at::rand({8}) / 4, u = at::randn({8});
  const at::Tensor k = at::randn({2, 30, 8}), v = at::randn({2, 30, 8});
  TORCH_CHECK(at::allclose(form(w, u, k, v), bi_wkv(w, u, k, v), 1e-4, 1e-5),
              "the compared form of Bi-WKV computes something else");
}

std::shared_ptr<RwkvUnet> network() {
  at::manual_seed(1);
  RwkvUnetConfig config = RwkvUnetConfig::preset('T');
  config.in_channels = 3;
  config.classes = 9;
  return std::make_shared<RwkvUnet>(config);
}

at::Tensor images(const benchmark::State& state) {
  return at::randn({state.range(0), 3, 224, 224});
}

void forward(benchmark::State& state, Wkv form) {
  check_same(form);
  const WkvInUse in_use(form);
  const at::NoGradGuard no_grad;
  const auto model = network();
  model->eval();
  const at::Tensor image = images(state);
  for (auto _ : state) benchmark::DoNotOptimize(model->forward(image));
}

/// Forward, loss, backward and update.
void training_step(benchmark::State& state, Wkv form) {
  check_same(form);
  const WkvInUse in_use(form);
  const auto model = network();
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-4));
  const at::Tensor image = images(state);
  const at::Tensor truth = at::randint(9, {state.range(0), 224, 224}, at::kByte);
  for (auto _ : state) {
    optimizer.zero_grad();
    cross_entropy_dice(model->forward(image), truth, {}).total.backward();
    optimizer.step();
  }
}

void batches(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->ArgName("batch")->Arg(1)->Arg(4);
}

// A pass of the quadratic form takes seconds.
void one_image(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->ArgName("batch")->Arg(1);
}

BENCHMARK_CAPTURE(forward, vireo, nullptr)->Apply(batches);
BENCHMARK_CAPTURE(forward, wkv_left_out, left_out)->Apply(batches);
BENCHMARK_CAPTURE(forward, wkv_token_scan, token_scan)->Apply(batches);
BENCHMARK_CAPTURE(forward, wkv_quadratic, quadratic)->Apply(one_image);
BENCHMARK_CAPTURE(training_step, vireo, nullptr)->Apply(batches);
BENCHMARK_CAPTURE(training_step, wkv_left_out, left_out)->Apply(batches);
BENCHMARK_CAPTURE(training_step, wkv_token_scan, token_scan)->Apply(batches);

}  // namespace
}  // namespace vireo

BENCHMARK_MAIN();
