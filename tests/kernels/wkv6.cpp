#include "kernels/wkv6/wkv6.h"

#include <array>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/kernels/reference.h"
#include "tests/support/refusal.h"

namespace vireo {
namespace {

using test::deviation;
using test::message_of;
using test::wkv6_reference;
using ::testing::HasSubstr;

constexpr std::array<const char*, 5> kNames = {"r", "k", "v", "w", "u"};

/// r, k, v, w, u and the output's gradient.
struct Problem {
  std::array<at::Tensor, 5> x;
  at::Tensor gy;
  bool causal = false;

  /// w uniform between its bounds.
  static Problem random(int64_t batch,
                        int64_t tokens,
                        int64_t heads,
                        int64_t head,
                        double low = -6,
                        double high = 1) {
    const auto draw = [&] { return at::randn({batch, tokens, heads * head}, at::kDouble); };
    Problem p;
    p.x = {draw(), draw(), draw(), at::empty_like(draw()).uniform_(low, high), at::Tensor()};
    p.x[4] = at::randn({heads, head}, at::kDouble);
    p.gy = draw();
    return p.rounded(at::kFloat);
  }
  /// Numbers that `type` holds, in float64.
  Problem rounded(at::ScalarType type) const { return to(type).to(at::kDouble); }
  Problem to(at::ScalarType type) const {
    Problem p = *this;
    for (auto& tensor : p.x) tensor = tensor.to(type);
    p.gy = gy.to(type);
    return p;
  }
};

struct Result {
  at::Tensor y;
  std::array<at::Tensor, 5> g;
};

template <class Operator>
Result run(const Problem& p, const Operator& op) {
  std::array<at::Tensor, 5> leaf;
  for (size_t i = 0; i < 5; ++i) leaf[i] = p.x[i].detach().clone().requires_grad_();
  const at::Tensor y = op(leaf[0], leaf[1], leaf[2], leaf[3], leaf[4], p.causal);
  y.backward(p.gy.to(y.scalar_type()));
  Result result{y.detach(), {}};
  for (size_t i = 0; i < 5; ++i) result.g[i] = test::gradient_of(leaf[i]);
  return result;
}
Result run_ours(const Problem& p) {
  return run(p, [](const auto&... x) { return wkv6(x...); });
}
Result run_reference(const Problem& p) {
  return run(p.to(at::kDouble), [](const auto&... x) { return wkv6_reference(x...); });
}

void expect_close(const Result& ours, const Result& truth, double output, double gradient) {
  EXPECT_LE(deviation(ours.y, truth.y), output) << "y";
  for (size_t i = 0; i < 5; ++i)
    EXPECT_LE(deviation(ours.g[i], truth.g[i]), gradient) << "g" << kNames[i];
}

TEST(Wkv6, EqualsTheRecurrenceForAnyShape) {
  for (const bool causal : {false, true})
    for (const auto& [batch, tokens, heads, head] :
         std::vector<std::tuple<int, int, int, int>>{{1, 1, 1, 1},
                                                     {2, 2, 1, 3},
                                                     {2, 17, 2, 8},
                                                     {1, 16, 1, 16},
                                                     {1, 33, 3, 32},
                                                     {1, 50, 1, 64},
                                                     {1, 19, 1, 80},
                                                     {1, 40, 1, 128},
                                                     {2, 257, 1, 5},
                                                     {1, 600, 1, 16}}) {
      SCOPED_TRACE(::testing::Message() << batch << " x " << tokens << " x " << heads << " x "
                                        << head << (causal ? " causal" : ""));
      Problem p = Problem::random(batch, tokens, heads, head);
      p.causal = causal;
      const Result truth = run_reference(p);
      expect_close(run_ours(p), truth, 1e-13, 1e-12);
      expect_close(run_ours(p.to(at::kFloat)), truth, 2e-6, 5e-6);
    }
}

TEST(Wkv6, GradientsAgreeWithDifferencesOfTheOutput) {
  for (const bool causal : {false, true}) {
    Problem p = Problem::random(2, 6, 2, 3, -2, 1);
    p.causal = causal;
    const Result ours = run_ours(p);
    const double h = 1e-6;
    for (size_t i = 0; i < 5; ++i) {
      at::Tensor differences = at::empty_like(p.x[i]);
      for (int64_t j = 0; j < differences.numel(); ++j) {
        const auto loss = [&](double by) {
          std::array<at::Tensor, 5> x = p.x;
          x[i] = x[i].clone();
          x[i].view(-1)[j] += by;
          return (wkv6(x[0], x[1], x[2], x[3], x[4], causal) * p.gy).sum().item<double>();
        };
        differences.view(-1)[j] = (loss(h) - loss(-h)) / (2 * h);
      }
      EXPECT_LE(deviation(ours.g[i], differences), 1e-8) << "g" << kNames[i];
    }
  }
}

TEST(Wkv6, StaysExactForDecaysNearNoneAndNearAll) {
  // exp(-exp(w)): 1 - 2e-9, 1 - 6e-6, 0.6, 6e-10, 1e-24, zero in float32, zero in float64.
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{{-20, -20},
                                                                        {-12, -12},
                                                                        {-0.7, -0.7},
                                                                        {3, 3.1},
                                                                        {4, 4.1},
                                                                        {5, 5.5},
                                                                        {8, 12},
                                                                        {80, 300},
                                                                        {-100, -100},
                                                                        {-12, 8}}) {
    SCOPED_TRACE(::testing::Message() << "w from " << low << " to " << high);
    const Problem p = Problem::random(1, 300, 1, 8, low, high);
    const Result truth = run_reference(p);
    const Result exact = run_ours(p), single = run_ours(p.to(at::kFloat));
    EXPECT_LE(deviation(exact.y, truth.y), 1e-12);
    EXPECT_LE(deviation(single.y, truth.y), 5e-6);
    for (size_t i = 0; i < 5; ++i) {
      if (i == 3 && truth.g[i].abs().max().item<double>() < 1e-30) {  // nothing is left to differ
        EXPECT_LE(single.g[i].abs().max().item<double>(), 1e-30);
        EXPECT_LE(exact.g[i].abs().max().item<double>(), 1e-30);
        continue;
      }
      EXPECT_LE(deviation(exact.g[i], truth.g[i]), 1e-11) << "g" << kNames[i];
      EXPECT_LE(deviation(single.g[i], truth.g[i]), 1e-5) << "g" << kNames[i];
    }
  }
}

TEST(Wkv6, StaysExactOverTwentyThousandTokens) {
  for (const auto& [low, high] : std::vector<std::pair<double, double>>{{-9.5, -9.5}, {-12, 6}}) {
    SCOPED_TRACE(::testing::Message() << "w from " << low << " to " << high);
    const Problem p = Problem::random(1, 20000, 1, 4, low, high);
    const Result truth = run_reference(p);
    expect_close(run_ours(p), truth, 1e-11, 1e-10);
    expect_close(run_ours(p.to(at::kFloat)), truth, 1e-5, 2e-5);
  }
}

TEST(Wkv6, TheTwoDirectionsAreMirrorImages) {
  Problem p = Problem::random(1, 300, 2, 16);
  const auto turned = [](const at::Tensor& x) { return x.flip(1); };
  const auto& [r, k, v, w, u] = p.x;
  const at::Tensor y = wkv6(r, k, v, w, u);
  EXPECT_LE(deviation(turned(wkv6(turned(r), turned(k), turned(v), turned(w), u)), y), 1e-12);
  const at::Tensor left = wkv6(r, k, v, w, u, true);
  const at::Tensor right =
      turned(wkv6(turned(r), turned(k), turned(v), turned(w), at::zeros_like(u), true));
  EXPECT_LE(deviation(left + right, y), 1e-12);
}

TEST(Wkv6, ACausalOutputIgnoresWhatFollows) {
  Problem p = Problem::random(1, 90, 1, 8);
  const auto& [r, k, v, w, u] = p.x;
  const at::Tensor whole = wkv6(r, k, v, w, u, true);
  const auto first = [](const at::Tensor& x) { return x.narrow(1, 0, 37); };
  const at::Tensor part = wkv6(first(r), first(k), first(v), first(w), u, true);
  EXPECT_LE(deviation(part, first(whole)), 1e-14);
}

TEST(Wkv6, GivesTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  const Problem p = Problem::random(2, 700, 2, 24).to(at::kFloat);
  std::vector<Result> results;
  for (const int threads : {1, 2, 3, 7}) {
    at::set_num_threads(threads);
    results.push_back(run_ours(p));
  }
  at::set_num_threads(before);
  for (const Result& result : results) {
    EXPECT_TRUE(at::equal(result.y, results[0].y));
    for (size_t i = 0; i < 5; ++i)
      EXPECT_TRUE(at::equal(result.g[i], results[0].g[i])) << kNames[i];
  }
}

TEST(Wkv6, AcceptsAnyStrides) {
  const Problem p = Problem::random(2, 37, 2, 10).to(at::kFloat);
  const Result plain = run_ours(p);
  const auto run_with = [&](const auto& arrange) {
    return run(
        p, [&](const auto& r, const auto& k, const auto& v, const auto& w, const auto& u, bool) {
          return wkv6(arrange(r), arrange(k), arrange(v), arrange(w), u);
        });
  };
  for (const Result& result : {run_with([](const at::Tensor& x) {
                                 return x.transpose(1, 2).contiguous().transpose(1, 2);
                               }),
                               run_with([](const at::Tensor& x) {
                                 return x.transpose(0, 1).contiguous().transpose(0, 1);
                               }),
                               run_with([](const at::Tensor& x) {
                                 return at::cat({x, x + 1}, 2).narrow(2, 0, x.size(2));
                               })}) {
    EXPECT_TRUE(at::equal(result.y, plain.y));
    for (size_t i = 0; i < 5; ++i) EXPECT_TRUE(at::equal(result.g[i], plain.g[i])) << kNames[i];
  }
  // The gradient of a sum arrives expanded, with strides of zero.
  const at::Tensor k = p.x[1].clone().requires_grad_();
  wkv6(p.x[0], k, p.x[2], p.x[3], p.x[4]).sum().backward();
  EXPECT_TRUE(k.grad().isfinite().all().item<bool>());
}

TEST(Wkv6, ReadsHalfPrecisionAndSumsInSingle) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf})
    for (const int64_t head : {64, 7}) {
      Problem p = Problem::random(2, 50, 2, head, -4, 1).rounded(type);
      const Result truth = run_reference(p);
      for (size_t i = 0; i < 3; ++i) p.x[i] = p.x[i].to(type);
      p.x[3] = p.x[3].to(at::kFloat);  // decays and bonus keep a type of their own
      p.x[4] = p.x[4].to(at::kFloat);
      const Result ours = run_ours(p);
      EXPECT_EQ(ours.y.scalar_type(), type);
      EXPECT_EQ(ours.g[1].scalar_type(), type);
      EXPECT_EQ(ours.g[3].scalar_type(), at::kFloat);
      // Results are rounded once; those kept in float32 not at all.
      const double rounding = type == at::kBFloat16 ? 4e-3 : 5e-4;
      EXPECT_LE(deviation(ours.y, truth.y), rounding);
      for (size_t i = 0; i < 5; ++i)
        EXPECT_LE(deviation(ours.g[i], truth.g[i]), i < 3 ? rounding : 1e-5) << kNames[i];
    }
}

