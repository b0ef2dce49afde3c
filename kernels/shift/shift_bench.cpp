#include <vector>

#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/shift/shift.h"

namespace vireo {
namespace {

/// Arguments: batch, side of the square image, channels.
struct Inputs {
  int64_t side;
  at::Tensor x;
  std::vector<at::Tensor> mixes, gys;

  explicit Inputs(const benchmark::State& state) : side(state.range(1)) {
    at::manual_seed(1);
    x = at::randn({state.range(0), side * side, state.range(2)});
    for (int m = 0; m < 3; ++m) {
      mixes.push_back(at::rand({state.range(2)}));
      gys.push_back(at::randn_like(x));
    }
  }
};

/// The three-way mix as separate ATen operations, as published code does it.
std::vector<at::Tensor> mix_with_aten(const at::Tensor& x,
                                      const std::vector<at::Tensor>& mixes,
                                      int64_t side) {
  const int64_t batch = x.size(0), channels = x.size(2), quarter = channels / 4;
  const at::Tensor image = x.transpose(1, 2).reshape({batch, channels, side, side});
  const at::Tensor padded = at::constant_pad_nd(image, {1, 1, 1, 1});
  const auto part = [&](int64_t j, int64_t top, int64_t left) {
    return padded.narrow(1, j * quarter, j == 3 ? channels - 3 * quarter : quarter)
        .narrow(2, top, side)
        .narrow(3, left, side);
  };
  const at::Tensor shifted =
      at::cat({part(0, 1, 0), part(1, 1, 2), part(2, 0, 1), part(3, 2, 1)}, 1)
          .flatten(2)
          .transpose(1, 2);
  std::vector<at::Tensor> out;
  for (const at::Tensor& mix : mixes) out.push_back(x * mix + shifted * (1 - mix));
  return out;
}

template <class Operator>
void forward(benchmark::State& state, const Operator& op) {
  const Inputs in(state);
  for (auto _ : state) benchmark::DoNotOptimize(op(in));
  count_elements(state, in.x.numel());
}

template <class Operator>
void forward_backward(benchmark::State& state, const Operator& op) {
  Inputs in(state);
  std::vector<at::Tensor> leaves = in.mixes;
  leaves.push_back(in.x);
  for (at::Tensor& leaf : leaves) leaf.requires_grad_();
  for (auto _ : state) {
    for (at::Tensor& leaf : leaves) leaf.mutable_grad().reset();
    const std::vector<at::Tensor> out = op(in);
    at::Tensor total = at::zeros({});
    for (size_t m = 0; m < out.size(); ++m)
      total = total + at::dot(out[m].flatten(), in.gys[m].flatten());
    total.backward();
  }
  count_elements(state, in.x.numel());
}

const auto kShift = [](const Inputs& in) { return q_shift(in.x, in.side, in.side); };
const auto kFused = [](const Inputs& in) { return q_shift_mix(in.x, in.mixes, in.side, in.side); };
const auto kAten = [](const Inputs& in) { return mix_with_aten(in.x, in.mixes, in.side); };

void BM_Copy(benchmark::State& state) {
  forward(state, [](const Inputs& in) { return in.x.clone(); });
}
void BM_Shift(benchmark::State& state) {
  forward(state, kShift);
}
void BM_ShiftMix3(benchmark::State& state) {
  forward(state, kFused);
}
void BM_ShiftMix3Aten(benchmark::State& state) {
  forward(state, kAten);
}
void BM_ShiftMix3ForwardBackward(benchmark::State& state) {
  forward_backward(state, kFused);
}
void BM_ShiftMix3AtenForwardBackward(benchmark::State& state) {
  forward_backward(state, kAten);
}

void shapes(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->Args({64, 14, 192});
  as_minimum(bench)->Args({1, 128, 192});
}

BENCHMARK(BM_Copy)->Apply(shapes);
BENCHMARK(BM_Shift)->Apply(shapes);
BENCHMARK(BM_ShiftMix3)->Apply(shapes);
BENCHMARK(BM_ShiftMix3Aten)->Apply(shapes);
BENCHMARK(BM_ShiftMix3ForwardBackward)->Apply(shapes);
BENCHMARK(BM_ShiftMix3AtenForwardBackward)->Apply(shapes);

}  // namespace
}  // namespace vireo

BENCHMARK_MAIN();
