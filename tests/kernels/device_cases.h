#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/bi_wkv/bi_wkv.h"
#include "kernels/norm/norm.h"
#include "kernels/shift/shift.h"
#include "kernels/wkv6/wkv6.h"
#include "tests/support/deviation.h"

// Operators with inputs, to compare a device's results with the CPU's.
namespace vireo::test {

using Tensors = std::vector<at::Tensor>;

struct DeviceCase {
  std::string name;
  std::function<Tensors(const Tensors&)> op;
  Tensors inputs;
  /// The type whose rounding all results may show, where it is not their own.
  at::ScalarType factors = at::kDouble;
  /// Results below this are sums that cancel, of which nothing but their terms' rounding is left.
  double least = 0;
};

struct Results {
  Tensors outputs, gradients;
};

/// The outputs, and the gradients of a fixed weighting of them if they have any.
inline Results results_of(const DeviceCase& one, at::Device device) {
  Tensors leaves;
  for (const at::Tensor& input : one.inputs)
    leaves.push_back(input.to(device).detach().requires_grad_());
  Results results;
  at::Tensor total = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
  for (const at::Tensor& output : one.op(leaves)) {
    const at::Tensor weights =
        at::arange(output.numel(), at::kDouble).mul(0.7).sin().view(output.sizes()).to(device);
    total = total + (output.to(at::kDouble) * weights).sum();
    results.outputs.push_back(output.detach().cpu());
  }
  if (!total.requires_grad()) return results;
  total.backward();
  for (const at::Tensor& leaf : leaves) results.gradients.push_back(leaf.grad().cpu());
  return results;
}

/// Rounding of a type, widened by how many terms go into a sum.
inline double bound_of(at::ScalarType type) {
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

/// The largest error, of the largest number.
inline double deviation_of(const DeviceCase& one, const at::Tensor& found, const at::Tensor& cpu) {
  const double largest = cpu.abs().max().to(at::kDouble).item<double>();
  return deviation(found, cpu) * (largest > 0 && largest < one.least ? largest / one.least : 1);
}

/// `again`: the device's results of another run, equal bit for bit.
inline void expect_as_on_the_cpu(const DeviceCase& one,
                                 const Results& cpu,
                                 const Results& device,
                                 const Results& again) {
  const auto compare = [&](const Tensors& a, const Tensors& b, const Tensors& c, const char* kind) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].scalar_type(), b[i].scalar_type());
      if (a[i].numel() == 0) {
        EXPECT_EQ(a[i].sizes(), b[i].sizes());
        continue;
      }
      EXPECT_LE(deviation_of(one, b[i], a[i]),
                std::max(bound_of(b[i].scalar_type()), bound_of(one.factors)))
          << one.name << ", " << kind << " " << i;
      EXPECT_TRUE(at::equal(b[i], c[i]))
          << one.name << ", " << kind << " " << i << " differs by run";
    }
  };
  compare(cpu.outputs, device.outputs, again.outputs, "output");
  compare(cpu.gradients, device.gradients, again.gradients, "gradient");
}

const at::ScalarType kDeviceTypes[] = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16};

inline std::string case_name(
    const char* op, at::ScalarType type, int64_t batch, int64_t tokens, int64_t channels) {
  return std::string(op) + " in " + c10::toString(type) + ", B=" + std::to_string(batch) +
         " T=" + std::to_string(tokens) + " C=" + std::to_string(channels);
}

inline DeviceCase bi_wkv_case(at::ScalarType type,
                              int64_t batch,
                              int64_t tokens,
                              int64_t channels) {
  return {case_name("bi_wkv", type, batch, tokens, channels),
          [](const Tensors& in) { return Tensors{bi_wkv(in[0], in[1], in[2], in[3])}; },
          {at::randn({channels}) * 5 / tokens,
           at::randn({channels}),
           at::randn({batch, tokens, channels}).to(type),
           at::randn({batch, tokens, channels}).to(type)},
          /*factors=*/at::kDouble,
          /*least=*/tokens == 1 ? 1.0 : 0.0};
}

