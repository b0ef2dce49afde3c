#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

namespace vireo {

/// Stochastic depth: in training drops the whole branch of a sample with probability `rate` and
/// scales the others by 1 / (1 - rate); the identity in evaluation and at rate 0.
struct DropPathImpl : torch::nn::Module {
  /// `rate` in [0, 1).
  explicit DropPathImpl(double rate);
  /// [B, ...] -> [B, ...]
  at::Tensor forward(const at::Tensor& x);

  double rate;
};
TORCH_MODULE(DropPath);

}  // namespace vireo
