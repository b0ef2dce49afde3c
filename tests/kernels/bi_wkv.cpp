#include "kernels/bi_wkv/bi_wkv.h"

#include <string>
#include <tuple>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kernels/bi_wkv/bi_wkv_lane.h"
#include "tests/kernels/reference.h"
#include "tests/support/refusal.h"

namespace vireo {
namespace {

using test::bi_wkv_reference;
using test::deviation;
using test::message_of;
using ::testing::HasSubstr;

/// One problem: inputs that want gradients and the weights of the output.
struct Problem {
  at::Tensor w, u, k, v, gy;

  /// decay and bonus: what models divide by T; spread: the keys' standard deviation.
  static Problem random(int64_t batch,
                        int64_t tokens,
                        int64_t channels,
                        double decay_low,
                        double decay_high,
                        double spread = 1.0,
                        double bonus = 1.0,
                        at::ScalarType type = at::kDouble) {
    const auto options = at::TensorOptions(at::kDouble);
    Problem p;
    p.w = at::empty({channels}, options).uniform_(decay_low, decay_high) / tokens;
    p.u = at::randn({channels}, options) * bonus;
    p.k = (at::randn({batch, tokens, channels}, options) * spread).to(type);
    p.v = at::randn({batch, tokens, channels}, options).to(type);
    p.gy = at::randn({batch, tokens, channels}, options).to(type);
    return p;
  }

  Problem to(at::ScalarType type) const {
    return {w.to(type), u.to(type), k.to(type), v.to(type), gy.to(type)};
  }
};

struct Result {
  at::Tensor y, gw, gu, gk, gv;
};

template <class Operator>
Result run(const Problem& p, const Operator& op) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : {p.w, p.u, p.k, p.v})
    leaves.push_back(x.detach().clone().requires_grad_());
  const at::Tensor y = op(leaves[0], leaves[1], leaves[2], leaves[3]);
  y.backward(p.gy.to(y.scalar_type()));
  return {y.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad(), leaves[3].grad()};
}

Result run_ours(const Problem& p) {
  return run(p, [](auto&... x) { return bi_wkv(x...); });
}
Result run_reference(const Problem& p) {
  return run(p.to(at::kDouble), [](auto&... x) { return bi_wkv_reference(x...); });
}

void expect_close(const Result& ours, const Result& truth, double output, double gradient) {
  EXPECT_LE(deviation(ours.y, truth.y), output) << "y";
  EXPECT_LE(deviation(ours.gk, truth.gk), gradient) << "gk";
  EXPECT_LE(deviation(ours.gv, truth.gv), gradient) << "gv";
  EXPECT_LE(deviation(ours.gw, truth.gw), gradient) << "gw";
  EXPECT_LE(deviation(ours.gu, truth.gu), gradient) << "gu";
}

TEST(BiWkv, EqualsTheQuadraticSumForAnyShape) {
  for (const auto& [batch, tokens, channels] :
       std::vector<std::tuple<int, int, int>>{{1, 1, 1},
                                              {3, 2, 1},
                                              {1, 3, 5},
                                              {2, 16, 16},
                                              {1, 17, 33},
                                              {2, 33, 64},
                                              {1, 196, 65},
                                              {1, 257, 7}}) {
    SCOPED_TRACE(::testing::Message() << batch << " x " << tokens << " x " << channels);
    const Problem p = Problem::random(batch, tokens, channels, -5, 16);
    const Result truth = run_reference(p);
    expect_close(run_ours(p), truth, 1e-12, 1e-11);
    expect_close(run_ours(p.to(at::kFloat)), run_reference(p.to(at::kFloat)), 5e-6, 2e-5);
  }
}

