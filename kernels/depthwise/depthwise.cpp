#include "kernels/depthwise/depthwise.h"

#include <algorithm>

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/cpu_rows.h"
#include "kernels/depthwise/depthwise_rows.h"

namespace vireo {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of outputs whose sums are kept apart: fixed, so that sums do not depend on the number of
// threads.
constexpr int64_t kParts = 16;
constexpr int64_t kRowsPerPart = 8;

const depthwise_rows::Table& rows() {
  static const auto& table = VIREO_TABLE_IN_USE(depthwise_rows);
  return table;
}

/// Whether the loops of our own take these: what they read is left to at::conv2d's checks
/// otherwise.
bool has_own_loops(const at::Tensor& x, const at::Tensor& weight, int64_t stride, int64_t padding) {
  if (!x.is_cpu() || !weight.is_cpu() || x.dim() != 4 || weight.dim() != 4) return false;
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kBFloat16) return false;
  if (weight.scalar_type() != x.scalar_type() || x.numel() == 0) return false;
  const int64_t kernel = weight.size(2);
  if (x.size(1) != weight.size(0) || weight.size(1) != 1 || weight.size(3) != kernel) return false;
  if (kernel != 3 && kernel != 5 && kernel != 7 && kernel != 9) return false;
  if ((stride != 1 && stride != 2) || padding < 0) return false;
  return x.size(2) + 2 * padding >= kernel && x.size(3) + 2 * padding >= kernel &&
         x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

/// No gradients.
at::Tensor own_forward(const at::Tensor& x,
                       const at::Tensor& weight,
                       const at::Tensor& bias,
                       int64_t stride,
                       int64_t padding) {
  const int64_t kernel = weight.size(2), channels = x.size(1);
  const auto outputs = [&](int64_t size) { return (size + 2 * padding - kernel) / stride + 1; };
  const int64_t height = outputs(x.size(2)), width = outputs(x.size(3));
  at::Tensor y = at::empty({x.size(0), channels, height, width},
                           x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const at::Tensor taps = weight.view({channels, kernel * kernel}).t().to(at::kFloat).contiguous();
  const at::Tensor start = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
  const depthwise_rows::Forward job{x.const_data_ptr(),
                                    taps.const_data_ptr<float>(),
                                    start.defined() ? start.const_data_ptr<float>() : nullptr,
                                    y.mutable_data_ptr(),
                                    x.size(2),
                                    x.size(3),
                                    height,
                                    width,
                                    channels,
                                    padding,
                                    static_cast<int>(kernel),
                                    static_cast<int>(stride)};
  const auto forward = x.scalar_type() == at::kFloat ? rows().forward_f32 : rows().forward_bf16;
  at::parallel_for(
      0, x.size(0) * height, 1, [&](int64_t begin, int64_t end) { forward(job, begin, end); });
  return y;
}

/// Below autograd.
at::Tensor convolved(const at::Tensor& x,
                     const at::Tensor& weight,
                     const at::Tensor& bias,
                     int64_t stride,
                     int64_t padding) {
  if (has_own_loops(x, weight, stride, padding))
    return own_forward(x, weight.contiguous(), bias, stride, padding);
  return at::conv2d(
      x, weight, bias, {stride, stride}, {padding, padding}, {1, 1}, /*groups=*/weight.size(0));
}

/// x and gy channels-last -> [C,1,K,K].
at::Tensor weight_gradient(
    const at::Tensor& x, const at::Tensor& gy, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t channels = x.size(1), taps = kernel * kernel;
  const depthwise_rows::Job job{x.const_data_ptr(),
                                gy.const_data_ptr(),
                                x.size(2),
                                x.size(3),
                                gy.size(2),
                                gy.size(3),
                                channels,
                                padding,
                                static_cast<int>(kernel),
                                static_cast<int>(stride)};
  const int64_t all_rows = gy.size(0) * gy.size(2);
  const int64_t parts = std::clamp<int64_t>(all_rows / kRowsPerPart, 1, kParts);
  const int64_t lanes = rows().lanes, blocks = (channels + lanes - 1) / lanes;
  const auto gradient =
      x.scalar_type() == at::kFloat ? rows().weight_gradient_f32 : rows().weight_gradient_bf16;
  at::Tensor partial = at::empty({parts, taps, channels}, x.options().dtype(at::kFloat));
  float* sums = partial.mutable_data_ptr<float>();
  at::parallel_for(0, parts * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i / blocks;
      gradient(job,
               {part * all_rows / parts,
                (part + 1) * all_rows / parts,
                i % blocks,
                sums + part * taps * channels});
    }
  });
  return partial.sum(0).t().to(x.scalar_type()).contiguous().view({channels, 1, kernel, kernel});
}

