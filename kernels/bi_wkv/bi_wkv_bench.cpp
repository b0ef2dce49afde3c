#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include "kernels/bench_support.h"
#include "kernels/bi_wkv/bi_wkv.h"

namespace vireo {
namespace {

struct Inputs {
  at::Tensor w, u, k, v, gy;

  explicit Inputs(const benchmark::State& state, at::ScalarType type = at::kFloat) {
    const int64_t batch = state.range(0), tokens = state.range(1), channels = state.range(2);
    at::manual_seed(1);
    w = at::rand({channels}) * 8 / tokens;
    u = at::randn({channels}) / tokens;
    k = at::randn({batch, tokens, channels}).to(type);
    v = at::randn({batch, tokens, channels}).to(type);
    gy = at::randn({batch, tokens, channels}).to(type);
  }
};

/// The recurrence as spec and papers write it, one channel after another on one core.
void scalar_row(float w,
                float u,
                const float* k,
                const float* v,
                float* y,
                int64_t n,
                int64_t stride,
                std::vector<float>& right) {
  float a = 0, b = 0, p = -1e38f;
  for (int64_t t = n - 1; t >= 0; --t) {
    right[3 * t] = a;
    right[3 * t + 1] = b;
    right[3 * t + 2] = p;
    const float q = std::max(p - w, k[t * stride]);
    const float old = std::exp(p - w - q), fresh = std::exp(k[t * stride] - q);
    a = old * a + fresh * v[t * stride];
    b = old * b + fresh;
    p = q;
  }
  a = b = 0, p = -1e38f;
  for (int64_t t = 0; t < n; ++t) {
    const float kt = k[t * stride], vt = v[t * stride], pr = right[3 * t + 2];
    const float top = std::max(std::max(p, pr), kt + u);
    const float l = std::exp(p - top), r = std::exp(pr - top), c = std::exp(kt + u - top);
    y[t * stride] = (l * a + r * right[3 * t] + c * vt) / (l * b + r * right[3 * t + 1] + c);
    const float q = std::max(p - w, kt);
    const float old = std::exp(p - w - q), fresh = std::exp(kt - q);
    a = old * a + fresh * vt;
    b = old * b + fresh;
    p = q;
  }
}

void BM_ScalarTranscription(benchmark::State& state) {
  const Inputs in(state);
  const int64_t tokens = in.k.size(1), channels = in.k.size(2);
  at::Tensor y = at::empty_like(in.k);
  std::vector<float> right(static_cast<size_t>(3 * tokens));
  for (auto _ : state)
    for (int64_t b = 0; b < in.k.size(0); ++b)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = b * tokens * channels + c;
        scalar_row(in.w.const_data_ptr<float>()[c],
                   in.u.const_data_ptr<float>()[c],
                   in.k.const_data_ptr<float>() + at,
                   in.v.const_data_ptr<float>() + at,
                   y.data_ptr<float>() + at,
                   tokens,
                   channels,
                   right);
      }
  count_elements(state, in.k.numel());
}

/// y = k + v: what the same memory costs without arithmetic.
void BM_AddBound(benchmark::State& state) {
  const Inputs in(state);
  at::Tensor y = at::empty_like(in.k);
  for (auto _ : state) at::add_out(y, in.k, in.v);
  count_elements(state, in.k.numel());
}

void forward(benchmark::State& state, at::ScalarType type, int threads) {
  const Inputs in(state, type);
  const int before = at::get_num_threads();
  at::set_num_threads(threads == 0 ? before : threads);
  for (auto _ : state) benchmark::DoNotOptimize(bi_wkv(in.w, in.u, in.k, in.v));
  at::set_num_threads(before);
  count_elements(state, in.k.numel());
}
void BM_Forward(benchmark::State& state) {
  forward(state, at::kFloat, 0);
}
void BM_ForwardOneThread(benchmark::State& state) {
  forward(state, at::kFloat, 1);
}
void BM_ForwardBFloat16(benchmark::State& state) {
  forward(state, at::kBFloat16, 0);
}

void BM_ForwardBackward(benchmark::State& state) {
  Inputs in(state);
  for (at::Tensor* x : {&in.w, &in.u, &in.k, &in.v}) x->requires_grad_();
  for (auto _ : state) {
    for (at::Tensor* x : {&in.w, &in.u, &in.k, &in.v}) x->mutable_grad().reset();
    bi_wkv(in.w, in.u, in.k, in.v).backward(in.gy);
  }
  count_elements(state, in.k.numel());
}

void shapes(benchmark::internal::Benchmark* bench) {
  for (const auto& [batch, tokens, channels] :
       std::vector<std::tuple<int, int, int>>{{64, 196, 192}, {2, 1024, 768}, {1, 16384, 192}})
    as_minimum(bench)->Args({batch, tokens, channels});
}

BENCHMARK(BM_ScalarTranscription)->Apply(shapes);
BENCHMARK(BM_AddBound)->Apply(shapes);
BENCHMARK(BM_Forward)->Apply(shapes);
BENCHMARK(BM_ForwardOneThread)->Apply(shapes);
BENCHMARK(BM_ForwardBFloat16)->Apply(shapes);
BENCHMARK(BM_ForwardBackward)->Apply(shapes);

}  // namespace
}  // namespace vireo

BENCHMARK_MAIN();
