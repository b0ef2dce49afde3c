#include "kernels/device_check.h"

#include <functional>
#include <limits>
#include <sstream>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include "kernels/bi_wkv/bi_wkv.h"
#include "kernels/norm/norm.h"
#include "kernels/shift/shift.h"
#include "kernels/wkv6/wkv6.h"

namespace vireo {
namespace {

using Tensors = std::vector<at::Tensor>;
using Operator = std::function<Tensors(const Tensors&)>;

struct Case {
  std::string name;
  at::ScalarType type;  ///< of most inputs
  Operator op;
  Tensors inputs;
};

/// Numbers in [-1, 1] without a pattern, other ones for another `seed`.
at::Tensor scattered(at::IntArrayRef sizes, double seed) {
  const int64_t count = c10::multiply_integers(sizes);
  return at::arange(count, at::kDouble)
      .mul_(12.9898)
      .add_(seed)
      .sin_()
      .mul_(43758.5453)
      .sin_()
      .view(sizes)
      .to(at::kFloat);
}

std::string named(const char* name, int64_t tokens, at::ScalarType type, const char* how = "") {
  std::ostringstream text;
  text << name << " of " << tokens << " tokens" << how << " in " << type;
  return text.str();
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    // One block, one CTA, a cluster, and stages.
    for (const int64_t tokens : {11, 200, 1000, 5000}) {
      all.push_back({named("bi_wkv", tokens, type),
                     type,
                     [](const Tensors& in) { return Tensors{bi_wkv(in[0], in[1], in[2], in[3])}; },
                     {scattered({40}, 1) * 5 / tokens,
                      scattered({40}, 2),
                      scattered({2, tokens, 40}, 3).to(type),
                      scattered({2, tokens, 40}, 4).to(type)}});
    }
    for (const int64_t tokens : {11, 200}) {
      const auto values = [&](double seed) { return scattered({2, tokens, 64}, seed).to(type); };
      for (const int64_t head : {32, 64})
        all.push_back(
            {named("wkv6", tokens, type, head == 32 ? ", heads of 32," : ", heads of 64,"),
             type,
             [](const Tensors& in) { return Tensors{wkv6(in[0], in[1], in[2], in[3], in[4])}; },
             {values(5),
              values(6),
              values(7),
              scattered({2, tokens, 64}, 8) - 1,
              scattered({64 / head, head}, 9)}});
      const at::Tensor weight = scattered({64}, 10) + 2, bias = scattered({64}, 11);
      all.push_back(
          {named("channel_norm", tokens, type),
           type,
           [](const Tensors& in) { return Tensors{channel_norm(in[0], in[1], in[2], 1e-5)}; },
           {values(12), weight, bias}});
      all.push_back(
          {named("gated_norm", tokens, type),
           type,
           [](const Tensors& in) { return Tensors{gated_norm(in[0], in[1], in[2], in[3], 1e-5)}; },
           {values(13), values(14), weight, bias}});
    }
    all.push_back(
        {named("channel_norm", 13 * 7, type, " of a map"),
         type,
         [](const Tensors& in) { return Tensors{channel_norm(in[0], in[1], in[2], 1e-5)}; },
         {scattered({2, 64, 13, 7}, 20).to(type), scattered({64}, 21) + 2, scattered({64}, 22)}});
    all.push_back(
        {named("q_shift_mix", 13 * 7, type),
         type,
         [](const Tensors& in) { return q_shift_mix(in[0], at::TensorList(in).slice(1), 13, 7); },
         {scattered({2, 13 * 7, 64}, 15).to(type),
          scattered({64}, 16),
          scattered({64}, 17),
          scattered({64}, 18)}});
  }
  return all;
}

/// The outputs, then the gradients of their sum with weights.
Tensors results(const Case& one, at::Device device) {
  Tensors leaves, all;
  for (const at::Tensor& input : one.inputs)
    leaves.push_back(input.to(device).detach().requires_grad_());
  at::Tensor total = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
  for (const at::Tensor& output : one.op(leaves)) {
    total = total + (output.to(at::kDouble) * scattered(output.sizes(), 19).to(device)).sum();
    all.push_back(output.detach().cpu());
  }
  total.backward();
  for (const at::Tensor& leaf : leaves) all.push_back(leaf.grad().cpu());
  return all;
}

/// Rounding of a type, widened by how many terms go into a sum; of the gradients of float32 inputs
/// too, as their factors are rounded so.
double bound_of(at::ScalarType type) {
  return type == at::kFloat ? 1e-4 : type == at::kHalf ? 4e-3 : 2e-2;
}

/// max|a - b| / max|b|; infinite where a is not finite.
double deviation(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  if (!x.isfinite().all().item<bool>()) return std::numeric_limits<double>::infinity();
  return ((x - y).abs().max() / y.abs().max()).item<double>();
}

}  // namespace

std::vector<std::string> disagreements_with_cpu(at::Device device) {
  const c10::InferenceMode no_inference(false);
  const at::AutoGradMode gradients(true);
  std::vector<std::string> lines;
  for (const Case& one : cases()) {
    try {
      const Tensors expected = results(one, at::kCPU), found = results(one, device);
      for (size_t i = 0; i < expected.size(); ++i) {
        const double off = deviation(found[i], expected[i]);
        if (off <= bound_of(one.type)) continue;
        lines.push_back(one.name + ": result " + std::to_string(i) + " is off by " +
                        std::to_string(off) + " of the largest value");
      }
    } catch (const std::exception& error) {
      const std::string text = error.what();
      lines.push_back(one.name + ": " + text.substr(0, text.find('\n')));
    }
  }
  return lines;
}

}  // namespace vireo
