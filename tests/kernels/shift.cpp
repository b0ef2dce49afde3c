#include "kernels/shift/shift.h"

#include <vector>

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/kernels/reference.h"

namespace vireo {
namespace {

using test::deviation;
using test::q_shift_reference;

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

}  // namespace
}  // namespace vireo
