#pragma once

#include <vector>

#include "kernels/packed/packed_linear.h"
#include "kernels/shift/shift.h"

// What stands around Bi-WKV and WKV6 in a network, for inference on the CPU: token by token, so
// that a few rows of everything in between stay in the processor's cache. Tokens are [B,T,C] of
// activation_type(); results are contiguous and do not depend on the number of threads.
namespace vireo {

/// weight and bias [C], float32; undefined: no norm.
struct PackedNorm {
  at::Tensor weight, bias;
  double eps = 0;
  bool defined() const { return weight.defined(); }
};

/// y_m = layer_m(x mix_m + q_shift(x) (1 - mix_m)) for 1 to 5 layers; mixes float32 [M,C].
std::vector<at::Tensor> packed_token_mix(const at::Tensor& x,
                                         const at::Tensor& mixes,
                                         const std::vector<const PackedLinear*>& layers,
                                         int64_t height,
                                         int64_t width,
                                         const QShift& shift);

/// last(layer(norm(y) gate)) + added; added may be undefined.
at::Tensor packed_readout(const at::Tensor& y,
                          const PackedNorm& norm,
                          const at::Tensor& gate,
                          const PackedLinear& layer,
                          const PackedNorm& last,
                          const at::Tensor& added);

/// last(value(norm(key(x_k))) receptance(x_r)) + added, x_k and x_r being x mixed with its shifted
/// self by mixes [2,C]. The layers bring their activations: key's relu squared, receptance's
/// sigmoid.
struct PackedChannelMix {
  at::Tensor mixes;
  PackedLinear key, receptance, value;
  PackedNorm norm, last;
  QShift shift;

  at::Tensor operator()(const at::Tensor& x,
                        int64_t height,
                        int64_t width,
                        const at::Tensor& added) const;
};

}  // namespace vireo
