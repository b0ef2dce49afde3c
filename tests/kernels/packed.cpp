#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/packed/packed_local_block.h"
#include "tests/support/deviation.h"

namespace vireo {
namespace {

using test::deviation;

at::Tensor finished(const at::Tensor& x, Finish finish) {
  switch (finish) {
    case Finish::kNone:
      return x;
    case Finish::kRelu:
      return at::relu(x);
    case Finish::kReluSquared:
      return at::relu(x).square();
    case Finish::kSilu:
      return at::silu(x);
    case Finish::kSigmoid:
      return at::sigmoid(x);
  }
  return x;
}

/// Numbers that bfloat16 holds exactly, so that products lose nothing but the sums' last digits.
at::Tensor short_numbers(at::IntArrayRef shape) {
  return at::randn(shape).to(at::kBFloat16).to(at::kFloat);
}

constexpr Finish kFinishes[] = {
    Finish::kNone, Finish::kRelu, Finish::kReluSquared, Finish::kSilu, Finish::kSigmoid};

TEST(PackedLinear, EqualsTheProductInDoublePrecision) {
  for (const auto& [rows, inner, outer] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {5, 3, 24}, {37, 24, 96}, {196, 192, 17}, {200, 65, 120}, {12, 288, 288}})
    for (const Finish finish : kFinishes) {
      const at::Tensor weight = at::randn({outer, inner}) / std::sqrt(inner);
      const at::Tensor bias = at::randn({outer}), x = at::randn({rows, inner});
      const at::Tensor gate = at::randn({rows, outer}), added = at::randn({rows, outer});
      const PackedLinear layer(weight, bias, Arithmetic::kFloat32, finish);
      const at::Tensor expected = finished(
          at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble)), finish);
      EXPECT_LE(deviation(layer(x), expected), 2e-6) << rows << " " << inner << " " << outer;
      EXPECT_LE(deviation(layer(x, gate, added), expected * gate + added), 2e-6);
    }
}

TEST(PackedLinear, MultipliesBfloat16WithSumsInFloat) {
  for (const int64_t inner : {1, 3, 24, 97, 288})
    for (const int64_t outer : {1, 9, 16, 33, 96, 200}) {
      const at::Tensor weight = short_numbers({outer, inner}), x = short_numbers({2, 41, inner});
      const at::Tensor bias = at::randn({outer});
      const PackedLinear layer(weight, bias, Arithmetic::kBfloat16);
      const at::Tensor expected =
          at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
      const at::Tensor y = layer(x.to(at::kBFloat16));
      EXPECT_EQ(y.scalar_type(), at::kBFloat16);
      EXPECT_LE(deviation(y, expected), 4e-3);
      EXPECT_LE(deviation(layer(x.to(at::kBFloat16), {}, {}, /*as_float32=*/true), expected), 2e-6);
    }
}

TEST(PackedLinear, KeepsEightBitsOfEveryWeight) {
  for (const int64_t inner : {1, 3, 24, 97, 288})
    for (const int64_t outer : {1, 9, 33, 200}) {
      const at::Tensor weight =
          at::randn({outer, inner}) * at::rand({outer, 1}).mul(8).exp();  // scales far apart
      const at::Tensor x = short_numbers({53, inner});
      const at::Tensor scale = weight.abs().amax(1, true) / 127;
      const at::Tensor rounded = (weight / scale).round() * scale;
      const PackedLinear layer(weight, {}, Arithmetic::kInt8);
      const at::Tensor y = layer(x.to(at::kBFloat16), {}, {}, /*as_float32=*/true);
      const at::Tensor expected = at::linear(x.to(at::kDouble), rounded.to(at::kDouble));
      for (int64_t i = 0; i < outer; ++i)
        EXPECT_LE(deviation(y.select(1, i), expected.select(1, i)), 1e-5);
    }
}

TEST(PackedLinear, ReadsPartsOfWiderMapsWhereTheyLie) {
  const at::Tensor map = at::randn({2, 5, 7, 30}), weight = at::randn({12, 10});
  const PackedLinear layer(weight, {}, Arithmetic::kFloat32);
  const at::Tensor part = map.narrow(3, 10, 10);
  EXPECT_TRUE(at::equal(layer(part), layer(part.contiguous())));
  const at::Tensor turned = at::randn({2, 5, 10, 7}).transpose(2, 3);
  EXPECT_TRUE(at::equal(layer(turned), layer(turned.contiguous())));
}

TEST(PackedLinear, PassesOnWhatIsNotANumber) {
  at::Tensor x = at::zeros({3, 4});
  x[1][2] = std::numeric_limits<float>::quiet_NaN();
  for (const Finish finish : kFinishes) {
    const at::Tensor y = PackedLinear(at::ones({2, 4}), {}, Arithmetic::kFloat32, finish)(x);
    EXPECT_TRUE(y[1].isnan().all().item<bool>());
    EXPECT_TRUE(y[0].isfinite().all().item<bool>());
  }
}

