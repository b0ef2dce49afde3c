#pragma once

#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/shift/shift.h"

// The operators behind shift.h, for its own files.
namespace vireo {

/// Throws unless x is [B, height*width (+1), C] of a supported type.
void check_q_shift(const at::Tensor& x, int64_t height, int64_t width, const QShift& shift);
/// Also checks mixes [M,C], in x's state type (float32, or float64 for float64).
void check_q_shift_mix(const at::Tensor& x,
                       const at::Tensor& mixes,
                       int64_t height,
                       int64_t width,
                       const QShift& shift);

/// The gradients of the mixed outputs in x's type, contiguous. Throws unless there is one per mix,
/// of x's shape.
std::vector<at::Tensor> checked_gradients(const at::Tensor& x,
                                          const at::Tensor& mixes,
                                          at::TensorList gys);

/// vireo::q_shift; adjoint: the gradient's way.
at::Tensor call_q_shift(
    const at::Tensor& x, int64_t height, int64_t width, const QShift& shift, bool adjoint);
/// vireo::q_shift_mix; mixes [M,C].
std::vector<at::Tensor> call_q_shift_mix(const at::Tensor& x,
                                         const at::Tensor& mixes,
                                         int64_t height,
                                         int64_t width,
                                         const QShift& shift);
/// vireo::q_shift_mix_backward: gx and gmixes [M,C].
std::tuple<at::Tensor, at::Tensor> call_q_shift_mix_backward(const at::Tensor& x,
                                                             const at::Tensor& mixes,
                                                             at::TensorList gys,
                                                             int64_t height,
                                                             int64_t width,
                                                             const QShift& shift);

}  // namespace vireo
