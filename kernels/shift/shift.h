#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vireo {

/// Which channels a Q-Shift moves, and how far. With n the channels of the tensor (or of a head)
/// and g_j = floor(j n gamma): [g_0,g_1) move right, [g_1,g_2) left, [g_2,g_3) down, [g_3,g_4) up,
/// the rest stay. Zeros enter at the border.
struct QShift {
  int64_t pixels = 1;        ///< distance, >= 1
  double gamma = 0.25;       ///< share of the channels per direction, in (0, 0.25]
  int64_t head_dim = 0;      ///< 0: over all channels; otherwise within each head of this many
  bool class_token = false;  ///< one more token at the end, which is not shifted
};

/// x [B,T,C] with T = height*width (+1 with a class token), tokens row by row; float32, float64,
/// bfloat16 or float16. Returns the shifted tensor, contiguous. Differentiable any number of times.
at::Tensor q_shift(const at::Tensor& x, int64_t height, int64_t width, const QShift& shift = {});

/// x*mix + q_shift(x)*(1 - mix) for each of 1 to 5 mixes ([C] or [1,1,C], any floating type), in
/// one pass over x and, backward, one pass over the gradients. Outputs have x's type.
/// Differentiable once, in x and the mixes; gradients do not depend on the number of threads.
std::vector<at::Tensor> q_shift_mix(const at::Tensor& x,
                                    at::TensorList mixes,
                                    int64_t height,
                                    int64_t width,
                                    const QShift& shift = {});

}  // namespace vireo
