#include "kernels/shift/shift.h"

#include <string>
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
using test::q_shift_reference;
using ::testing::HasSubstr;

struct Case {
  int64_t batch, height, width, channels;
  QShift shift;
};

std::vector<Case> cases() {
  return {{2, 4, 4, 8, {}},
          {1, 5, 4, 10, {}},
          {1, 1, 1, 1, {}},
          {2, 3, 5, 7, {}},
          {1, 6, 7, 16, {2, 0.25, 0, false}},
          {2, 2, 3, 16, {4, 0.25, 0, false}},
          {2, 4, 3, 16, {1, 0.125, 0, false}},
          {1, 3, 4, 64, {1, 0.25, 16, true}},
          {2, 9, 11, 32, {2, 0.25, 16, false}}};
}

at::Tensor random_input(const Case& c) {
  return at::randn({c.batch, c.height * c.width + (c.shift.class_token ? 1 : 0), c.channels},
                   at::kDouble);
}

TEST(QShift, MovesEveryQuarterItsWay) {
  for (const Case& c : cases()) {
    const at::Tensor x = random_input(c);
    EXPECT_TRUE(at::equal(q_shift(x, c.height, c.width, c.shift),
                          q_shift_reference(x, c.height, c.width, c.shift)));
  }
}

TEST(QShiftMix, EqualsShiftThenMixWithGradients) {
  for (const Case& c : cases())
    for (const int count : {1, 2, 3, 5}) {
      const at::Tensor input = random_input(c);
      const auto evaluate = [&](bool fused) {
        at::manual_seed(7);
        const at::Tensor x = input.clone().requires_grad_();
        std::vector<at::Tensor> mixes, results;
        for (int m = 0; m < count; ++m)
          mixes.push_back(at::randn({1, 1, c.channels}, at::kDouble).requires_grad_());
        std::vector<at::Tensor> out;
        if (fused) {
          out = q_shift_mix(x, mixes, c.height, c.width, c.shift);
        } else {
          const at::Tensor shifted = q_shift_reference(x, c.height, c.width, c.shift);
          for (const at::Tensor& mix : mixes) out.push_back(x * mix + shifted * (1 - mix));
        }
        at::Tensor total = at::zeros({}, at::kDouble);
        for (const at::Tensor& y : out) total = total + (y * at::randn_like(y)).sum();
        total.backward();
        results = out;
        results.push_back(x.grad());
        for (const at::Tensor& mix : mixes) results.push_back(mix.grad());
        return results;
      };
      const std::vector<at::Tensor> ours = evaluate(true), truth = evaluate(false);
      ASSERT_EQ(ours.size(), truth.size());
      for (size_t i = 0; i < ours.size(); ++i) {
        EXPECT_EQ(ours[i].sizes(), truth[i].sizes());
        EXPECT_LE(deviation(ours[i], truth[i]), 1e-13) << "result " << i;
      }
    }
}

/// x, gradients of x and of three mixes, with fixed random weights of the outputs.
std::vector<at::Tensor> mix_results(const Case& c, at::ScalarType type, at::ScalarType mix_type) {
  at::manual_seed(11);
  const at::Tensor x = random_input(c).to(type).requires_grad_();
  std::vector<at::Tensor> mixes;
  for (int m = 0; m < 3; ++m)
    mixes.push_back(at::randn({c.channels}, at::kDouble).to(mix_type).requires_grad_());
  const std::vector<at::Tensor> out = q_shift_mix(x, mixes, c.height, c.width, c.shift);
  std::vector<at::Tensor> gys;
  for (const at::Tensor& y : out) gys.push_back(at::randn(y.sizes(), at::kDouble).to(type));
  torch::autograd::backward(out, gys);
  std::vector<at::Tensor> results = out;
  results.push_back(x.grad());
  for (const at::Tensor& mix : mixes) results.push_back(mix.grad());
  return results;
}

TEST(QShift, MovesAnyTypeExactlyAndItsGradientBack) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const Case& c : cases()) {
      const at::Tensor x = random_input(c).to(type).requires_grad_();
      const at::Tensor y = q_shift(x, c.height, c.width, c.shift);
      EXPECT_TRUE(at::equal(y, q_shift_reference(x, c.height, c.width, c.shift)));
      const at::Tensor gy = at::randn(y.sizes()).to(type);
      y.backward(gy);
      const at::Tensor z = x.detach().clone().requires_grad_();
      q_shift_reference(z, c.height, c.width, c.shift).backward(gy);
      EXPECT_TRUE(at::equal(x.grad(), z.grad()));
    }
}

