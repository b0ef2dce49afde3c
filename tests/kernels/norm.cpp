#include "kernels/norm/norm.h"

#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/support/deviation.h"
#include "tests/support/refusal.h"

namespace vireo {
namespace {

using test::deviation;
using test::message_of;
using ::testing::HasSubstr;

constexpr double kEps = 1e-5;
const auto kLast = at::MemoryFormat::ChannelsLast;

using Tensors = std::vector<at::Tensor>;
/// r (where there is a gate), x, and weight and bias (where there is a norm) -> out
using Operator = std::function<at::Tensor(const Tensors&)>;

const Operator kNorm = [](const Tensors& t) { return channel_norm(t[0], t[1], t[2], kEps); };
const Operator kGate = [](const Tensors& t) { return gate(t[0], t[1]); };
const Operator kGatedNorm = [](const Tensors& t) {
  return gated_norm(t[0], t[1], t[2], t[3], kEps);
};

/// By definition, in ATen operations.
at::Tensor norm_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool map = x.dim() == 4;
  const at::Tensor last = map ? x.permute({0, 2, 3, 1}) : x;
  const at::Tensor y = at::layer_norm(last, {last.size(-1)}, weight, bias, kEps);
  return map ? y.permute({0, 3, 1, 2}) : y;
}
const Operator kNormReference = [](const Tensors& t) { return norm_reference(t[0], t[1], t[2]); };
const Operator kGateReference = [](const Tensors& t) { return t[0].sigmoid() * t[1]; };
const Operator kGatedNormReference = [](const Tensors& t) {
  return t[0].sigmoid() * norm_reference(t[1], t[2], t[3]);
};

struct Kind {
  const char* name;
  bool gate, norm;
  Operator ours, reference;
};
std::vector<Kind> kinds() {
  return {{"norm", false, true, kNorm, kNormReference},
          {"gate", true, false, kGate, kGateReference},
          {"gated norm", true, true, kGatedNorm, kGatedNormReference}};
}

/// Inputs in float64, the normalised one with a mean far from zero.
Tensors inputs_of(const Kind& kind, at::IntArrayRef shape) {
  const int64_t channels = shape.size() == 4 ? shape[1] : shape.back();
  Tensors inputs;
  if (kind.gate) inputs.push_back(at::randn(shape, at::kDouble) * 3);
  inputs.push_back(at::randn(shape, at::kDouble) * 2 + 5);
  if (kind.norm) {
    inputs.push_back(at::randn({channels}, at::kDouble));
    inputs.push_back(at::randn({channels}, at::kDouble));
  }
  return inputs;
}

/// The inputs in another type; what is as long as channels stays a parameter of `parameters`.
Tensors converted(const Tensors& inputs, at::ScalarType type, at::ScalarType parameters) {
  Tensors results;
  for (const at::Tensor& x : inputs) results.push_back(x.to(x.dim() == 1 ? parameters : type));
  return results;
}

/// The output, then the gradient of every input.
Tensors run(const Operator& op, const Tensors& inputs) {
  Tensors leaves, results;
  for (const at::Tensor& x : inputs) leaves.push_back(x.detach().clone().requires_grad_());
  const at::Tensor out = op(leaves);
  const at::Tensor gout =
      at::cos(at::arange(out.numel(), at::kDouble) * 0.7).view(out.sizes()).to(out.scalar_type());
  out.backward(gout);
  results.push_back(out.detach());
  for (const at::Tensor& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

void expect_close(const Tensors& ours, const Tensors& truth, double tolerance) {
  ASSERT_EQ(ours.size(), truth.size());
  for (size_t i = 0; i < ours.size(); ++i)
    EXPECT_LE(deviation(ours[i], truth[i]), tolerance) << "result " << i;
}

std::vector<std::vector<int64_t>> token_shapes() {
  return {{1, 1, 6}, {2, 5, 7}, {1, 3, 16}, {3, 50, 33}, {2, 130, 64}, {1, 9, 200}};
}

TEST(Norm, EqualsItsDefinitionOnTokensWithGradients) {
  for (const Kind& kind : kinds())
    for (const auto& shape : token_shapes()) {
      SCOPED_TRACE(::testing::Message() << kind.name << " " << at::IntArrayRef(shape));
      const Tensors inputs = inputs_of(kind, shape);
      const Tensors truth = run(kind.reference, inputs);
      expect_close(run(kind.ours, inputs), truth, 1e-11);
      expect_close(run(kind.ours, converted(inputs, at::kFloat, at::kFloat)), truth, 1e-4);
    }
}

TEST(Norm, EqualsItsDefinitionOnMapsOfEitherLayout) {
  const Kind kind = kinds()[0];
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {1, 6, 1, 1}, {2, 7, 3, 5}, {1, 33, 8, 8}, {3, 16, 9, 29}, {2, 40, 16, 16}})
    for (const bool last : {false, true}) {
      SCOPED_TRACE(::testing::Message() << at::IntArrayRef(shape) << " last: " << last);
      const auto format = last ? kLast : at::MemoryFormat::Contiguous;
      Tensors inputs = inputs_of(kind, shape);
      inputs[0] = inputs[0].contiguous(format);
      const Tensors truth = run(kind.reference, inputs);
      const Tensors ours = run(kind.ours, inputs);
      expect_close(ours, truth, 1e-11);
      EXPECT_TRUE(ours[0].is_contiguous(format));
      expect_close(run(kind.ours, converted(inputs, at::kFloat, at::kFloat)), truth, 1e-4);
    }
}

TEST(Norm, GradientsAgreeWithDifferencesOfTheOutput) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const Tensors inputs = inputs_of(kind, {2, 3, 5});
    const Tensors ours = run(kind.ours, inputs);
    const at::Tensor gout =
        at::cos(at::arange(ours[0].numel(), at::kDouble) * 0.7).view(ours[0].sizes());
    const double h = 1e-6;
    for (size_t i = 0; i < inputs.size(); ++i) {
      at::Tensor differences = at::empty_like(inputs[i]);
      for (int64_t j = 0; j < inputs[i].numel(); ++j) {
        const auto loss = [&](double step) {
          Tensors moved = inputs;
          moved[i] = inputs[i].clone();
          moved[i].view(-1)[j] += step;
          return (kind.ours(moved) * gout).sum().item<double>();
        };
        differences.view(-1)[j] = (loss(h) - loss(-h)) / (2 * h);
      }
      EXPECT_LE(deviation(ours[i + 1], differences), 1e-7) << "input " << i;
    }
  }
}

