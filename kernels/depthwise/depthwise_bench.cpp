#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/bench/bench.h"
#include "kernels/depthwise/depthwise.h"

namespace vireo {
namespace {

struct Map {
  std::vector<int64_t> sizes;
  int64_t kernel;
};

at::Tensor convolve(const at::Tensor& x, const at::Tensor& weight) {
  return depthwise_conv2d(x, weight, 1, weight.size(2) / 2);
}

at::Tensor convolve_by_aten(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t padding = weight.size(2) / 2;
  return at::conv2d(x, weight, {}, {1, 1}, {padding, padding}, {1, 1}, x.size(1));
}

using Form = at::Tensor (*)(const at::Tensor&, const at::Tensor&);

Contender forward(const std::string& name,
                  Form form,
                  const at::Tensor& x,
                  const at::Tensor& weight) {
  return {name, [=] {
            const at::NoGradGuard no_grad;
            form(x, weight);
          }};
}

Contender backward(const std::string& name,
                   Form form,
                   const at::Tensor& x,
                   const at::Tensor& weight) {
  const std::vector<at::Tensor> leaves{x.detach().requires_grad_(),
                                       weight.detach().requires_grad_()};
  const at::Tensor y = form(leaves[0], leaves[1]);
  return {name, backward_pass({y}, leaves, {at::ones_like(y)})};
}

/// Maps of RWKV-UNet's sizes, channels-last, beside LibTorch's convolution in both layouts.
void measure_all(Bench& bench) {
  const std::vector<Map> maps = {
      {{8, 96, 56, 56}, 5}, {{8, 192, 14, 14}, 5}, {{4, 48, 112, 112}, 9}};
  for (const bool is_backward : {false, true})
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
      for (const auto& [sizes, kernel] : maps) {
        const std::string side = std::to_string(kernel);
        BenchCase c;
        c.name = "depthwise " + side + "x" + side + (is_backward ? " backward, " : " forward, ") +
                 shape_text(sizes) + ", " + (type == at::kFloat ? "float32" : "bfloat16");
        if (!bench.wants(c.name)) continue;
        at::manual_seed(1);
        const at::TensorOptions options = at::device(bench.device()).dtype(type);
        const at::Tensor planes = at::randn(sizes).to(options);
        const at::Tensor last = planes.contiguous(at::MemoryFormat::ChannelsLast);
        const at::Tensor weight = at::randn({sizes[1], 1, kernel, kernel}).to(options) * 0.1;
        if (type == at::kFloat)
          check_same("depthwise_conv2d", convolve(last, weight), convolve_by_aten(planes, weight));
        c.elements = planes.numel();
        c.least_bytes = c.elements * (is_backward ? 3 : 2) * planes.element_size();
        const auto contender = is_backward ? backward : forward;
        c.ours = contender("", convolve, last, weight);
        c.others = {contender("ATen, channels-last", convolve_by_aten, last, weight),
                    contender("ATen, contiguous", convolve_by_aten, planes, weight)};
        bench.measure(c);
      }
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "depthwise", vireo::measure_all);
}
