#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "kernels/bench/bench.h"
#include "kernels/shift/shift.h"

namespace vireo {
namespace {

struct Inputs {
  int64_t side;
  at::Tensor x;
  std::vector<at::Tensor> mixes, gys;

  Inputs(int64_t batch, int64_t side, int64_t channels, at::TensorOptions options) : side(side) {
    at::manual_seed(1);
    x = at::randn({batch, side * side, channels}).to(options);
    for (int m = 0; m < 3; ++m) {
      mixes.push_back(at::rand({channels}).to(options.device()));
      gys.push_back(at::randn(x.sizes()).to(options));
    }
  }
};

using Form = std::vector<at::Tensor> (*)(const Inputs&);

std::vector<at::Tensor> shift(const Inputs& in) {
  return {q_shift(in.x, in.side, in.side)};
}

std::vector<at::Tensor> fused(const Inputs& in) {
  return q_shift_mix(in.x, in.mixes, in.side, in.side);
}

/// The three-way mix as separate ATen operations, as published code does it.
std::vector<at::Tensor> separate(const Inputs& in) {
  const int64_t batch = in.x.size(0), channels = in.x.size(2), quarter = channels / 4;
  const int64_t side = in.side;
  const at::Tensor image = in.x.transpose(1, 2).reshape({batch, channels, side, side});
  const at::Tensor padded = at::constant_pad_nd(image, {1, 1, 1, 1});
  const auto part = [&](int64_t j, int64_t top, int64_t left) {
    return padded.narrow(1, j * quarter, j == 3 ? channels - 3 * quarter : quarter)
        .narrow(2, top, side)
        .narrow(3, left, side);
  };
  const at::Tensor shifted =
      at::cat({part(0, 1, 0), part(1, 1, 2), part(2, 0, 1), part(3, 2, 1)}, 1)
          .flatten(2)
          .transpose(1, 2);
  std::vector<at::Tensor> out;
  for (const at::Tensor& mix : in.mixes) {
    const at::Tensor share = mix.to(in.x.scalar_type());
    out.push_back(in.x * share + shifted * (1 - share));
  }
  return out;
}

Contender forward(const std::string& name, Form form, const Inputs& in) {
  return {name, [=] {
            const at::NoGradGuard no_grad;
            form(in);
          }};
}

Contender backward(const std::string& name, Form form, const Inputs& in) {
  Inputs leaves = in;
  leaves.x = in.x.detach().requires_grad_();
  for (at::Tensor& mix : leaves.mixes) mix = mix.detach().requires_grad_();
  std::vector<at::Tensor> all = leaves.mixes;
  all.push_back(leaves.x);
  return {name, backward_pass(form(leaves), all, in.gys)};
}

void measure_all(Bench& bench) {
  const Inputs small(2, 6, 20, at::kFloat);
  const auto one = fused(small), other = separate(small);
  for (size_t m = 0; m < one.size(); ++m) check_same("q_shift_mix", one[m], other[m]);

  for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
    for (const auto& [batch, side, channels] :
         std::vector<std::tuple<int64_t, int64_t, int64_t>>{{64, 14, 192}, {1, 128, 192}}) {
      const std::string shape = ", " + shape_text({batch, side, side, channels}) + ", " +
                                (type == at::kFloat ? "float32" : "bfloat16");
      const Inputs in(batch, side, channels, at::device(bench.device()).dtype(type));
      const int64_t elements = in.x.numel(), bytes = elements * in.x.element_size();
      bench.measure({"q_shift forward" + shape, elements, 0, 2 * bytes, forward("", shift, in)});
      bench.measure({"q_shift_mix of three, forward" + shape,
                     elements,
                     0,
                     4 * bytes,
                     forward("", fused, in),
                     {forward("ATen, separate operations", separate, in)}});
      bench.measure({"q_shift_mix of three, backward" + shape,
                     elements,
                     0,
                     5 * bytes,
                     backward("", fused, in),
                     {backward("ATen, separate operations", separate, in)}});
    }
}

}  // namespace
}  // namespace vireo

int main(int argc, char** argv) {
  return vireo::bench_main(argc, argv, "shift", vireo::measure_all);
}
