// The operators on a GPU against the same operators on the CPU, which the other tests hold to their
// definitions. Skipped where there is no GPU.
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/bi_wkv/bi_wkv.h"
#include "kernels/cuda_loader.h"
#include "kernels/norm/norm.h"
#include "kernels/shift/shift.h"
#include "kernels/wkv6/wkv6.h"
#include "tests/support/deviation.h"
#include "tests/support/test_data.h"

namespace vireo {
namespace {

using test::deviation;
using Tensors = std::vector<at::Tensor>;
using Operator = std::function<Tensors(const Tensors&)>;

#define REQUIRE_GPU() \
  if (!load_cuda_kernels() || !at::hasCUDA()) VIREO_SKIP("no NVIDIA GPU with its driver here")

struct Result {
  Tensors outputs, gradients;
};

/// The outputs for `inputs`, and the gradients of a fixed weighting of them.
Result run(const Operator& op, const Tensors& inputs, at::Device device) {
  Tensors leaves;
  for (const at::Tensor& input : inputs)
    leaves.push_back(input.to(device).detach().requires_grad_());
  Result result;
  at::Tensor total = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
  for (const at::Tensor& output : op(leaves)) {
    const at::Tensor weights =
        at::arange(output.numel(), at::kDouble).mul(0.7).sin().view(output.sizes()).to(device);
    total = total + (output.to(at::kDouble) * weights).sum();
    result.outputs.push_back(output.detach().cpu());
  }
  total.backward();
  for (const at::Tensor& leaf : leaves) result.gradients.push_back(leaf.grad().cpu());
  return result;
}

/// Rounding of a type, widened by how many terms go into a sum.
double bound_of(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return 1e-11;
    case at::kFloat:
      return 2e-5;
    case at::kHalf:
      return 2e-3;
    default:
      return 1.6e-2;
  }
}

/// `factors`: the type whose rounding all results may show, where it is not their own.
void expect_as_on_the_cpu(const Operator& op,
                          const Tensors& inputs,
                          const std::string& what,
                          at::ScalarType factors = at::kDouble) {
  const Result cpu = run(op, inputs, at::kCPU), gpu = run(op, inputs, at::kCUDA),
               again = run(op, inputs, at::kCUDA);
  const auto compare = [&](const Tensors& a, const Tensors& b, const Tensors& c, const char* kind) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].scalar_type(), b[i].scalar_type());
      EXPECT_LE(deviation(b[i], a[i]), std::max(bound_of(b[i].scalar_type()), bound_of(factors)))
          << what << ", " << kind << " " << i;
      EXPECT_TRUE(at::equal(b[i], c[i])) << what << ", " << kind << " " << i << " differs by run";
    }
  };
  compare(cpu.outputs, gpu.outputs, again.outputs, "output");
  compare(cpu.gradients, gpu.gradients, again.gradients, "gradient");
}

const at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16};

std::string named(at::ScalarType type, int64_t batch, int64_t tokens, int64_t channels) {
  return std::string(c10::toString(type)) + " B=" + std::to_string(batch) +
         " T=" + std::to_string(tokens) + " C=" + std::to_string(channels);
}

// Row lengths on either side of one block, one CTA, two to sixteen CTAs of a cluster, and beyond.
TEST(CudaKernels, ComputeBiWkvForRowsOfAnyLength) {
  REQUIRE_GPU();
  at::manual_seed(1);
  for (const at::ScalarType type : kTypes)
    for (const int64_t tokens : {1, 16, 17, 196, 256, 257, 512, 513, 1000, 2049, 4096, 4097, 9001})
      for (const int64_t channels : {1, 33, 64}) {
        const int64_t batch = tokens > 1000 ? 1 : 3;
        const auto floats = [&](at::IntArrayRef sizes) { return at::randn(sizes); };
        expect_as_on_the_cpu(
            [](const Tensors& in) { return Tensors{bi_wkv(in[0], in[1], in[2], in[3])}; },
            {floats({channels}) * 5 / tokens,
             floats({channels}),
             floats({batch, tokens, channels}).to(type),
             floats({batch, tokens, channels}).to(type)},
            named(type, batch, tokens, channels));
      }
}

TEST(CudaKernels, ComputeBiWkvWithStrongDecays) {
  REQUIRE_GPU();
  at::manual_seed(2);
  for (const int64_t tokens : {20, 300, 5000})
    expect_as_on_the_cpu(
        [](const Tensors& in) { return Tensors{bi_wkv(in[0], in[1], in[2], in[3])}; },
        {at::rand({40}) * 3,
         at::randn({40}) * 20,
         at::randn({2, tokens, 40}) * 20,
         at::randn({2, tokens, 40})},
        named(at::kFloat, 2, tokens, 40));
}