TEST(Norm, ReadsHalfPrecisionAndSumsInSingle) {
  for (const Kind& kind : kinds())
    for (const at::ScalarType type : {at::kBFloat16, at::kHalf})
      for (const auto& shape : {std::vector<int64_t>{2, 70, 48}, std::vector<int64_t>{1, 9, 5}}) {
        SCOPED_TRACE(::testing::Message() << kind.name << " " << type);
        const Tensors inputs = converted(inputs_of(kind, shape), type, at::kFloat);
        const Tensors ours = run(kind.ours, inputs);
        Tensors exact;
        for (const at::Tensor& x : inputs) exact.push_back(x.to(at::kDouble));
        at::Tensor out = kind.reference(exact);
        EXPECT_EQ(ours[0].scalar_type(), type);
        // Rounded once.
        EXPECT_LE(deviation(ours[0], out), type == at::kBFloat16 ? 4e-3 : 5e-4);
        for (size_t i = 1; i < ours.size(); ++i)
          EXPECT_EQ(ours[i].scalar_type(), inputs[i - 1].scalar_type());
      }
}

TEST(Norm, StaysExactFarFromZero) {
  // The mean is a thousand deviations away: squares minus the squared mean would lose everything.
  const at::Tensor x = at::randn({1, 40, 96}, at::kDouble) + 1000;
  const at::Tensor weight = at::ones({96}, at::kDouble), bias = at::zeros({96}, at::kDouble);
  const at::Tensor single = x.to(at::kFloat);
  const at::Tensor truth = norm_reference(single.to(at::kDouble), weight, bias);
  const at::Tensor ours = channel_norm(single, weight, bias, kEps);
  EXPECT_LE(deviation(ours, truth), 2e-4);  // float32 holds x itself to 6e-5
}

TEST(Gate, OpensAndShutsForAnyReceptance) {
  const at::Tensor r = at::tensor({-1e30, -200.0, -88.0, -3.0, 0.0, 3.0, 88.0, 200.0, 1e30})
                           .to(at::kFloat)
                           .view({1, 1, 9})
                           .requires_grad_();
  const at::Tensor y = at::ones({1, 1, 9}).requires_grad_();
  const at::Tensor out = gate(r, y);
  out.sum().backward();
  EXPECT_LE(deviation(out, r.detach().to(at::kDouble).sigmoid()), 1e-6);
  EXPECT_TRUE(r.grad().isfinite().all().item<bool>());
  EXPECT_LE(deviation(y.grad(), out), 1e-7);
}

