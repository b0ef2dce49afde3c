#pragma once

#include <ATen/ATen.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "models/registry.h"

namespace vireo::test {

/// A classifier that is small enough to train in a test: a convolution, the strongest answer of
/// each filter, a linear layer.
class TinyClassifier : public Model {
 public:
  TinyClassifier(int64_t channels, int64_t classes, int64_t width = 12)
      : channels_(channels), classes_(classes) {
    first_ = register_module(
        "first", torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, width, 5).padding(2)));
    head_ = register_module("head", torch::nn::Linear(width, classes));
  }

  at::Tensor forward(const at::Tensor& image) override {
    return head_(at::relu(first_(image)).amax({2, 3}));
  }
  int64_t input_channels() const override { return channels_; }
  int64_t class_count() const override { return classes_; }
  bool classifies() const override { return true; }

 private:
  int64_t channels_, classes_;
  torch::nn::Conv2d first_{nullptr};
  torch::nn::Linear head_{nullptr};
};

}  // namespace vireo::test
