#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/wkv6/wkv6.h"

namespace vireo {
namespace {

struct Inputs {
  at::Tensor r, k, v, w, u, gy;

  explicit Inputs(const benchmark::State& state, at::ScalarType type = at::kFloat) {
    const int64_t batch = state.range(0), tokens = state.range(1), channels = state.range(2);
    const int64_t head = state.range(3);
    at::manual_seed(1);
    const auto draw = [&] { return at::randn({batch, tokens, channels}).to(type); };
    r = draw(), k = draw(), v = draw(), gy = draw();
    w = at::rand({batch, tokens, channels}) * 5 - 6;
    u = at::randn({channels / head, head});
  }
  std::array<at::Tensor*, 5> leaves() { return {&r, &k, &v, &w, &u}; }
};

/// The recurrence as the paper writes it, a token at a time in ATen operations.
at::Tensor transcription(const at::Tensor& r,
                         const at::Tensor& k,
                         const at::Tensor& v,
                         const at::Tensor& w,
                         const at::Tensor& u) {
  const int64_t batch = k.size(0), tokens = k.size(1), heads = u.size(0), n = u.size(1);
  const auto by_token = [&](const at::Tensor& x) {
    return x.reshape({batch, tokens, heads, n}).unbind(1);
  };
  const auto rs = by_token(r), ks = by_token(k), vs = by_token(v), ds = by_token((-w.exp()).exp());
  std::vector<at::Tensor> ys(static_cast<size_t>(tokens));
  for (const bool from_left : {true, false}) {
    at::Tensor state = at::zeros({batch, heads, n, n}, k.options());
    for (size_t i = 0; i < ys.size(); ++i) {
      const size_t t = from_left ? i : ys.size() - 1 - i;
      const at::Tensor kv = ks[t].unsqueeze(-1) * vs[t].unsqueeze(-2);
      const at::Tensor seen = from_left ? state + u.unsqueeze(-1) * kv : state;
      const at::Tensor y = at::matmul(rs[t].unsqueeze(-2), seen).squeeze(-2);
      ys[t] = from_left ? y : ys[t] + y;
      state = ds[t].unsqueeze(-1) * state + kv;
    }
  }
  return at::stack(ys, 1).reshape(k.sizes());
}

template <class Operator>
void forward(benchmark::State& state, const Operator& op, at::ScalarType type = at::kFloat) {
  const at::NoGradGuard no_grad;
  const Inputs in(state, type);
  for (auto _ : state) benchmark::DoNotOptimize(op(in.r, in.k, in.v, in.w, in.u));
  count_each(state, "per_token", in.k.size(0) * in.k.size(1));
}

template <class Operator>
void forward_backward(benchmark::State& state, const Operator& op) {
  Inputs in(state);
  for (at::Tensor* x : in.leaves()) x->requires_grad_();
  for (auto _ : state) {
    for (at::Tensor* x : in.leaves()) x->mutable_grad().reset();
    op(in.r, in.k, in.v, in.w, in.u).backward(in.gy);
  }
  count_each(state, "per_token", in.k.size(0) * in.k.size(1));
}

const auto kOurs = [](const auto&... x) { return wkv6(x...); };

void BM_Transcription(benchmark::State& state) {
  forward(state, transcription);
}
void BM_TranscriptionForwardBackward(benchmark::State& state) {
  forward_backward(state, transcription);
}
void BM_Forward(benchmark::State& state) {
  forward(state, kOurs);
}
void BM_ForwardOneThread(benchmark::State& state) {
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  forward(state, kOurs);
  at::set_num_threads(before);
}
void BM_ForwardBFloat16(benchmark::State& state) {
  forward(state, kOurs, at::kBFloat16);
}
void BM_ForwardBackward(benchmark::State& state) {
  forward_backward(state, kOurs);
}

// Batch, tokens, channels, and channels of a head: 64 in the published networks.
void one_shape(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->Args({4, 1024, 192, 64});
}
void small_heads(benchmark::internal::Benchmark* bench) {
  as_minimum(bench)->Args({4, 1024, 192, 32});
}
/// Time per token must not grow with the tokens.
void growth(benchmark::internal::Benchmark* bench) {
  as_minimum(bench);
  for (const int tokens : {256, 1024, 4096, 16384, 65536}) bench->Args({1, tokens, 192, 64});
}

BENCHMARK(BM_Transcription)->Apply(one_shape);
BENCHMARK(BM_Forward)->Apply(one_shape);
BENCHMARK(BM_ForwardOneThread)->Apply(one_shape);
BENCHMARK(BM_ForwardBFloat16)->Apply(one_shape);
BENCHMARK(BM_TranscriptionForwardBackward)->Apply(one_shape);
BENCHMARK(BM_ForwardBackward)->Apply(one_shape);
BENCHMARK(BM_Transcription)->Apply(small_heads);
BENCHMARK(BM_Forward)->Apply(small_heads);
BENCHMARK(BM_TranscriptionForwardBackward)->Apply(small_heads);
BENCHMARK(BM_ForwardBackward)->Apply(small_heads);
BENCHMARK(BM_Forward)->Apply(growth);
BENCHMARK(BM_ForwardBackward)->Apply(growth);

}  // namespace
}  // namespace vireo

BENCHMARK_MAIN();
