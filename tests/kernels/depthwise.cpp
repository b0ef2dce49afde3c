#include "kernels/depthwise/depthwise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>

#include "tests/support/deviation.h"

namespace vireo {
namespace {

using test::deviation;

struct Case {
  int64_t batch, channels, height, width, kernel, stride, padding;
};

struct Result {
  at::Tensor y, gx, gweight;
};

at::Tensor weight_of(const Case& c) {
  return at::randn({c.channels, 1, c.kernel, c.kernel});
}

at::Tensor input_of(const Case& c) {
  return at::randn({c.batch, c.channels, c.height, c.width})
      .contiguous(at::MemoryFormat::ChannelsLast);
}

template <class Operator>
Result run(const at::Tensor& x_in, const at::Tensor& weight_in, const Operator& op) {
  const at::Tensor x = x_in.detach().clone().requires_grad_();
  const at::Tensor weight = weight_in.detach().clone().requires_grad_();
  const at::Tensor y = op(x, weight);
  // A gradient that depends on the place, so that no two taps can be mistaken for each other, and
  // that every type can hold.
  const at::Tensor gy = at::cos(at::arange(y.numel(), at::kDouble) * 0.7)
                            .view(y.sizes())
                            .to(at::kBFloat16)
                            .to(y.scalar_type());
  y.backward(gy);
  return {y.detach(), x.grad(), weight.grad()};
}

at::Tensor by_libtorch(const Case& c, const at::Tensor& x, const at::Tensor& weight) {
  return at::conv2d(
      x, weight, {}, {c.stride, c.stride}, {c.padding, c.padding}, {1, 1}, c.channels);
}

Result ours(const Case& c, const at::Tensor& x, const at::Tensor& weight) {
  return run(x, weight, [&](const at::Tensor& a, const at::Tensor& b) {
    return depthwise_conv2d(a, b, c.stride, c.padding);
  });
}

TEST(Depthwise, EqualsLibTorchInDoublePrecision) {
  const std::vector<Case> cases = {
      {2, 32, 9, 11, 3, 1, 1},
      {3, 24, 16, 12, 5, 1, 2},
      {1, 5, 13, 8, 5, 2, 2},
      {2, 33, 10, 10, 9, 1, 4},
      {1, 16, 7, 7, 7, 2, 3},
      {1, 17, 3, 2, 9, 1, 4},
      {1, 1, 1, 1, 5, 1, 2},
      {4, 48, 8, 8, 5, 2, 2},
      {2, 40, 6, 21, 9, 2, 4},
      {1, 20, 12, 9, 5, 1, 0},
      {2, 64, 40, 5, 3, 2, 1},
      {1, 16, 6, 30, 3, 1, 2},
      {1, 16, 12, 24, 9, 1, 4},
      {1, 35, 9, 33, 7, 2, 3},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE("channels " + std::to_string(c.channels) + ", kernel " + std::to_string(c.kernel) +
                 ", stride " + std::to_string(c.stride));
    const at::Tensor x = input_of(c), weight = weight_of(c);
    const Result result = ours(c, x, weight);
    const Result reference = run(
        x.to(at::kDouble), weight.to(at::kDouble), [&](const at::Tensor& a, const at::Tensor& b) {
          return by_libtorch(c, a, b);
        });
    EXPECT_LT(deviation(result.y, reference.y), 2e-6);
    EXPECT_LT(deviation(result.gx, reference.gx), 2e-6);
    EXPECT_LT(deviation(result.gweight, reference.gweight), 5e-6);
  }
}

TEST(Depthwise, GivesTheSameBitsForAnyNumberOfThreads) {
  const Case c{3, 40, 21, 17, 5, 1, 2};
  const at::Tensor x = input_of(c), weight = weight_of(c);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Result one = ours(c, x, weight);
  at::set_num_threads(2);
  const Result two = ours(c, x, weight);
  at::set_num_threads(before);
  EXPECT_TRUE(one.gweight.equal(two.gweight));
}

TEST(Depthwise, TakesOtherTypesLayoutsAndKernels) {
  const Case even{1, 8, 9, 9, 4, 1, 1};
  const at::Tensor x = input_of(even), weight = weight_of(even);
  EXPECT_EQ(ours(even, x, weight).gweight.sizes(), weight.sizes());
  const Case c{2, 8, 9, 9, 5, 1, 2};
  const at::Tensor taps = weight_of(c), image = input_of(c);
  const Result nhwc = ours(c, image, taps);
  const Result nchw = ours(c, image.contiguous(), taps);
  EXPECT_LT(deviation(nchw.gweight, nhwc.gweight.to(at::kDouble)), 5e-6);
  const Result doubles = ours(c, image.to(at::kDouble), taps.to(at::kDouble));
  EXPECT_EQ(doubles.gweight.scalar_type(), at::kDouble);
}

TEST(Depthwise, AddsABiasAndRoundsBFloat16Once) {
  const at::NoGradGuard no_grad;
  for (const int64_t kernel : {3, 5, 7, 9})
    for (const int64_t stride : {1, 2})
      for (const int64_t channels : {5, 40}) {
        SCOPED_TRACE(::testing::Message() << kernel << " " << stride << " " << channels);
        const Case c{2, channels, 13, 19, kernel, stride, kernel / 2};
        const at::Tensor x = input_of(c), weight = weight_of(c), bias = at::randn({channels});
        const auto truth = [&](const at::Tensor& a, const at::Tensor& b) {
          return at::conv2d(a.to(at::kDouble),
                            b.to(at::kDouble),
                            bias.to(at::kDouble),
                            {stride, stride},
                            {c.padding, c.padding},
                            {1, 1},
                            channels);
        };
        const at::Tensor y = depthwise_conv2d(x, weight, stride, c.padding, bias);
        EXPECT_LT(deviation(y, truth(x, weight)), 2e-6);
        EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
        const at::Tensor half = x.to(at::kBFloat16), half_weight = weight.to(at::kBFloat16);
        const at::Tensor rounded = depthwise_conv2d(half, half_weight, stride, c.padding, bias);
        EXPECT_EQ(rounded.scalar_type(), at::kBFloat16);
        EXPECT_LT(deviation(rounded, truth(half, half_weight)), 4e-3);
      }
}

TEST(Depthwise, SumsBFloat16GradientsInSingle) {
  for (const int64_t kernel : {3, 5, 7, 9})
    for (const int64_t stride : {1, 2})
      for (const int64_t channels : {5, 40}) {
        SCOPED_TRACE(::testing::Message() << kernel << " " << stride << " " << channels);
        const Case c{2, channels, 13, 19, kernel, stride, kernel / 2};
        const at::Tensor x = input_of(c).to(at::kBFloat16);
        const at::Tensor weight = weight_of(c).to(at::kBFloat16);
        const Result result = ours(c, x, weight);
        const Result reference =
            run(x.to(at::kDouble),
                weight.to(at::kDouble),
                [&](const at::Tensor& a, const at::Tensor& b) { return by_libtorch(c, a, b); });
        EXPECT_EQ(result.gx.scalar_type(), at::kBFloat16);
        EXPECT_EQ(result.gweight.scalar_type(), at::kBFloat16);
        // Rounded once.
        EXPECT_LT(deviation(result.gx, reference.gx), 4e-3);
        EXPECT_LT(deviation(result.gweight, reference.gweight), 4e-3);
      }
}

TEST(Depthwise, CastsUnderAutocastAsLibTorchDoes) {
  const Case c{2, 40, 13, 19, 5, 1, 2};
  const at::Tensor x = input_of(c), weight = weight_of(c);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const Result result = ours(c, x, weight);
  const Result other = run(
      x, weight, [&](const at::Tensor& a, const at::Tensor& b) { return by_libtorch(c, a, b); });
  at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(at::kCPU, false);
  EXPECT_EQ(result.y.scalar_type(), at::kBFloat16);
  EXPECT_EQ(result.gx.scalar_type(), at::kFloat);
  EXPECT_EQ(result.gweight.scalar_type(), at::kFloat);
  EXPECT_EQ(other.y.scalar_type(), result.y.scalar_type());
  EXPECT_EQ(other.gx.scalar_type(), result.gx.scalar_type());
  EXPECT_EQ(other.gweight.scalar_type(), result.gweight.scalar_type());
  // LibTorch's own numbers are as far from the sums of what was cast as 2 % on some processors.
  const auto cast = [](const at::Tensor& from) { return from.to(at::kBFloat16).to(at::kDouble); };
  const Result exact = run(cast(x), cast(weight), [&](const at::Tensor& a, const at::Tensor& b) {
    return by_libtorch(c, a, b);
  });
  EXPECT_LT(deviation(result.y, exact.y), 8e-3);
  EXPECT_LT(deviation(result.gx, exact.gx), 8e-3);
  EXPECT_LT(deviation(result.gweight, exact.gweight), 8e-3);
}

}  // namespace
}  // namespace vireo