TEST(BiWkv, GradientsAgreeWithDifferencesOfTheOutput) {
  const Problem p = Problem::random(2, 7, 3, -5, 16);
  const Result ours = run_ours(p);
  const auto loss =
      [&](const at::Tensor& w, const at::Tensor& u, const at::Tensor& k, const at::Tensor& v) {
        return (bi_wkv(w, u, k, v) * p.gy).sum().item<double>();
      };
  const double h = 1e-6;
  const auto differences = [&](const at::Tensor& x, const auto& evaluate) {
    at::Tensor result = at::empty_like(x);
    for (int64_t i = 0; i < x.numel(); ++i) {
      at::Tensor up = x.clone(), down = x.clone();
      up.view(-1)[i] += h;
      down.view(-1)[i] -= h;
      result.view(-1)[i] = (evaluate(up) - evaluate(down)) / (2 * h);
    }
    return result;
  };
  const auto expect = [&](const at::Tensor& gradient, const at::Tensor& x, const auto& evaluate) {
    EXPECT_LE(deviation(gradient, differences(x, evaluate)), 1e-8);
  };
  expect(ours.gw, p.w, [&](const at::Tensor& x) { return loss(x, p.u, p.k, p.v); });
  expect(ours.gu, p.u, [&](const at::Tensor& x) { return loss(p.w, x, p.k, p.v); });
  expect(ours.gk, p.k, [&](const at::Tensor& x) { return loss(p.w, p.u, x, p.v); });
  expect(ours.gv, p.v, [&](const at::Tensor& x) { return loss(p.w, p.u, p.k, x); });
}

TEST(BiWkv, StaysExactForExtremeKeysDecaysAndBonuses) {
  // Per channel: what decides which of the ways through the CPU kernel is taken.
  for (const double scale : {0.0, 0.5, 29.0, 31.0, 1000.0, 1e5, -20.0, -45.0, -1000.0})
    for (const double bonus : {0.0, 25.0, -28.0, 60.0, -60.0}) {
      SCOPED_TRACE(::testing::Message() << "w T = " << scale << ", u = " << bonus);
      Problem p = Problem::random(1, 70, 5, scale, scale, 1.0, 0.0, at::kFloat);
      p.w = p.w.to(at::kFloat);
      p.u = (p.u + bonus).to(at::kFloat);
      p.k = at::empty({1, 70, 5}).uniform_(-60, 60);
      const Result truth = run_reference(p);
      const Result ours = run_ours(p);
      EXPECT_LE(deviation(ours.y, truth.y), 1e-5);
      EXPECT_LE(deviation(ours.gv, truth.gv), 1e-5);
      const double size = p.gy.abs().max().item<double>() * p.v.abs().max().item<double>() * 70;
      EXPECT_LE((ours.gk - truth.gk).abs().max().item<double>(), 1e-6 * size);
      // Absolutely as the keys' gradient, times the longest distance that a decay is multiplied by.
      EXPECT_LE((ours.gw - truth.gw).abs().max().item<double>(), 1e-6 * size * 70);
      EXPECT_LE((ours.gu - truth.gu).abs().max().item<double>(), 1e-6 * size);
      const Result exact = run_ours(p.to(at::kDouble));
      EXPECT_LE(deviation(exact.y, truth.y), 1e-12);
      EXPECT_LE(deviation(exact.gv, truth.gv), 1e-12);
      EXPECT_LE((exact.gk - truth.gk).abs().max().item<double>(), 1e-14 * size);
    }
}

TEST(BiWkv, StaysExactWhereKeysRiseAlongTheRow) {
  // From either end the largest keys come last.
  for (const double slope : {0.6, -0.6, 0.05, -0.05}) {
    SCOPED_TRACE(slope);
    Problem p = Problem::random(1, 150, 20, -5, 16);
    p.k += slope * at::arange(150, at::kDouble).view({1, 150, 1});
    const Result truth = run_reference(p);
    expect_close(run_ours(p), truth, 1e-12, 1e-11);
    const Problem single = p.to(at::kFloat);
    const Result ours = run_ours(single), same = run_reference(single);
    EXPECT_LE(deviation(ours.y, same.y), 1e-5);
    EXPECT_LE(deviation(ours.gv, same.gv), 1e-5);
  }
}

