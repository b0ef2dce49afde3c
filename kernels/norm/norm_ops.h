#pragma once

#include <tuple>

#include <ATen/core/Tensor.h>

// The operators behind norm.h, for its own files. In all of them weight and bias are [C] in the
// state type; `gate` has an undefined weight and bias where it does not normalise.
namespace vireo {

/// float32, or float64 for float64.
at::ScalarType norm_state_type(const at::Tensor& x);

/// x as the loops want it: contiguous tokens, a contiguous or a channels-last map.
at::Tensor norm_input(const at::Tensor& x);
/// A gradient of x's shape in the type and the layout of norm_input(x). Throws if the shape
/// differs.
at::Tensor norm_gradient(const at::Tensor& x, const at::Tensor& gradient);

/// vireo::channel_norm
at::Tensor call_channel_norm(const at::Tensor& x,
                             const at::Tensor& weight,
                             const at::Tensor& bias,
                             double eps);
/// vireo::channel_norm_backward: gx, gweight, gbias.
using NormGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
NormGradients call_channel_norm_backward(const at::Tensor& x,
                                         const at::Tensor& weight,
                                         const at::Tensor& gout,
                                         double eps);

/// vireo::gate
at::Tensor call_gate(const at::Tensor& r,
                     const at::Tensor& y,
                     const at::Tensor& weight,
                     const at::Tensor& bias,
                     double eps);
/// vireo::gate_backward: gr, gy, gweight, gbias; the latter two empty where nothing is normalised.
using GateGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
GateGradients call_gate_backward(const at::Tensor& r,
                                 const at::Tensor& y,
                                 const at::Tensor& weight,
                                 const at::Tensor& bias,
                                 const at::Tensor& gout,
                                 double eps);

}  // namespace vireo
