#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/packed/packed_local_block.h"
#include "kernels/packed/packed_mix.h"
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

at::Tensor precise(const at::Tensor& x) {
  return x.to(at::kDouble);
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

PackedNorm norm_of(int64_t channels) {
  return {at::randn({channels}), at::randn({channels}), 1e-5};
}

at::Tensor normed(const at::Tensor& x, const PackedNorm& norm) {
  if (!norm.defined()) return x;
  return at::layer_norm(x, {x.size(-1)}, precise(norm.weight), precise(norm.bias), norm.eps);
}

struct MixCase {
  int64_t batch, height, width, channels;
};
constexpr MixCase kMixCases[] = {{1, 1, 1, 5}, {2, 9, 31, 20}, {3, 14, 14, 48}, {1, 4, 2, 17}};

/// The mixes of tokens with their shifted neighbours, in double precision.
std::vector<at::Tensor> mixed(const at::Tensor& x, const at::Tensor& mixes, const MixCase& c) {
  std::vector<at::Tensor> rows;
  for (const at::Tensor& mix : mixes.unbind(0)) rows.push_back(precise(mix));
  return q_shift_mix(precise(x), rows, c.height, c.width);
}

TEST(PackedTokenMix, EqualsItsPartsInDoublePrecision) {
  for (const MixCase& c : kMixCases) {
    const at::Tensor x = at::randn({c.batch, c.height * c.width, c.channels});
    const at::Tensor mixes = at::rand({3, c.channels});
    std::vector<at::Tensor> weights;
    std::vector<PackedLinear> layers;
    for (const int64_t outer : {c.channels, int64_t{7}, int64_t{33}}) {
      weights.push_back(at::randn({outer, c.channels}));
      layers.emplace_back(weights.back(), at::Tensor(), Arithmetic::kFloat32);
    }
    const auto found = packed_token_mix(
        x, mixes, {&layers[0], &layers[1], &layers[2]}, c.height, c.width, QShift{});
    const auto shifted = mixed(x, mixes, c);
    for (size_t m = 0; m < 3; ++m)
      EXPECT_LE(deviation(found[m], at::linear(shifted[m], precise(weights[m]))), 2e-6);
  }
}

TEST(PackedReadout, EqualsItsPartsInDoublePrecision) {
  for (const MixCase& c : kMixCases)
    for (const bool norms : {false, true}) {
      const std::vector<int64_t> shape = {c.batch, c.height * c.width, c.channels};
      const at::Tensor y = at::randn(shape), gate = at::randn(shape), added = at::randn(shape);
      const at::Tensor weight = at::randn({c.channels, c.channels});
      const PackedLinear layer(weight, {}, Arithmetic::kFloat32);
      const PackedNorm norm = norms ? norm_of(c.channels) : PackedNorm{};
      const PackedNorm last = norms ? norm_of(c.channels) : PackedNorm{};
      const at::Tensor expected =
          normed(at::linear(normed(precise(y), norm) * gate, precise(weight)), last);
      EXPECT_LE(deviation(packed_readout(y, norm, gate, layer, last, {}), expected), 5e-6);
      EXPECT_LE(deviation(packed_readout(y, norm, gate, layer, last, added), expected + added),
                5e-6);
    }
}

TEST(PackedChannelMix, EqualsItsPartsInDoublePrecision) {
  for (const MixCase& c : kMixCases)
    for (const bool norms : {false, true}) {
      const at::Tensor x = at::randn({c.batch, c.height * c.width, c.channels});
      const at::Tensor added = at::randn(x.sizes());
      const int64_t wide = 3 * c.channels;
      const at::Tensor key = at::randn({wide, c.channels}) / c.channels;
      const at::Tensor receptance = at::randn({c.channels, c.channels}) / c.channels;
      const at::Tensor value = at::randn({c.channels, wide}) / wide;
      PackedChannelMix mix;
      mix.mixes = at::rand({2, c.channels});
      mix.key = {key, {}, Arithmetic::kFloat32, Finish::kReluSquared};
      mix.receptance = {receptance, {}, Arithmetic::kFloat32, Finish::kSigmoid};
      mix.value = {value, {}, Arithmetic::kFloat32};
      if (norms) {
        mix.norm = norm_of(wide);
        mix.last = norm_of(c.channels);
      }
      const auto shifted = mixed(x, mix.mixes, c);
      const at::Tensor hidden =
          normed(at::relu(at::linear(shifted[0], precise(key))).square(), mix.norm);
      const at::Tensor expected =
          normed(at::linear(hidden, precise(value)) *
                     at::sigmoid(at::linear(shifted[1], precise(receptance))),
                 mix.last);
      EXPECT_LE(deviation(mix(x, c.height, c.width, added), expected + added), 5e-6);
      EXPECT_LE(deviation(mix(x, c.height, c.width, {}), expected), 5e-6);
    }
}

TEST(PackedMix, DoesNotDependOnTheNumberOfThreads) {
  const int64_t channels = 40, side = 21;
  PackedChannelMix mix;
  mix.mixes = at::rand({2, channels});
  mix.key = {at::randn({80, channels}), {}, Arithmetic::kInt8, Finish::kReluSquared};
  mix.receptance = {at::randn({channels, channels}), {}, Arithmetic::kInt8, Finish::kSigmoid};
  mix.value = {at::randn({channels, 80}), {}, Arithmetic::kInt8};
  mix.norm = norm_of(80);
  const at::Tensor x = at::randn({3, side * side, channels}).to(at::kBFloat16);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = mix(x, side, side, x);
  for (const int count : {2, 3, 5}) {
    at::set_num_threads(count);
    EXPECT_TRUE(at::equal(mix(x, side, side, x), one));
  }
  at::set_num_threads(threads);
}

TEST(PackedMix, RefusesWhatDoesNotFit) {
  const PackedLinear layer(at::ones({4, 4}), {}, Arithmetic::kFloat32);
  const at::Tensor x = at::ones({1, 6, 4}), mixes = at::ones({1, 4});
  EXPECT_ANY_THROW(packed_token_mix(x, mixes, {&layer}, 2, 2, QShift{}));
  EXPECT_ANY_THROW(packed_token_mix(x, mixes, {&layer, &layer}, 2, 3, QShift{}));
  EXPECT_ANY_THROW(packed_readout(x, {}, at::ones({1, 5, 4}), layer, {}, {}));
  EXPECT_ANY_THROW(packed_readout(x, {}, x, layer, {}, at::ones({1, 6, 5})));
}

}  // namespace
}  // namespace vireo