TEST(BiWkv, EndsWhereKeysAreBeyondAllPrecision) {
  for (const int64_t tokens : {300, 1500})
    for (const double size : {1e6, 1e9, 1e30}) {
      SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << size);
      Problem p = Problem::random(1, tokens, 20, -5, 16);
      p.k.narrow(1, 0, tokens / 2).fill_(size);
      EXPECT_EQ(run_ours(p.to(at::kFloat)).y.sizes(), p.k.sizes());
      if (size == 1e6 && tokens == 300) expect_close(run_ours(p), run_reference(p), 1e-8, 1e-7);
    }
}

/// One channel of one item after another, from token to token: the way of unsafe channels.
Result run_lanes(const Problem& p) {
  const int64_t tokens = p.k.size(1), channels = p.k.size(2);
  Result r{at::empty_like(p.k), at::zeros_like(p.w), at::zeros_like(p.u), {}, {}};
  r.gk = at::empty_like(p.k);
  r.gv = at::empty_like(p.k);
  for (int64_t b = 0; b < p.k.size(0); ++b)
    for (int64_t c = 0; c < channels; ++c) {
      const auto lane = [&](const at::Tensor& x) {
        return wkv::Lane<double>{x.data_ptr<double>() + b * tokens * channels + c, channels};
      };
      const auto read = [&](const at::Tensor& x) {
        return wkv::Lane<const double>{lane(x).data, channels};
      };
      const double w = p.w[c].item<double>(), u = p.u[c].item<double>();
      wkv::lane_forward<double, double>(w, u, read(p.k), read(p.v), lane(r.y), tokens);
      const auto share = wkv::lane_backward<double, double>(
          w, u, read(p.k), read(p.v), read(p.gy), lane(r.gk), lane(r.gv), tokens);
      r.gw[c] += share.w;
      r.gu[c] += share.u;
    }
  return r;
}

TEST(BiWkv, EqualsAWalkOverRowsThatAreCutIntoSegments) {
  for (const int64_t tokens : {2049, 4097, 9003})
    for (const double scale : {-20.0, 0.0, 16.0}) {
      SCOPED_TRACE(::testing::Message() << tokens << " tokens, w T = " << scale);
      const Problem p = Problem::random(2, tokens, 19, scale, scale, 2.0);
      expect_close(run_ours(p), run_lanes(p), 1e-12, 1e-10);
      const Problem single = p.to(at::kFloat);
      expect_close(run_ours(single), run_lanes(single.to(at::kDouble)), 5e-6, 1e-4);
    }
}

/// A softmax-weighted mean, so it lies between the smallest and the largest value.
TEST(BiWkv, StaysFiniteAndExactOverSixtyFourThousandTokens) {
  const int64_t tokens = 65536;
  for (const double scale : {8.0, -20.0, 6.5e4, -6.5e4}) {
    SCOPED_TRACE(::testing::Message() << "w T = " << scale);
    Problem p = Problem::random(1, tokens, 3, scale, scale, 1.0, 1.0);
    p.k = at::empty({1, tokens, 3}, at::kDouble).uniform_(-60, 60);
    p = p.to(at::kFloat);
    const Result single = run_ours(p);
    const Result twice = run_ours(p.to(at::kDouble));
    EXPECT_LE(deviation(single.y, twice.y), 1e-5);
    EXPECT_LE(deviation(single.gv, twice.gv), 1e-5);
    EXPECT_TRUE(single.gk.isfinite().all().item<bool>());
    EXPECT_TRUE(single.gw.isfinite().all().item<bool>());
    EXPECT_LE(single.y.max().item<float>(), p.v.max().item<float>() * (1 + 1e-5f));
    EXPECT_GE(single.y.min().item<float>(), p.v.min().item<float>() * (1 + 1e-5f));
  }
}

