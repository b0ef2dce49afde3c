#include "kernels/packed/packed_linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>

#include "kernels/cpu_rows.h"

namespace vireo {
namespace {

using linear_rows::Form;

// Multiply-adds that are worth a thread.
constexpr int64_t kMultiplyAddsOfAThread = 1 << 18;

Form form_of(Arithmetic precision) {
  if (precision == Arithmetic::kInt8) return Form::kInt8;
  const bool pairs = precision == Arithmetic::kBfloat16 && packed_linear_rows().multiplies_pairs();
  return pairs ? Form::kPairs : Form::kFloat;
}

/// Elements from one pixel of [..., C] to the next; -1 where there is no one such distance.
int64_t pixel_stride(const at::Tensor& x) {
  const int64_t axes = x.dim();
  if (x.size(-1) != 1 && x.stride(-1) != 1) return -1;
  int64_t stride = -1, count = 1;
  for (int64_t axis = axes - 2; axis >= 0; --axis) {
    if (x.size(axis) == 1) continue;
    if (stride < 0) stride = x.stride(axis);
    if (x.stride(axis) != stride * count) return -1;
    count *= x.size(axis);
  }
  return stride < 0 ? x.size(-1) : stride;
}

linear_rows::Rows rows_of(const at::Tensor& x) {
  if (!x.defined()) return {};
  return {const_cast<void*>(x.const_data_ptr()), pixel_stride(x), x.scalar_type() == at::kBFloat16};
}

at::Tensor with_even_pixels(const at::Tensor& x) {
  return !x.defined() || pixel_stride(x) >= 0 ? x : x.contiguous();
}

linear_rows::Rows from_row(linear_rows::Rows rows, int64_t row) {
  if (rows.data)
    rows.data = static_cast<char*>(rows.data) + row * rows.stride * (rows.bf16 ? 2 : 4);
  return rows;
}

#if defined(__x86_64__)
/// Whether a product on tiles is what it should be. They were written without a processor that has
/// them, so they are tried before they are relied on.
bool tiles_multiply() {
  constexpr int64_t kRows = 37, kInner = 70, kOuter = 50, kPadded = 64;
  std::vector<float> weight(kOuter * kInner), bias(kPadded), y(kRows * kOuter);
  std::vector<at::BFloat16> x(kRows * kInner);
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = at::BFloat16(std::sin(0.7f * i));
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::cos(0.3f * i);
  const auto& tiles = linear_rows::amx();
  std::vector<char> panels(static_cast<size_t>(tiles.packed_bytes(kInner, kOuter, Form::kPairs)));
  tiles.pack(weight.data(), kInner, kOuter, Form::kPairs, panels.data());
  const linear_rows::Job job{{panels.data(), nullptr, bias.data(), kInner, kOuter, Form::kPairs},
                             {x.data(), kInner, true},
                             {y.data(), kOuter, false},
                             {},
                             {},
                             Finish::kNone};
  tiles.run(job, kRows);
  for (int64_t i = 0; i < kRows; ++i)
    for (int64_t n = 0; n < kOuter; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < kInner; ++k) sum += weight[n * kInner + k] * float(x[i * kInner + k]);
      if (!(std::abs(sum - y[i * kOuter + n]) < 1e-3)) return false;
    }
  return true;
}
#endif

const linear_rows::Table& rows_in_use() {
#if defined(__x86_64__)
  if (cpu_isa() == CpuIsa::kAmx) {
    if (tiles_multiply()) return linear_rows::amx();
    TORCH_WARN("this processor's AMX-BF16 products are wrong; AVX-512 is used for them");
  }
#endif
  return VIREO_TABLE_IN_USE(linear_rows);
}

}  // namespace

const linear_rows::Table& packed_linear_rows() {
  static const auto& table = rows_in_use();
  return table;
}

at::ScalarType activation_type(Arithmetic precision) {
  return precision == Arithmetic::kFloat32 ? at::kFloat : at::kBFloat16;
}

