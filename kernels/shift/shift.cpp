#include "kernels/shift/shift.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "kernels/shift/shift_ops.h"

namespace vireo {

void check_q_shift(const at::Tensor& x, int64_t height, int64_t width, const QShift& shift) {
  TORCH_CHECK(x.dim() == 3, "q_shift: x must be [B,T,C], found ", x.sizes());
  const at::ScalarType type = x.scalar_type();
  TORCH_CHECK(
      type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf,
      "q_shift: x must be float32, float64, bfloat16 or float16, found ",
      type);
  const int64_t tokens = height * width + (shift.class_token ? 1 : 0);
  TORCH_CHECK(height >= 1 && width >= 1 && x.size(1) == tokens,
              "q_shift: x must have height*width",
              shift.class_token ? " + 1" : "",
              " = ",
              height,
              "*",
              width,
              shift.class_token ? " + 1" : "",
              " tokens, found ",
              x.size(1));
}

void check_q_shift_mix(const at::Tensor& x,
                       const at::Tensor& mixes,
                       int64_t height,
                       int64_t width,
                       const QShift& shift) {
  check_q_shift(x, height, width, shift);
  TORCH_CHECK(mixes.dim() == 2 && mixes.size(1) == x.size(2),
              "q_shift_mix: mixes must be [M,",
              x.size(2),
              "], found ",
              mixes.sizes());
  TORCH_CHECK(
      mixes.size(0) >= 1 && mixes.size(0) <= 5, "q_shift_mix: 1 to 5 mixes, found ", mixes.size(0));
  const at::ScalarType state = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(mixes.scalar_type() == state,
              "q_shift_mix: mixes must be ",
              state,
              ", found ",
              mixes.scalar_type());
  TORCH_CHECK(mixes.device() == x.device(),
              "q_shift_mix: mixes must be on x's device ",
              x.device(),
              ", found ",
              mixes.device());
}

std::vector<at::Tensor> checked_gradients(const at::Tensor& x,
                                          const at::Tensor& mixes,
                                          at::TensorList gys) {
  TORCH_CHECK(static_cast<int64_t>(gys.size()) == mixes.size(0),
              "q_shift_mix: one gradient per mix, expected ",
              mixes.size(0),
              ", found ",
              gys.size());
  std::vector<at::Tensor> checked;
  for (const at::Tensor& gy : gys) {
    TORCH_CHECK(gy.sizes() == x.sizes(),
                "q_shift_mix: a gradient must have x's shape ",
                x.sizes(),
                ", found ",
                gy.sizes());
    checked.push_back(gy.to(x.scalar_type()).contiguous());
  }
  return checked;
}

at::Tensor call_q_shift(
    const at::Tensor& x, int64_t height, int64_t width, const QShift& shift, bool adjoint) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("vireo::q_shift", "")
          .typed<at::Tensor(
              const at::Tensor&, int64_t, int64_t, int64_t, double, int64_t, bool, bool)>();
  return op.call(
      x, height, width, shift.pixels, shift.gamma, shift.head_dim, shift.class_token, adjoint);
}

std::vector<at::Tensor> call_q_shift_mix(const at::Tensor& x,
                                         const at::Tensor& mixes,
                                         int64_t height,
                                         int64_t width,
                                         const QShift& shift) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vireo::q_shift_mix", "")
                             .typed<std::vector<at::Tensor>(const at::Tensor&,
                                                            const at::Tensor&,
                                                            int64_t,
                                                            int64_t,
                                                            int64_t,
                                                            double,
                                                            int64_t,
                                                            bool)>();
  return op.call(
      x, mixes, height, width, shift.pixels, shift.gamma, shift.head_dim, shift.class_token);
}

std::tuple<at::Tensor, at::Tensor> call_q_shift_mix_backward(const at::Tensor& x,
                                                             const at::Tensor& mixes,
                                                             at::TensorList gys,
                                                             int64_t height,
                                                             int64_t width,
                                                             const QShift& shift) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vireo::q_shift_mix_backward", "")
                             .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&,
                                                                       const at::Tensor&,
                                                                       at::TensorList,
                                                                       int64_t,
                                                                       int64_t,
                                                                       int64_t,
                                                                       double,
                                                                       int64_t,
                                                                       bool)>();
  return op.call(
      x, mixes, gys, height, width, shift.pixels, shift.gamma, shift.head_dim, shift.class_token);
}

at::Tensor q_shift(const at::Tensor& x, int64_t height, int64_t width, const QShift& shift) {
  return call_q_shift(x, height, width, shift, /*adjoint=*/false);
}

std::vector<at::Tensor> q_shift_mix(
    const at::Tensor& x, at::TensorList mixes, int64_t height, int64_t width, const QShift& shift) {
  check_q_shift(x, height, width, shift);
  TORCH_CHECK(
      !mixes.empty() && mixes.size() <= 5, "q_shift_mix: 1 to 5 mixes, found ", mixes.size());
  const at::ScalarType state = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t channels = x.size(2);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& mix : mixes) {
    TORCH_CHECK(mix.numel() == channels && mix.size(-1) == channels,
                "q_shift_mix: a mix must be [",
                channels,
                "] or [1,1,",
                channels,
                "], found ",
                mix.sizes());
    rows.push_back(mix.reshape({channels}).to(state));
  }
  return call_q_shift_mix(x, at::stack(rows), height, width, shift);
}

TORCH_LIBRARY_FRAGMENT(vireo, library) {
  library.def(
      "q_shift(Tensor x, int height, int width, int pixels, float gamma, int head_dim,"
      " bool class_token, bool adjoint) -> Tensor");
  library.def(
      "q_shift_mix(Tensor x, Tensor mixes, int height, int width, int pixels, float gamma,"
      " int head_dim, bool class_token) -> Tensor[]");
  library.def(
      "q_shift_mix_backward(Tensor x, Tensor mixes, Tensor[] gys, int height, int width, int "
      "pixels,"
      " float gamma, int head_dim, bool class_token) -> (Tensor gx, Tensor gmixes)");
}

}  // namespace vireo