/// Of channels that need a power of two per state.
inline DeviceCase strong_bi_wkv_case(int64_t tokens) {
  return {case_name("bi_wkv with strong decays", at::kFloat, 2, tokens, 40),
          [](const Tensors& in) { return Tensors{bi_wkv(in[0], in[1], in[2], in[3])}; },
          {at::rand({40}) * 3,
           at::randn({40}) * 20,
           at::randn({2, tokens, 40}) * 20,
           at::randn({2, tokens, 40})}};
}

inline DeviceCase wkv6_case(
    at::ScalarType type, bool causal, int64_t batch, int64_t tokens, int64_t heads, int64_t head) {
  const int64_t channels = heads * head;
  const auto values = [&] { return at::randn({batch, tokens, channels}).to(type); };
  return {case_name("wkv6", type, batch, tokens, channels) + " N=" + std::to_string(head) +
              (causal ? ", causal" : ""),
          [causal](const Tensors& in) {
            return Tensors{wkv6(in[0], in[1], in[2], in[3], in[4], causal)};
          },
          {values(),
           values(),
           values(),
           at::randn({batch, tokens, channels}) - 2,
           at::randn({heads, head})},
          // On tensor cores gw and gu too come from bfloat16 factors: one of them, not two as for
          // float16.
          type == at::kBFloat16 ? type : at::kDouble};
}

inline DeviceCase shift_case(
    at::ScalarType type, int64_t height, int64_t width, int64_t channels, const QShift& shift) {
  const int64_t tokens = height * width + shift.class_token;
  return {case_name("q_shift", type, 2, tokens, channels),
          [=](const Tensors& in) { return Tensors{q_shift(in[0], height, width, shift)}; },
          {at::randn({2, tokens, channels}).to(type)}};
}

inline DeviceCase shift_mix_case(at::ScalarType type,
                                 int64_t height,
                                 int64_t width,
                                 int64_t channels,
                                 const QShift& shift,
                                 int mixes) {
  const int64_t tokens = height * width + shift.class_token;
  Tensors inputs = {at::randn({2, tokens, channels}).to(type)};
  for (int i = 0; i < mixes; ++i) inputs.push_back(at::rand({channels}));
  return {case_name("q_shift_mix", type, 2, tokens, channels) + ", " + std::to_string(mixes),
          [=](const Tensors& in) {
            return q_shift_mix(in[0], at::TensorList(in).slice(1), height, width, shift);
          },
          inputs};
}

/// The norm, the gate, and both.
inline std::vector<DeviceCase> norm_cases(at::ScalarType type, int64_t tokens, int64_t channels) {
  const auto values = [&] { return at::randn({2, tokens, channels}).to(type); };
  const at::Tensor r = values(), y = values() + 3;
  const at::Tensor weight = at::randn({channels}), bias = at::randn({channels});
  const double least = channels == 1 ? 1 : 0;
  return {{case_name("channel_norm", type, 2, tokens, channels),
           [](const Tensors& in) { return Tensors{channel_norm(in[0], in[1], in[2], 1e-5)}; },
           {y, weight, bias},
           at::kDouble,
           least},
          {case_name("gate", type, 2, tokens, channels),
           [](const Tensors& in) { return Tensors{gate(in[0], in[1])}; },
           {r, y}},
          {case_name("gated_norm", type, 2, tokens, channels),
           [](const Tensors& in) { return Tensors{gated_norm(in[0], in[1], in[2], in[3], 1e-5)}; },
           {r, y, weight, bias},
           at::kDouble,
           least}};
}

inline DeviceCase map_norm_case(at::ScalarType type,
                                at::IntArrayRef shape,
                                at::MemoryFormat format) {
  return {case_name("channel_norm of maps", type, shape[0], shape[2] * shape[3], shape[1]),
          [](const Tensors& in) { return Tensors{channel_norm(in[0], in[1], in[2], 1e-5)}; },
          {(at::randn(shape) + 3).to(type).contiguous(format),
           at::randn({shape[1]}),
           at::randn({shape[1]})}};
}

}  // namespace vireo::test
