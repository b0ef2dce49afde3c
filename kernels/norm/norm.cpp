#include "kernels/norm/norm.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "kernels/norm/norm_ops.h"

namespace vireo {
namespace {

void check_type(const char* op, const char* name, const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  TORCH_CHECK(
      type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf,
      op,
      ": ",
      name,
      " must be float32, float64, bfloat16 or float16, found ",
      type);
}

/// A parameter in the state type.
at::Tensor parameter(const char* op, const char* name, const at::Tensor& p, const at::Tensor& x) {
  const int64_t channels = x.dim() == 4 ? x.size(1) : x.size(-1);
  TORCH_CHECK(p.dim() == 1 && p.size(0) == channels,
              op,
              ": ",
              name,
              " must be [",
              channels,
              "], one per channel, found ",
              p.sizes());
  check_type(op, name, p);
  TORCH_CHECK(p.device() == x.device(),
              op,
              ": ",
              name,
              " must be on the input's device ",
              x.device(),
              ", found ",
              p.device());
  return p.to(norm_state_type(x)).contiguous();
}

/// r in y's type.
at::Tensor receptance(const char* op, const at::Tensor& r, const at::Tensor& y) {
  TORCH_CHECK(y.dim() == 3, op, ": y must be [B,T,C], found ", y.sizes());
  check_type(op, "y", y);
  TORCH_CHECK(
      r.sizes() == y.sizes(), op, ": r must have y's shape ", y.sizes(), ", found ", r.sizes());
  TORCH_CHECK(r.device() == y.device(),
              op,
              ": r must be on y's device ",
              y.device(),
              ", found ",
              r.device());
  check_type(op, "r", r);
  return r.to(y.scalar_type());
}

std::optional<at::Tensor> optional(const at::Tensor& x) {
  return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
}

}  // namespace

at::ScalarType norm_state_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor norm_input(const at::Tensor& x) {
  const bool channels_last = x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast);
  return channels_last ? x : x.contiguous();
}

at::Tensor norm_gradient(const at::Tensor& x, const at::Tensor& gradient) {
  TORCH_CHECK(gradient.sizes() == x.sizes(),
              "channel_norm: a gradient must have the input's shape ",
              x.sizes(),
              ", found ",
              gradient.sizes());
  const bool channels_last = x.dim() == 4 && x.is_contiguous(at::MemoryFormat::ChannelsLast);
  return gradient.to(x.scalar_type())
      .contiguous(channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
}

at::Tensor call_channel_norm(const at::Tensor& x,
                             const at::Tensor& weight,
                             const at::Tensor& bias,
                             double eps) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("vireo::channel_norm", "")
          .typed<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return op.call(x, weight, bias, eps);
}

NormGradients call_channel_norm_backward(const at::Tensor& x,
                                         const at::Tensor& weight,
                                         const at::Tensor& gout,
                                         double eps) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("vireo::channel_norm_backward", "")
          .typed<NormGradients(const at::Tensor&, const at::Tensor&, const at::Tensor&, double)>();
  return op.call(x, weight, gout, eps);
}

at::Tensor call_gate(const at::Tensor& r,
                     const at::Tensor& y,
                     const at::Tensor& weight,
                     const at::Tensor& bias,
                     double eps) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vireo::gate", "")
                             .typed<at::Tensor(const at::Tensor&,
                                               const at::Tensor&,
                                               const std::optional<at::Tensor>&,
                                               const std::optional<at::Tensor>&,
                                               double)>();
  return op.call(r, y, optional(weight), optional(bias), eps);
}

GateGradients call_gate_backward(const at::Tensor& r,
                                 const at::Tensor& y,
                                 const at::Tensor& weight,
                                 const at::Tensor& bias,
                                 const at::Tensor& gout,
                                 double eps) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("vireo::gate_backward", "")
                             .typed<GateGradients(const at::Tensor&,
                                                  const at::Tensor&,
                                                  const std::optional<at::Tensor>&,
                                                  const std::optional<at::Tensor>&,
                                                  const at::Tensor&,
                                                  double)>();
  return op.call(r, y, optional(weight), optional(bias), gout, eps);
}

at::Tensor channel_norm(const at::Tensor& x,
                        const at::Tensor& weight,
                        const at::Tensor& bias,
                        double eps) {
  TORCH_CHECK(x.dim() == 3 || x.dim() == 4,
              "channel_norm: x must be [B,T,C] or [B,C,H,W], found ",
              x.sizes());
  check_type("channel_norm", "x", x);
  return call_channel_norm(x,
                           parameter("channel_norm", "weight", weight, x),
                           parameter("channel_norm", "bias", bias, x),
                           eps);
}

at::Tensor gate(const at::Tensor& r, const at::Tensor& y) {
  return call_gate(receptance("gate", r, y), y, {}, {}, 0);
}

at::Tensor gated_norm(const at::Tensor& r,
                      const at::Tensor& y,
                      const at::Tensor& weight,
                      const at::Tensor& bias,
                      double eps) {
  const at::Tensor receptances = receptance("gated_norm", r, y);
  return call_gate(receptances,
                   y,
                   parameter("gated_norm", "weight", weight, y),
                   parameter("gated_norm", "bias", bias, y),
                   eps);
}

TORCH_LIBRARY_FRAGMENT(vireo, library) {
  library.def("channel_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor");
  library.def(
      "channel_norm_backward(Tensor x, Tensor weight, Tensor gout, float eps)"
      " -> (Tensor gx, Tensor gweight, Tensor gbias)");
  library.def("gate(Tensor r, Tensor y, Tensor? weight, Tensor? bias, float eps) -> Tensor");
  library.def(
      "gate_backward(Tensor r, Tensor y, Tensor? weight, Tensor? bias, Tensor gout, float eps)"
      " -> (Tensor gr, Tensor gy, Tensor gweight, Tensor gbias)");
}

}  // namespace vireo