TEST(Wkv6, KeepsNotANumberToItsHead) {
  Problem p = Problem::random(1, 40, 2, 8).to(at::kFloat);
  p.x[3][0][20][3] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor y = wkv6(p.x[0], p.x[1], p.x[2], p.x[3], p.x[4]);
  EXPECT_TRUE(y.narrow(2, 0, 8).select(1, 39).isnan().all().item<bool>());
  EXPECT_TRUE(y.narrow(2, 8, 8).isfinite().all().item<bool>());
}

TEST(Wkv6, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::zeros({2, 3, 8}), u = at::zeros({2, 4});
  EXPECT_THAT(message_of([&] { wkv6(x, x[0], x, x, u); }), HasSubstr("k must be [B,T,C]"));
  EXPECT_THAT(message_of([&] {
                wkv6(at::zeros({2, 3, 4}), x, x, x, u);
              }),
              HasSubstr("r must have k's shape [2, 3, 8], found [2, 3, 4]"));
  EXPECT_THAT(message_of([&] { wkv6(x, x, x.to(at::kDouble), x, u); }),
              HasSubstr("v must have k's type Float, found Double"));
  EXPECT_THAT(message_of([&] { wkv6(x, x, x, x.to(at::kInt), u); }),
              HasSubstr("w must be float32, float64, bfloat16 or float16, found Int"));
  EXPECT_THAT(message_of([&] {
                wkv6(x, x, x, x, at::zeros({2, 5}));
              }),
              HasSubstr("together k's 8 channels, found [2, 5]"));
  const at::Tensor wide = at::zeros({1, 2, 144});
  EXPECT_THAT(message_of([&] {
                wkv6(wide, wide, wide, wide, at::zeros({1, 144}));
              }),
              HasSubstr("at most 128 channels"));
}

TEST(Wkv6, RefusesToBeDifferentiatedTwice) {
  const Problem p = Problem::random(1, 5, 1, 3);
  const at::Tensor k = p.x[1].clone().requires_grad_();
  const at::Tensor y = wkv6(p.x[0], k, p.x[2], p.x[3], p.x[4]);
  const at::Tensor gk =
      torch::autograd::grad({y.square().sum()}, {k}, {}, c10::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT(message_of([&] { gk.sum().backward(); }), HasSubstr("wkv6: differentiable once"));
}

TEST(Wkv6, AcceptsEmptyBatches) {
  const at::Tensor x = at::zeros({0, 3, 4}).requires_grad_(),
                   u = at::zeros({2, 2}).requires_grad_();
  const at::Tensor y = wkv6(x, x, x, x, u);
  EXPECT_EQ(y.sizes(), x.sizes());
  y.sum().backward();
  EXPECT_TRUE(at::equal(u.grad(), at::zeros({2, 2})));
}

}  // namespace
}  // namespace vireo
