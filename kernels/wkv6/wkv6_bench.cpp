#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/bench/aten_forms.h"
#include "kernels/bench/bench.h"
#include "kernels/wkv6/wkv6.h"

namespace vireo {
namespace {

struct Inputs {
  at::Tensor r, k, v, w, u, gy;

  Inputs(const std::vector<int64_t>& shape, int64_t head, at::TensorOptions options) {
    at::manual_seed(1);
    for (at::Tensor* x : {&r, &k, &v, &gy}) *x = at::randn(shape).to(options);
    w = (at::rand(shape) * 5 - 6).to(options);
    u = at::randn({shape[2] / head, head}).to(options.device());
  }
};

using Form = at::Tensor (*)(const at::Tensor&,
                            const at::Tensor&,
                            const at::Tensor&,
                            const at::Tensor&,
                            const at::Tensor&,
                            bool);

Contender forward(const std::string& name, Form form, const Inputs& in) {
  return {name, [=] {
            const at::NoGradGuard no_grad;
            form(in.r, in.k, in.v, in.w, in.u, false);
          }};
}

Contender backward(const std::string& name, Form form, const Inputs& in) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : {in.r, in.k, in.v, in.w, in.u})
    leaves.push_back(x.detach().requires_grad_());
  const at::Tensor y = form(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], false);
  return {name, backward_pass({y}, leaves, {in.gy})};
}

void measure_all(Bench& bench) {
  const Inputs small({2, 40, 16}, 8, at::kFloat);
  check_same("wkv6",
             wkv6_by_token(small.r, small.k, small.v, small.w, small.u, false),
             wkv6(small.r, small.k, small.v, small.w, small.u));
  struct Shape {
    std::vector<int64_t> sizes;
    int64_t head;  // 64 in the published networks
    bool beside_aten;
  };
  const std::vector<Shape> shapes = {{{4, 1024, 192}, 64, true},
                                     {{4, 1024, 192}, 32, true},
                                     {{1, 4096, 192}, 64, false},
                                     {{1, 65536, 192}, 64, false}};
  for (const bool is_backward : {false, true})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const Shape& shape : shapes) {
        BenchCase c;
        c.name = std::string("wkv6 ") + (is_backward ? "backward, " : "forward, ") +
                 shape_text(shape.sizes) + " in heads of " + std::to_string(shape.head) + ", " +
                 (type == at::kFloat ? "float32" : "bfloat16");
        if (!bench.wants(c.name)) continue;
        const Inputs in(shape.sizes, shape.head, at::device(bench.device()).dtype(type));
        c.elements = in.k.numel();
        c.least_bytes = c.elements * (is_backward ? 9 : 5) * in.k.element_size();
        const auto contender = is_backward ? backward : forward;
        c.ours = contender("", wkv6, in);
        if (type == at::kFloat && shape.beside_aten)
          c.others.push_back(contender("ATen, by token", wkv6_by_token, in));
        bench.measure(c);
      }
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "wkv6", vireo::measure_all);
}