TEST(PackedLinear, RefusesWhatDoesNotFit) {
  const PackedLinear layer(at::ones({2, 4}), {}, Arithmetic::kFloat32);
  EXPECT_ANY_THROW(layer(at::ones({3, 5})));
  EXPECT_ANY_THROW(layer(at::ones({3, 4}).to(at::kBFloat16)));
  EXPECT_ANY_THROW(layer(at::ones({3, 4}), {}, at::ones({3, 3})));
  EXPECT_ANY_THROW(PackedLinear(at::ones({2, 4}), at::ones({3}), Arithmetic::kFloat32));
}

struct BlockCase {
  int64_t batch, height, width, in, hidden, out, kernel, stride;  // in, out 0: no such part
  bool skip;
};

void compare(const BlockCase& c) {
  const at::Tensor expand = at::randn({c.hidden, std::max<int64_t>(c.in, 1)});
  const at::Tensor expand_bias = at::randn({c.hidden});
  const at::Tensor weight = at::randn({c.hidden, 1, c.kernel, c.kernel}) / c.kernel;
  const at::Tensor bias = at::randn({c.hidden});
  const at::Tensor project = at::randn({std::max<int64_t>(c.out, 1), c.hidden}) / c.hidden;
  const at::Tensor x = at::randn({c.batch, c.height, c.width, c.in > 0 ? c.in : c.hidden});
  PackedLocalBlock::Parts parts;
  if (c.in > 0) parts.expand = {expand, expand_bias, Arithmetic::kFloat32, Finish::kRelu};
  if (c.out > 0) parts.project = {project, {}, Arithmetic::kFloat32};
  parts.weight = weight;
  parts.bias = bias;
  parts.stride = c.stride;
  parts.skip = c.skip;
  const PackedLocalBlock block(parts, Arithmetic::kFloat32);

  const auto precise = [](const at::Tensor& a) { return a.to(at::kDouble); };
  at::Tensor h = precise(x);
  if (c.in > 0) h = at::relu(at::linear(h, precise(expand), precise(expand_bias)));
  h = h.permute({0, 3, 1, 2});
  const int64_t pad = (c.kernel - c.stride + 1) / 2;
  at::Tensor z = at::silu(at::conv2d(
      h, precise(weight), precise(bias), {c.stride, c.stride}, {pad, pad}, {1, 1}, c.hidden));
  if (c.skip) z = z + h;
  z = z.permute({0, 2, 3, 1});
  const at::Tensor y = c.out > 0 ? at::linear(z, precise(project)) : z;
  EXPECT_LE(deviation(block(x), y), 3e-6) << c.kernel << " " << c.stride << " " << c.width;
  if (c.out == 0) return;
  const at::Tensor added = at::randn(y.sizes());
  EXPECT_LE(deviation(block(x, added), y + precise(added)), 3e-6);
}

TEST(PackedLocalBlock, EqualsItsPartsInDoublePrecision) {
  for (const int64_t kernel : {1, 3, 5, 7, 9, 11}) {
    compare({2, 19, 23, 12, 40, 7, kernel, 1, true});
    compare({1, 8, 33, 3, 24, 16, kernel, 1, false});
    compare({2, 20, 18, 5, 33, 20, kernel, 2, false});
    compare({1, 9, 7, 0, 20, 6, kernel, 1, true});
    compare({3, 5, 6, 3, 3, 0, kernel, 1, false});
    compare({1, 1, 1, 4, 8, 4, kernel, 1, true});
    compare({2, 3, 2, 4, 8, 4, kernel, 2, false});
  }
}

TEST(PackedLocalBlock, DoesNotDependOnTheNumberOfThreads) {
  PackedLocalBlock::Parts parts;
  parts.expand = {at::randn({48, 12}), {}, Arithmetic::kInt8, Finish::kRelu};
  parts.weight = at::randn({48, 1, 5, 5});
  parts.bias = at::randn({48});
  parts.project = {at::randn({12, 48}), {}, Arithmetic::kInt8};
  parts.skip = true;
  const PackedLocalBlock block(parts, Arithmetic::kInt8);
  const at::Tensor x = at::randn({2, 21, 30, 12}).to(at::kBFloat16);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = block(x);
  for (const int count : {2, 3, 5}) {
    at::set_num_threads(count);
    EXPECT_TRUE(at::equal(block(x), one));
  }
  at::set_num_threads(threads);
}

TEST(PackedLocalBlock, RefusesWhatDoesNotFit) {
  PackedLocalBlock::Parts parts;
  parts.weight = at::ones({8, 1, 4, 4});
  parts.bias = at::ones({8});
  EXPECT_ANY_THROW(PackedLocalBlock(parts, Arithmetic::kFloat32));
  parts.weight = at::ones({8, 1, 3, 3});
  parts.skip = true;
  parts.stride = 2;
  EXPECT_ANY_THROW(PackedLocalBlock(parts, Arithmetic::kFloat32));
  parts.stride = 1;
  const PackedLocalBlock block(parts, Arithmetic::kFloat32);
  EXPECT_ANY_THROW(block(at::ones({1, 4, 4, 7})));
}

}  // namespace
}  // namespace vireo
