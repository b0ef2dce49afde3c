#pragma once

#include <ATen/ATen.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>

#include "models/registry.h"

namespace vireo::test {

/// A segmenter that is small enough to train in a test: two convolutions with batch statistics.
class TinyModel : public Model {
 public:
  TinyModel(int64_t channels, int64_t classes, int64_t width = 8)
      : channels_(channels), classes_(classes) {
    first_ = register_module(
        "first", torch::nn::Conv2d(torch::nn::Conv2dOptions(channels, width, 3).padding(1)));
    norm_ = register_module("norm", torch::nn::BatchNorm2d(width));
    second_ = register_module(
        "second", torch::nn::Conv2d(torch::nn::Conv2dOptions(width, classes, 3).padding(1)));
  }

  at::Tensor forward(const at::Tensor& image) override {
    const at::Tensor hidden = at::relu(norm_(first_(image)));
    return second_(at::dropout(hidden, 0.1, is_training()));
  }
  int64_t input_channels() const override { return channels_; }
  int64_t class_count() const override { return classes_; }

 private:
  int64_t channels_, classes_;
  torch::nn::Conv2d first_{nullptr}, second_{nullptr};
  torch::nn::BatchNorm2d norm_{nullptr};
};

}  // namespace vireo::test