TEST(Norm, GivesTheSameBitsForAnyNumberOfThreads) {
  const int before = at::get_num_threads();
  std::vector<std::pair<Operator, Tensors>> problems;
  for (const Kind& kind : kinds())
    problems.emplace_back(kind.ours,
                          converted(inputs_of(kind, {3, 221, 50}), at::kFloat, at::kFloat));
  problems.emplace_back(kNorm,
                        converted(inputs_of(kinds()[0], {3, 20, 23, 37}), at::kFloat, at::kFloat));
  for (const auto& [op, inputs] : problems) {
    at::set_num_threads(1);
    const Tensors first = run(op, inputs);
    for (const int threads : {2, 5}) {
      at::set_num_threads(threads);
      const Tensors again = run(op, inputs);
      for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(again[i], first[i]));
    }
  }
  at::set_num_threads(before);
}

TEST(Norm, AcceptsAnyStridesTypesAndEmptyBatches) {
  const Tensors inputs = converted(inputs_of(kinds()[2], {2, 12, 20}), at::kFloat, at::kFloat);
  const Tensors plain = run(kGatedNorm, inputs);
  const Tensors other = run(
      [](const Tensors& t) {
        const auto turned = [](const at::Tensor& x) {
          return x.transpose(1, 2).contiguous().transpose(1, 2);
        };
        return kGatedNorm({turned(t[0]), turned(t[1]), t[2], t[3]});
      },
      inputs);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], other[i]));

  const at::Tensor r = at::randn({1, 3, 4}).to(at::kBFloat16), y = at::randn({1, 3, 4});
  EXPECT_EQ(gate(r, y).scalar_type(), at::kFloat);
  const at::Tensor weight = at::ones({4}).to(at::kHalf).requires_grad_(), bias = at::zeros({4});
  channel_norm(y, weight, bias, kEps).sum().backward();
  EXPECT_EQ(weight.grad().scalar_type(), at::kHalf);

  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{0, 3, 4}, std::vector<int64_t>{0, 4, 3, 3}}) {
    const at::Tensor scale = at::ones({4}).requires_grad_();
    const at::Tensor out = channel_norm(at::zeros(shape), scale, bias, kEps);
    EXPECT_EQ(out.sizes(), at::IntArrayRef(shape));
    out.sum().backward();
    EXPECT_TRUE(at::equal(scale.grad(), at::zeros({4})));
  }
}

TEST(Norm, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::zeros({2, 3, 4}), p = at::zeros({4});
  EXPECT_THAT(message_of([&] {
                channel_norm(at::zeros({3, 4}), p, p, kEps);
              }),
              HasSubstr("x must be [B,T,C] or [B,C,H,W], found [3, 4]"));
  EXPECT_THAT(message_of([&] { channel_norm(x.to(at::kInt), p, p, kEps); }),
              HasSubstr("x must be float32, float64, bfloat16 or float16, found Int"));
  EXPECT_THAT(message_of([&] { channel_norm(x, at::zeros({5}), p, kEps); }),
              HasSubstr("weight must be [4], one per channel, found [5]"));
  EXPECT_THAT(message_of([&] {
                channel_norm(at::zeros({2, 4, 1, 1}), p, at::zeros({2}), kEps);
              }),
              HasSubstr("bias must be [4], one per channel, found [2]"));
  EXPECT_THAT(message_of([&] {
                gate(at::zeros({2, 3, 5}), x);
              }),
              HasSubstr("r must have y's shape [2, 3, 4], found [2, 3, 5]"));
  EXPECT_THAT(message_of([&] { gated_norm(x.unsqueeze(0), x.unsqueeze(0), p, p, kEps); }),
              HasSubstr("y must be [B,T,C], found [1, 2, 3, 4]"));
}

TEST(Norm, RefusesToBeDifferentiatedTwice) {
  const Kind kind = kinds()[2];
  Tensors leaves = inputs_of(kind, {1, 3, 4});
  for (at::Tensor& leaf : leaves) leaf.requires_grad_();
  const at::Tensor out = kind.ours(leaves).square().sum();
  EXPECT_THAT(message_of([&] {
                torch::autograd::grad({out}, {leaves[1]}, {}, std::nullopt, /*create_graph=*/true);
              }),
              HasSubstr("gate: differentiable once"));
}

}  // namespace
}  // namespace vireo
