#include <tuple>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/bench/bench.h"
#include "kernels/norm/norm.h"

namespace vireo {
namespace {

constexpr double kEps = 1e-5;

/// What is normalised or gated, x, and for gates r, of the same shape.
struct Inputs {
  at::Tensor r, x, weight, bias, gout;

  Inputs(const std::vector<int64_t>& shape, at::TensorOptions options) {
    at::manual_seed(1);
    const int64_t channels = shape.size() == 4 ? shape[1] : shape[2];
    for (at::Tensor* tensor : {&r, &x, &gout}) *tensor = at::randn(shape).to(options);
    for (at::Tensor* tensor : {&weight, &bias}) *tensor = at::rand({channels}).to(options.device());
  }
};

using Form = at::Tensor (*)(const Inputs&);

at::Tensor norm(const Inputs& in) {
  return channel_norm(in.x, in.weight, in.bias, kEps);
}
at::Tensor norm_and_gate(const Inputs& in) {
  return gated_norm(in.r, in.x, in.weight, in.bias, kEps);
}
at::Tensor gate_alone(const Inputs& in) {
  return gate(in.r, in.x);
}

/// Its own operations, in x's type; LibTorch casts nothing by itself.
at::Tensor norm_by_aten(const Inputs& in) {
  const at::Tensor weight = in.weight.to(in.x.scalar_type()), bias = in.bias.to(in.x.scalar_type());
  const bool map = in.x.dim() == 4;
  const at::Tensor last = map ? in.x.permute({0, 2, 3, 1}) : in.x;
  const at::Tensor y = at::layer_norm(last, {last.size(-1)}, weight, bias, kEps);
  return map ? y.permute({0, 3, 1, 2}).contiguous() : y;
}
at::Tensor norm_and_gate_by_aten(const Inputs& in) {
  return in.r.sigmoid() * norm_by_aten(in);
}
at::Tensor gate_by_aten(const Inputs& in) {
  return in.r.sigmoid() * in.x;
}

struct Kind {
  const char* name;
  bool map, gate, norm;
  Form ours, by_aten;
};

Contender forward(const std::string& name, Form form, const Kind&, const Inputs& in) {
  return {name, [=] {
            const at::NoGradGuard no_grad;
            form(in);
          }};
}

Contender backward(const std::string& name, Form form, const Kind& kind, const Inputs& in) {
  Inputs leaves = in;
  std::vector<at::Tensor> all;
  const auto make_leaf = [&](at::Tensor& tensor) {
    tensor = tensor.detach().requires_grad_();
    all.push_back(tensor);
  };
  make_leaf(leaves.x);
  if (kind.gate) make_leaf(leaves.r);
  if (kind.norm)
    for (at::Tensor* tensor : {&leaves.weight, &leaves.bias}) make_leaf(*tensor);
  return {name, backward_pass({form(leaves)}, all, {in.gout})};
}

void measure_all(Bench& bench) {
  const std::vector<Kind> kinds = {
      {"norm", false, false, true, norm, norm_by_aten},
      {"gate", false, true, false, gate_alone, gate_by_aten},
      {"norm and gate", false, true, true, norm_and_gate, norm_and_gate_by_aten},
      {"norm of planes", true, false, true, norm, norm_by_aten}};
  for (const Kind& kind : kinds) {
    const Inputs small(
        kind.map ? std::vector<int64_t>{2, 20, 3, 5} : std::vector<int64_t>{2, 5, 20}, at::kFloat);
    check_same(kind.name, kind.ours(small), kind.by_aten(small));
  }
  for (const bool is_backward : {false, true})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const Kind& kind : kinds)
        for (const auto& [batch, side, channels] :
             std::vector<std::tuple<int64_t, int64_t, int64_t>>{{64, 14, 192}, {1, 128, 192}}) {
          const std::vector<int64_t> shape =
              kind.map ? std::vector<int64_t>{batch, channels, side, side}
                       : std::vector<int64_t>{batch, side * side, channels};
          BenchCase c;
          c.name = std::string(kind.name) + (is_backward ? " backward, " : " forward, ") +
                   shape_text(shape) + ", " + (type == at::kFloat ? "float32" : "bfloat16");
          if (!bench.wants(c.name)) continue;
          const Inputs in(shape, at::device(bench.device()).dtype(type));
          c.elements = in.x.numel();
          const int64_t tensors = (kind.gate ? 3 : 2) + (!is_backward ? 0 : kind.gate ? 2 : 1);
          c.least_bytes = c.elements * tensors * in.x.element_size();
          const auto contender = is_backward ? backward : forward;
          c.ours = contender("", kind.ours, kind, in);
          c.others = {contender("ATen, separate operations", kind.by_aten, kind, in)};
          bench.measure(c);
        }
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "norm", vireo::measure_all);
}
