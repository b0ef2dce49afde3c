#include "kernels/bi_wkv/bi_wkv.h"

#include <string>
#include <tuple>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/kernels/reference.h"

namespace vireo {
namespace {

using test::bi_wkv_reference;
using test::deviation;
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