TEST(BiWkv, IgnoresAConstantAddedToTheKeys) {
  Problem p = Problem::random(1, 40, 4, -3, 9);
  const at::Tensor y = bi_wkv(p.w, p.u, p.k, p.v);
  EXPECT_LE(deviation(bi_wkv(p.w, p.u, p.k + 300.0, p.v), y), 1e-11);
}

TEST(BiWkv, GivesTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  for (const auto& [batch, tokens, channels] :
       std::vector<std::tuple<int, int, int>>{{5, 40, 70}, {1, 1500, 6}, {1, 300, 3}}) {
    Problem p = Problem::random(batch, tokens, channels, -5, 16, 1.0, 1.0, at::kFloat);
    p = p.to(at::kFloat);
    p.w[0] = 2.0f;  // one channel that goes the other way
    std::vector<Result> results;
    for (const int threads : {1, 2, 3, 7}) {
      at::set_num_threads(threads);
      results.push_back(run_ours(p));
    }
    for (const Result& r : results) {
      EXPECT_TRUE(at::equal(r.y, results[0].y));
      EXPECT_TRUE(at::equal(r.gw, results[0].gw));
      EXPECT_TRUE(at::equal(r.gu, results[0].gu));
      EXPECT_TRUE(at::equal(r.gk, results[0].gk));
      EXPECT_TRUE(at::equal(r.gv, results[0].gv));
    }
  }
  at::set_num_threads(before);
}

TEST(BiWkv, AcceptsAnyStrides) {
  const Problem p = Problem::random(2, 37, 20, -5, 16, 1.0, 1.0, at::kFloat).to(at::kFloat);
  const Result plain = run_ours(p);
  const auto run_with = [&](const auto& arrange) {
    return run(
        p, [&](const at::Tensor& w, const at::Tensor& u, const at::Tensor& k, const at::Tensor& v) {
          return bi_wkv(w, u, arrange(k), arrange(v));
        });
  };
  const auto channels_first = [](const at::Tensor& x) {
    return x.transpose(1, 2).contiguous().transpose(1, 2);
  };
  const auto part_of_wider = [](const at::Tensor& x) {
    return at::cat({x, x + 1}, 2).narrow(2, 0, x.size(2));
  };
  const auto tokens_first = [](const at::Tensor& x) {
    return x.transpose(0, 1).contiguous().transpose(0, 1);
  };
  for (const Result& r :
       {run_with(channels_first), run_with(part_of_wider), run_with(tokens_first)}) {
    EXPECT_TRUE(at::equal(r.y, plain.y));
    EXPECT_TRUE(at::equal(r.gk, plain.gk));
    EXPECT_TRUE(at::equal(r.gv, plain.gv));
    EXPECT_TRUE(at::equal(r.gw, plain.gw));
  }
  // The gradient of a sum arrives expanded, with strides of zero.
  const at::Tensor k = p.k.clone().requires_grad_();
  bi_wkv(p.w, p.u, k, p.v).sum().backward();
  EXPECT_LE(k.grad().abs().max().item<float>(), 10.0f);
}

TEST(BiWkv, ReadsHalfPrecisionAndSumsInSingle) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf})
    for (const int64_t channels : {64, 5}) {
      Problem p = Problem::random(2, 50, channels, -5, 16, 1.0, 1.0, type);
      p.w = p.w.to(at::kFloat);
      p.u = p.u.to(at::kFloat);
      const Result ours = run_ours(p), truth = run_reference(p);
      EXPECT_EQ(ours.y.scalar_type(), type);
      EXPECT_EQ(ours.gk.scalar_type(), type);
      EXPECT_EQ(ours.gw.scalar_type(), at::kFloat);
      // Results are rounded once; the parameters' gradients not at all.
      const double rounding = type == at::kBFloat16 ? 4e-3 : 5e-4;
      EXPECT_LE(deviation(ours.y, truth.y), rounding);
      EXPECT_LE(deviation(ours.gk, truth.gk), rounding);
      EXPECT_LE(deviation(ours.gv, truth.gv), rounding);
      EXPECT_LE(deviation(ours.gw, truth.gw), 1e-5);
      EXPECT_LE(deviation(ours.gu, truth.gu), 1e-5);
    }
}

