#include "vision/blocks/spatial_mix6.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/kernels/reference.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using test::deviation;

/// Everything away from where it starts, in float64.
void randomise(SpatialMix6Impl& mix) {
  mix.to(at::kDouble);
  const at::NoGradGuard no_grad;
  for (auto& parameter : mix.parameters()) parameter.normal_(0, 0.4);
}

TEST(SpatialMix6, EqualsItsFormula) {
  for (const bool key_norm : {false, true}) {
    SpatialMix6 mix(SpatialMix6Options{
        .channels = 16, .heads = 2, .key_norm = key_norm, .mix_rank = 3, .decay_rank = 5});
    randomise(*mix);
    const at::Tensor x = at::randn({2, 3 * 5, 16}, at::kDouble);
    const at::Tensor xx = test::q_shift_reference(x, 3, 5, QShift{.head_dim = 8}) - x;
    const at::Tensor z = at::tanh(at::matmul(x + xx * mix->time_maa_x, mix->time_maa_w1));
    const auto mixed = [&](int64_t which, const at::Tensor& maa) {
      const at::Tensor own = at::matmul(z.narrow(2, 3 * which, 3), mix->time_maa_w2[which]);
      return x + xx * (maa + own);
    };
    const at::Tensor w =
        mix->time_decay +
        at::matmul(at::tanh(at::matmul(mixed(0, mix->time_maa_w), mix->time_decay_w1)),
                   mix->time_decay_w2);
    const at::Tensor k = at::matmul(mixed(1, mix->time_maa_k), mix->key->weight.t());
    const at::Tensor v = at::matmul(mixed(2, mix->time_maa_v), mix->value->weight.t());
    const at::Tensor r = at::matmul(mixed(3, mix->time_maa_r), mix->receptance->weight.t());
    const at::Tensor g = at::matmul(mixed(4, mix->time_maa_g), mix->gate->weight.t());
    at::Tensor y = test::wkv6_reference(r, k, v, w, mix->time_faaaa);
    if (key_norm) y = mix->key_norm(y);
    const at::Tensor heads = y.view({2, 15, 2, 8});
    const at::Tensor mean = heads.mean(-1, true);
    const at::Tensor variance = (heads - mean).square().mean(-1, true);
    y = ((heads - mean) / (variance + 1e-5).sqrt()).view({2, 15, 16}) * mix->ln_x->weight +
        mix->ln_x->bias;
    y = at::matmul(y * g * g.sigmoid(), mix->output->weight.t());
    EXPECT_LE(deviation(mix->forward(x, 3, 5), y), 1e-11);
  }
}

TEST(SpatialMix6, RefusesHeadsThatDoNotDivideTheChannels) {
  EXPECT_THROW(SpatialMix6(SpatialMix6Options{.channels = 10, .heads = 3}), Error);
}

}  // namespace
}  // namespace vireo