at::Tensor input_gradient(const at::Tensor& x,
                          const at::Tensor& weight,
                          const at::Tensor& gy,
                          int64_t stride,
                          int64_t padding) {
  const int64_t kernel = weight.size(2);
  // With stride 1 it is a convolution too, with the taps turned round. With stride 2 the same of gy
  // between zeros: LibTorch's own sums bfloat16 in bfloat16 where the processor has no products of
  // it.
  if (padding < kernel && (stride == 1 || x.scalar_type() == at::kBFloat16)) {
    at::Tensor apart = gy;
    if (stride > 1) {
      apart = at::empty({x.size(0),
                         x.size(1),
                         x.size(2) + 2 * padding - kernel + 1,
                         x.size(3) + 2 * padding - kernel + 1},
                        gy.options().memory_format(at::MemoryFormat::ChannelsLast))
                  .zero_();
      apart.slice(2, 0, apart.size(2), stride).slice(3, 0, apart.size(3), stride).copy_(gy);
    }
    return convolved(apart, weight.flip({2, 3}), {}, 1, kernel - 1 - padding);
  }
  return std::get<0>(at::convolution_backward(gy,
                                              x,
                                              weight,
                                              at::OptionalIntArrayRef(),
                                              {stride, stride},
                                              {padding, padding},
                                              {1, 1},
                                              /*transposed=*/false,
                                              {0, 0},
                                              /*groups=*/weight.size(0),
                                              {true, false, false}));
}

struct DepthwiseFunction : torch::autograd::Function<DepthwiseFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            int64_t stride,
                            int64_t padding) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    return convolved(x, weight, {}, stride, padding);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "depthwise_conv2d: differentiable once; a gradient of its gradient was asked for");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const int64_t stride = context->saved_data["stride"].toInt();
    const int64_t padding = context->saved_data["padding"].toInt();
    const at::Tensor gy = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor gx, gweight;
    if (context->needs_input_grad(0)) gx = input_gradient(x, weight, gy, stride, padding);
    if (context->needs_input_grad(1))
      gweight = weight_gradient(x, gy, weight.size(2), stride, padding);
    return {gx, gweight, {}, {}};
  }
};

bool wants_gradient(const at::Tensor& x) {
  return x.defined() && x.requires_grad();
}

}  // namespace

at::Tensor depthwise_conv2d(const at::Tensor& x,
                            const at::Tensor& weight,
                            int64_t stride,
                            int64_t padding,
                            const at::Tensor& bias) {
  const bool gradients = at::GradMode::is_enabled() &&
                         (wants_gradient(x) || wants_gradient(weight) || wants_gradient(bias));
  if (x.is_cpu() && at::autocast::is_autocast_enabled(at::kCPU)) {
    const c10::impl::ExcludeDispatchKeyGuard done(c10::DispatchKey::AutocastCPU);
    const auto cast = [type = at::autocast::get_autocast_dtype(at::kCPU)](const at::Tensor& from) {
      return from.defined() ? at::autocast::cached_cast(type, from, at::kCPU) : from;
    };
    return depthwise_conv2d(cast(x), cast(weight), stride, padding, cast(bias));
  }
  if (!gradients) return convolved(x, weight, bias, stride, padding);
  if (!bias.defined() && has_own_loops(x, weight, stride, padding))
    return DepthwiseFunction::apply(x, weight, stride, padding);
  return at::conv2d(
      x, weight, bias, {stride, stride}, {padding, padding}, {1, 1}, /*groups=*/weight.size(0));
}

}  // namespace vireo