TEST(BiWkv, AcceptsParametersOfAnotherFloatingType) {
  const Problem p = Problem::random(1, 9, 4, -5, 16).to(at::kFloat);
  const at::Tensor w = p.w.to(at::kDouble).requires_grad_();
  bi_wkv(w, p.u.to(at::kBFloat16), p.k, p.v).sum().backward();
  EXPECT_EQ(w.grad().scalar_type(), at::kDouble);
}

TEST(BiWkv, PassesNotANumberOn) {
  Problem p = Problem::random(1, 40, 2, -5, 16).to(at::kFloat);
  p.k[0][20][0] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor y = bi_wkv(p.w, p.u, p.k, p.v);
  EXPECT_TRUE(y.select(2, 0).isnan().all().item<bool>());
  EXPECT_TRUE(y.select(2, 1).isfinite().all().item<bool>());
}

TEST(BiWkv, RefusesWhatDoesNotFit) {
  const at::Tensor w = at::zeros({4}), k = at::zeros({2, 3, 4});
  const auto refuses =
      [&](const at::Tensor& w_, const at::Tensor& u_, const at::Tensor& k_, const at::Tensor& v_) {
        return message_of([&] { bi_wkv(w_, u_, k_, v_); });
      };
  EXPECT_THAT(refuses(w, w, at::zeros({3, 4}), k), HasSubstr("k must be [B,T,C], found [3, 4]"));
  EXPECT_THAT(refuses(w, w, k, at::zeros({2, 3, 5})),
              HasSubstr("v must have k's shape [2, 3, 4], found [2, 3, 5]"));
  EXPECT_THAT(refuses(w, w, k, k.to(at::kDouble)), HasSubstr("v must have k's type Float"));
  EXPECT_THAT(refuses(w, w, k.to(at::kInt), k.to(at::kInt)),
              HasSubstr("k must be float32, float64, bfloat16 or float16, found Int"));
  EXPECT_THAT(refuses(at::zeros({5}), w, k, k), HasSubstr("w must be [4], one per channel"));
  EXPECT_THAT(refuses(w, at::zeros({1, 1, 4}), k, k), HasSubstr("found [1, 1, 4]"));
}

TEST(BiWkv, RefusesToBeDifferentiatedTwice) {
  const Problem p = Problem::random(1, 5, 3, -5, 16);
  const at::Tensor k = p.k.clone().requires_grad_();
  const at::Tensor y = bi_wkv(p.w, p.u, k, p.v);
  const at::Tensor gk =
      torch::autograd::grad({y.square().sum()}, {k}, {}, c10::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT(message_of([&] { gk.sum().backward(); }), HasSubstr("bi_wkv: differentiable once"));
}

TEST(BiWkv, PublishedFormHasNoGradient) {
  const Problem p = Problem::random(1, 50, 3, -5, 16);
  const at::Tensor k = p.k.clone().requires_grad_();
  const at::Tensor y = bi_wkv(p.w, p.u, k, p.v, WkvForm::kPublished);
  EXPECT_THAT(message_of([&] { y.sum().backward(); }),
              HasSubstr("WkvForm::kPublished has no gradient"));
}

TEST(BiWkv, AcceptsEmptyBatches) {
  const auto leaf = [](at::IntArrayRef size) { return at::zeros(size).requires_grad_(); };
  const at::Tensor w = leaf({4}), u = leaf({4}), k = leaf({0, 3, 4}), v = leaf({0, 3, 4});
  const at::Tensor y = bi_wkv(w, u, k, v);
  EXPECT_EQ(y.sizes(), k.sizes());
  y.sum().backward();
  EXPECT_TRUE(at::equal(w.grad(), at::zeros({4})));
}

}  // namespace
}  // namespace vireo
