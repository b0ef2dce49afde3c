#include "kernels/bench/aten_forms.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/bench/operator_in_use.h"
#include "kernels/bi_wkv/bi_wkv.h"
#include "kernels/wkv6/wkv6.h"
#include "tests/support/deviation.h"

namespace vireo {
namespace {

struct BiWkvInputs {
  at::Tensor w = at::rand({12}, at::kDouble) / 4, u = at::randn({12}, at::kDouble);
  at::Tensor k = at::randn({2, 30, 12}, at::kDouble), v = at::randn({2, 30, 12}, at::kDouble);
};

TEST(AtenForms, OfBiWkvComputeBiWkv) {
  const BiWkvInputs in;
  const at::Tensor expected = bi_wkv(in.w, in.u, in.k, in.v);
  for (const auto form : {bi_wkv_by_token, bi_wkv_quadratic})
    EXPECT_LT(test::deviation(form(in.w, in.u, in.k, in.v), expected), 1e-12);
}

TEST(AtenForms, OfWkv6ComputesWkv6) {
  const auto draw = [] { return at::randn({2, 21, 12}, at::kDouble); };
  const at::Tensor r = draw(), k = draw(), v = draw(), w = draw(),
                   u = at::randn({3, 4}, at::kDouble);
  for (const bool causal : {false, true})
    EXPECT_LT(test::deviation(wkv6_by_token(r, k, v, w, u, causal), wkv6(r, k, v, w, u, causal)),
              1e-12);
}

TEST(AtenForms, AttentionWeighsValuesBySoftmaxInHeadsThatDivideTheChannels) {
  const int64_t channels = 96, head = 48;  // the largest divisor up to 64
  const at::Tensor k = at::randn({1, 7, channels}, at::kDouble);
  const at::Tensor v = at::randn({1, 7, channels}, at::kDouble);
  std::vector<at::Tensor> heads;
  for (int64_t start = 0; start < channels; start += head) {
    const at::Tensor keys = k[0].narrow(1, start, head);
    const at::Tensor weights = at::softmax(keys.matmul(keys.t()) / std::sqrt(head), -1);
    heads.push_back(weights.matmul(v[0].narrow(1, start, head)));
  }
  const at::Tensor none;
  EXPECT_LT(test::deviation(attention_for_bi_wkv(none, none, k, v)[0], at::cat(heads, 1)), 1e-12);
}

TEST(OperatorInUse, HoldsWhileItLives) {
  const BiWkvInputs in;
  const at::Tensor before = bi_wkv(in.w, in.u, in.k, in.v);
  {
    const OperatorInUse left_out("bi_wkv", bi_wkv_left_out, at::kCPU);
    EXPECT_TRUE(at::equal(bi_wkv(in.w, in.u, in.k, in.v), in.v));
  }
  EXPECT_TRUE(at::equal(bi_wkv(in.w, in.u, in.k, in.v), before));
}

}  // namespace
}  // namespace vireo