TEST(CudaKernels, ComputeWkv6ForRowsOfAnyLength) {
  REQUIRE_GPU();
  at::manual_seed(3);
  for (const at::ScalarType type : kTypes)
    for (const bool causal : {false, true})
      for (const int64_t tokens : {1, 16, 20, 196, 1000, 3001})
        for (const int64_t head : {16, 48, 64, 128}) {
          const int64_t batch = 2, channels = 2 * head;
          const auto values = [&] { return at::randn({batch, tokens, channels}).to(type); };
          expect_as_on_the_cpu(
              [causal](const Tensors& in) {
                return Tensors{wkv6(in[0], in[1], in[2], in[3], in[4], causal)};
              },
              {values(),
               values(),
               values(),
               at::randn({batch, tokens, channels}) - 2,
               at::randn({2, head})},
              named(type, batch, tokens, channels) + (causal ? " causal" : ""),
              // On tensor cores gw and gu too come from bfloat16 factors: one of them, not two as
              // for float16.
              type == at::kBFloat16 ? type : at::kDouble);
        }
}

TEST(CudaKernels, ShiftAndMix) {
  REQUIRE_GPU();
  at::manual_seed(4);
  for (const at::ScalarType type : kTypes)
    for (const auto& [height, width] : {std::pair<int64_t, int64_t>{1, 1}, {7, 5}, {32, 33}})
      for (const QShift& shift : {QShift{}, QShift{2, 0.2, 0, false}, QShift{1, 0.25, 16, true}}) {
        const int64_t tokens = height * width + shift.class_token;
        const std::string what = named(type, 2, tokens, 48);
        expect_as_on_the_cpu(
            [&](const Tensors& in) { return Tensors{q_shift(in[0], height, width, shift)}; },
            {at::randn({2, tokens, 48}).to(type)},
            what);
        for (const size_t mixes : {size_t{1}, size_t{3}, size_t{5}}) {
          Tensors inputs = {at::randn({2, tokens, 48}).to(type)};
          for (size_t i = 0; i < mixes; ++i) inputs.push_back(at::rand({48}));
          expect_as_on_the_cpu(
              [&](const Tensors& in) {
                return q_shift_mix(in[0], at::TensorList(in).slice(1), height, width, shift);
              },
              inputs,
              what);
        }
      }
}

TEST(CudaKernels, NormaliseAndGateTokens) {
  REQUIRE_GPU();
  at::manual_seed(5);
  for (const at::ScalarType type : kTypes)
    for (const auto& [tokens, channels] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {70, 33}, {196, 192}, {50, 3000}, {9, 9000}}) {
      const auto values = [&] { return at::randn({2, tokens, channels}).to(type); };
      const at::Tensor r = values(), y = values() + 3;
      const at::Tensor weight = at::randn({channels}), bias = at::randn({channels});
      const std::string what = named(type, 2, tokens, channels);
      expect_as_on_the_cpu(
          [](const Tensors& in) { return Tensors{channel_norm(in[0], in[1], in[2], 1e-5)}; },
          {y, weight, bias},
          what + " norm");
      expect_as_on_the_cpu(
          [](const Tensors& in) { return Tensors{gate(in[0], in[1])}; }, {r, y}, what + " gate");
      expect_as_on_the_cpu(
          [](const Tensors& in) { return Tensors{gated_norm(in[0], in[1], in[2], in[3], 1e-5)}; },
          {r, y, weight, bias},
          what + " gated norm");
    }
}

TEST(CudaKernels, NormaliseMapsOfEitherLayout) {
  REQUIRE_GPU();
  at::manual_seed(6);
  for (const at::ScalarType type : kTypes)
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast})
      for (const auto& shape : std::vector<std::vector<int64_t>>{
               {1, 6, 1, 1}, {2, 7, 3, 5}, {3, 96, 28, 28}, {1, 40, 33, 31}})
        expect_as_on_the_cpu(
            [](const Tensors& in) { return Tensors{channel_norm(in[0], in[1], in[2], 1e-5)}; },
            {(at::randn(shape) + 3).to(type).contiguous(format),
             at::randn({shape[1]}),
             at::randn({shape[1]})},
            named(type, shape[0], shape[2] * shape[3], shape[1]) + " map");
}

}  // namespace
}  // namespace vireo