PackedLinear::PackedLinear(const at::Tensor& weight,
                           const at::Tensor& bias,
                           Arithmetic precision,
                           Finish finish)
    : finish_(finish), precision_(precision) {
  TORCH_CHECK(weight.dim() >= 2 && weight.numel() == weight.size(0) * weight.size(1),
              "PackedLinear: the weight is ",
              weight.sizes(),
              "; expected [outputs, inputs]");
  const int64_t outer = weight.size(0), inner = weight.size(1);
  TORCH_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == outer),
              "PackedLinear: the bias does not fit ",
              outer,
              " outputs");
  const auto& rows = packed_linear_rows();
  const int64_t missing = (rows.lanes - outer % rows.lanes) % rows.lanes;
  at::Tensor numbers = weight.detach().to(at::kCPU, at::kFloat).view({outer, inner});
  if (precision == Arithmetic::kInt8) {
    const at::Tensor scale = numbers.abs().amax(1).div_(127).clamp_min_(1e-30f);  // [N]
    numbers = numbers.div(scale.unsqueeze(1)).round_();
    scale_ = at::constant_pad_nd(scale, {0, missing}).contiguous();
  }
  numbers = numbers.contiguous();
  bias_ = at::zeros({outer + missing}, numbers.options());
  if (bias.defined()) bias_.narrow(0, 0, outer).copy_(bias.detach());

  const Form form = form_of(precision);
  panels_ = at::empty({rows.packed_bytes(inner, outer, form)}, numbers.options().dtype(at::kByte));
  rows.pack(numbers.const_data_ptr<float>(), inner, outer, form, panels_.mutable_data_ptr());
  weights_ = {panels_.const_data_ptr(),
              scale_.defined() ? scale_.const_data_ptr<float>() : nullptr,
              bias_.const_data_ptr<float>(),
              inner,
              outer,
              form};
}

linear_rows::Job PackedLinear::job(at::Tensor& wide) const {
  linear_rows::Job job{};
  job.weights = weights_;
  job.finish = finish_;
  if (weights_.form != Form::kInt8) return job;
  const auto& rows = packed_linear_rows();
  const Form form = rows.multiplies_pairs() ? Form::kPairs : Form::kFloat;
  const int64_t inner = weights_.inner, outer = weights_.outer;
  wide = at::empty({rows.packed_bytes(inner, outer, form)}, panels_.options());
  rows.widen(weights_.panels, inner, outer, wide.mutable_data_ptr());
  job.weights.panels = wide.const_data_ptr();
  job.weights.form = form;
  return job;
}

at::Tensor PackedLinear::operator()(const at::Tensor& x_in,
                                    const at::Tensor& gate_in,
                                    const at::Tensor& added_in,
                                    bool as_float32) const {
  TORCH_CHECK(x_in.size(-1) == weights_.inner && x_in.scalar_type() == activation_type(precision_),
              "PackedLinear: found ",
              x_in.scalar_type(),
              " ",
              x_in.sizes(),
              "; expected ",
              activation_type(precision_),
              " and ",
              weights_.inner,
              " channels");
  const at::Tensor x = with_even_pixels(x_in), gate = with_even_pixels(gate_in),
                   added = with_even_pixels(added_in);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weights_.outer;
  at::Tensor y = at::empty(shape, as_float32 ? x.options().dtype(at::kFloat) : x.options());
  for (const at::Tensor* operand : {&gate, &added})
    TORCH_CHECK(!operand->defined() ||
                    (operand->sizes() == y.sizes() && operand->scalar_type() == y.scalar_type()),
                "PackedLinear: what is multiplied or added must be as the result, ",
                y.sizes());
  const int64_t pixels = y.numel() / std::max<int64_t>(weights_.outer, 1);
  at::Tensor wide;
  linear_rows::Job whole = job(wide);
  whole.x = rows_of(x);
  whole.y = rows_of(y);
  whole.gate = rows_of(gate);
  whole.added = rows_of(added);
  const int64_t grain =
      std::max<int64_t>(1, kMultiplyAddsOfAThread / (weights_.inner * weights_.outer));
  at::parallel_for(0, pixels, grain, [&](int64_t begin, int64_t end) {
    linear_rows::Job part = whole;
    for (auto* rows : {&part.x, &part.y, &part.gate, &part.added}) *rows = from_row(*rows, begin);
    packed_linear_rows().run(part, end - begin);
  });
  return y;
}

}  // namespace vireo
