#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/bench/aten_forms.h"
#include "kernels/bench/bench.h"
#include "kernels/bi_wkv/bi_wkv.h"

namespace vireo {
namespace {

struct Inputs {
  at::Tensor w, u, k, v, gy;

  Inputs(const std::vector<int64_t>& shape, at::TensorOptions options) {
    const auto tokens = static_cast<double>(shape[1]);
    at::manual_seed(1);
    w = at::rand({shape[2]}).to(options.device()) * 8 / tokens;
    u = at::randn({shape[2]}).to(options.device()) / tokens;
    for (at::Tensor* x : {&k, &v, &gy}) *x = at::randn(shape).to(options);
  }
  std::vector<at::Tensor> leaves() const { return {w, u, k, v}; }
};

using Form = at::Tensor (*)(const at::Tensor&,
                            const at::Tensor&,
                            const at::Tensor&,
                            const at::Tensor&);

at::Tensor ours(const at::Tensor& w,
                const at::Tensor& u,
                const at::Tensor& k,
                const at::Tensor& v) {
  return bi_wkv(w, u, k, v);
}

void check_forms() {
  const Inputs in({2, 30, 8}, at::kFloat);
  for (const Form form : {bi_wkv_by_token, bi_wkv_quadratic})
    check_same("bi_wkv", form(in.w, in.u, in.k, in.v), bi_wkv(in.w, in.u, in.k, in.v));
}

/// The quadratic form, one item of the batch after another: all at once would not fit.
at::Tensor quadratic_by_item(const at::Tensor& w,
                             const at::Tensor& u,
                             const at::Tensor& k,
                             const at::Tensor& v) {
  std::vector<at::Tensor> ys;
  for (int64_t b = 0; b < k.size(0); ++b)
    ys.push_back(bi_wkv_quadratic(w, u, k.narrow(0, b, 1), v.narrow(0, b, 1)));
  return at::cat(ys);
}

Contender forward(const std::string& name, Form form, const Inputs& in) {
  return {name, [=] {
            const at::NoGradGuard no_grad;
            form(in.w, in.u, in.k, in.v);
          }};
}

Contender backward(const std::string& name, Form form, const Inputs& in) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : in.leaves()) leaves.push_back(x.detach().requires_grad_());
  const at::Tensor y = form(leaves[0], leaves[1], leaves[2], leaves[3]);
  return {name, backward_pass({y}, leaves, {in.gy})};
}

void measure_all(Bench& bench) {
  check_forms();
  const std::vector<std::vector<int64_t>> shapes = {
      {64, 196, 192}, {2, 1024, 768}, {1, 4096, 768}, {1, 16384, 192}};
  for (const bool is_backward : {false, true})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const auto& shape : shapes) {
        BenchCase c;
        c.name = std::string("bi_wkv ") + (is_backward ? "backward, " : "forward, ") +
                 shape_text(shape) + ", " + (type == at::kFloat ? "float32" : "bfloat16");
        if (!bench.wants(c.name)) continue;
        const Inputs in(shape, at::device(bench.device()).dtype(type));
        c.elements = in.k.numel();
        c.least_bytes = c.elements * (is_backward ? 5 : 3) * in.k.element_size();
        const auto contender = is_backward ? backward : forward;
        c.ours = contender("", ours, in);
        if (type == at::kFloat) {
          c.others.push_back(contender("ATen, by token", bi_wkv_by_token, in));
          if (shape[1] < 256)
            c.others.push_back(contender("ATen, quadratic", quadratic_by_item, in));
        }
        bench.measure(c);
      }
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "bi_wkv", vireo::measure_all);
}