TEST(QShift, AcceptsAnyStrides) {
  const at::Tensor x = at::randn({2, 8, 12}).transpose(1, 2);  // [2,12,8]
  EXPECT_TRUE(at::equal(q_shift(x, 3, 4), q_shift(x.contiguous(), 3, 4)));
  const std::vector<at::Tensor> mixes{at::rand({8})};
  EXPECT_TRUE(
      at::equal(q_shift_mix(x, mixes, 3, 4)[0], q_shift_mix(x.contiguous(), mixes, 3, 4)[0]));
}

TEST(QShift, AcceptsEmptyBatches) {
  EXPECT_EQ(q_shift(at::zeros({0, 12, 8}), 3, 4).sizes(), at::IntArrayRef({0, 12, 8}));
  const at::Tensor mix = at::rand({8}).requires_grad_();
  q_shift_mix(at::zeros({0, 12, 8}), {mix}, 3, 4)[0].sum().backward();
  EXPECT_TRUE(at::equal(mix.grad(), at::zeros({8})));
}

TEST(QShiftMix, RoundsHalfPrecisionOnce) {
  const Case c{2, 7, 6, 40, {}};
  const std::vector<at::Tensor> truth = mix_results(c, at::kDouble, at::kDouble);
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    const std::vector<at::Tensor> ours = mix_results(c, type, at::kFloat);
    const double rounding = type == at::kBFloat16 ? 1e-2 : 2e-3;  // inputs are rounded too
    for (size_t i = 0; i < ours.size(); ++i) {
      EXPECT_EQ(ours[i].scalar_type(), i < 4 ? type : at::kFloat);
      EXPECT_LE(deviation(ours[i], truth[i]), rounding);
    }
  }
}

TEST(QShiftMix, GivesTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  const Case c{3, 13, 17, 50, {}};
  std::vector<std::vector<at::Tensor>> runs;
  for (const int threads : {1, 2, 5}) {
    at::set_num_threads(threads);
    runs.push_back(mix_results(c, at::kFloat, at::kFloat));
  }
  at::set_num_threads(before);
  for (const std::vector<at::Tensor>& run : runs)
    for (size_t i = 0; i < run.size(); ++i) EXPECT_TRUE(at::equal(run[i], runs[0][i]));
}

TEST(QShift, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::zeros({1, 12, 8});
  const auto refuses = [&](const at::Tensor& input, const QShift& shift) {
    return message_of([&] { q_shift(input, 3, 4, shift); });
  };
  EXPECT_THAT(refuses(at::zeros({12, 8}), {}), HasSubstr("x must be [B,T,C], found [12, 8]"));
  EXPECT_THAT(refuses(at::zeros({1, 13, 8}), {}), HasSubstr("height*width = 3*4 tokens, found 13"));
  EXPECT_THAT(refuses(x, {1, 0.25, 0, true}), HasSubstr("+ 1 = 3*4 + 1 tokens, found 12"));
  EXPECT_THAT(refuses(x, {0, 0.25, 0, false}), HasSubstr("pixels must be at least 1, found 0"));
  EXPECT_THAT(refuses(x, {1, 0.3, 0, false}), HasSubstr("gamma must be in (0, 0.25], found 0.3"));
  EXPECT_THAT(refuses(x, {1, 0.25, 3, false}), HasSubstr("multiple of head_dim 3, found 8"));
  EXPECT_THAT(refuses(x.to(at::kInt), {}), HasSubstr("found Int"));
}

TEST(QShiftMix, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::zeros({1, 12, 8});
  EXPECT_THAT(message_of([&] { q_shift_mix(x, {}, 3, 4); }), HasSubstr("1 to 5 mixes, found 0"));
  EXPECT_THAT(message_of([&] { q_shift_mix(x, {at::zeros({7})}, 3, 4); }),
              HasSubstr("a mix must be [8] or [1,1,8], found [7]"));
  const at::Tensor y = x.clone().requires_grad_();
  const at::Tensor out = q_shift_mix(y, {at::rand({8})}, 3, 4)[0];
  const at::Tensor gx =
      torch::autograd::grad({out.square().sum()}, {y}, {}, c10::nullopt, /*create_graph=*/true)[0];
  EXPECT_THAT(message_of([&] { gx.sum().backward(); }),
              HasSubstr("q_shift_mix: differentiable once"));
}

}  // namespace
}  // namespace vireo
