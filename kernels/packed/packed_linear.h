#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "kernels/packed/linear_rows.h"

namespace vireo {

using linear_rows::Finish;

/// What the products of an inference form are made with, on the CPU.
enum class Arithmetic {
  kFloat32,
  kBfloat16,  ///< weights and activations of 16 bits, sums in float32
  kInt8,      ///< as kBfloat16, weights of 8 bits with one scale per output
};

/// The type of activations: float32, or bfloat16.
at::ScalarType activation_type(Arithmetic precision);

/// A linear layer (or 1x1 convolution on channels-last maps) whose weights were laid out once for
/// the processor's vectors; for inference on the CPU, without gradients.
///
///     y = finish(x W^T + b) gate + added
///
/// bfloat16 products use the processor's own instruction where it has one (AMX-BF16, AVX512-BF16);
/// elsewhere they are made in float32. Results do not depend on the number of threads.
class PackedLinear {
 public:
  PackedLinear() = default;
  /// `weight` [N,K] or [N,K,1,1], `bias` [N] or undefined; any floating type.
  PackedLinear(const at::Tensor& weight,
               const at::Tensor& bias,
               Arithmetic precision,
               Finish finish = Finish::kNone);

  /// x [..., K] of activation_type(), the channels side by side and all pixels equally far apart
  /// (others are copied). Returns [..., N], contiguous, of x's type or float32. gate and added: as
  /// the result, or undefined.
  at::Tensor operator()(const at::Tensor& x,
                        const at::Tensor& gate = {},
                        const at::Tensor& added = {},
                        bool as_float32 = false) const;

  bool defined() const { return panels_.defined(); }
  int64_t inner() const { return weights_.inner; }
  int64_t outer() const { return weights_.outer; }
  /// For loops that run it row by row; operands are still to be set. `wide` holds the weights while
  /// the job is in use, where those of 8 bits were widened.
  linear_rows::Job job(at::Tensor& wide) const;

 private:
  at::Tensor panels_, scale_, bias_;
  linear_rows::Weights weights_{};
  Finish finish_ = Finish::kNone;
  Arithmetic precision_ = Arithmetic::kFloat32;
};

/// The loops for this processor.
const linear_rows::Table& packed_linear_rows();

}  // namespace vireo
