#pragma once

#include <string>

#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

namespace vireo {

enum class NormKind { kNone, kBatch, kLayer };
enum class ActKind { kNone, kRelu, kSilu, kGelu };

/// The activation of a tensor that nobody else needs: x is overwritten where autograd allows it.
at::Tensor activate(at::Tensor x, ActKind kind);

/// LayerNorm over the channels of every pixel, eps 1e-6. Parameters `norm.weight`, `norm.bias`.
struct LayerNorm2dImpl : torch::nn::Module {
  explicit LayerNorm2dImpl(int64_t channels);
  /// [B, C, H, W] -> [B, C, H, W], laid out as x is
  at::Tensor forward(const at::Tensor& x);

  torch::nn::LayerNorm norm{nullptr};
};
TORCH_MODULE(LayerNorm2d);

/// BatchNorm2d as the networks use it: eps 1e-6, momentum 0.1.
torch::nn::BatchNorm2d make_batch_norm(int64_t channels);

struct ConvNormActOptions {
  int64_t in = 0, out = 0;
  int64_t kernel = 1;
  int64_t stride = 1;
  int64_t groups = 1;
  NormKind norm = NormKind::kBatch;
  ActKind act = ActKind::kRelu;
};

/// Convolution without bias (padding ceil((kernel - stride) / 2)), norm, activation.
/// Names: `conv.weight`, `norm.*`. Without gradients, in evaluation, a BatchNorm is folded into the
/// convolution.
struct ConvNormActImpl : torch::nn::Module {
  explicit ConvNormActImpl(const ConvNormActOptions& options);
  /// [B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)], for odd kernels
  at::Tensor forward(const at::Tensor& x);

  ConvNormActOptions options;
  torch::nn::Conv2d conv{nullptr};
  torch::nn::BatchNorm2d batch_norm{nullptr};  ///< registered as `norm`
  LayerNorm2d layer_norm{nullptr};             ///< registered as `norm`

 private:
  at::Tensor folded(const at::Tensor& x);
  at::Tensor convolved(const at::Tensor& x);
};
TORCH_MODULE(ConvNormAct);

/// Squeeze and excitation: x · sigmoid(conv_expand(act(conv_reduce(mean over H, W)))).
struct SqueezeExciteImpl : torch::nn::Module {
  SqueezeExciteImpl(int64_t channels, int64_t reduced, ActKind act);
  /// [B, C, H, W] -> [B, C, H, W]
  at::Tensor forward(const at::Tensor& x);

  ActKind act;
  torch::nn::Conv2d conv_reduce{nullptr}, conv_expand{nullptr};
};
TORCH_MODULE(SqueezeExcite);

}  // namespace vireo
