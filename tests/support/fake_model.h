#pragma once

#include <functional>
#include <memory>
#include <utility>

#include <ATen/ATen.h>

#include "apps/engine/trained_model.h"

namespace vireo::test {

/// A network without parameters whose logits [B, K, H, W] are any function of the input.
class FakeModel : public Model {
 public:
  using Function = std::function<at::Tensor(const at::Tensor& image)>;

  FakeModel(int64_t input_channels, int64_t class_count, Function logits)
      : input_channels_(input_channels), class_count_(class_count), logits_(std::move(logits)) {}

  at::Tensor forward(const at::Tensor& image) override { return logits_(image); }
  int64_t input_channels() const override { return input_channels_; }
  int64_t class_count() const override { return class_count_; }

 private:
  int64_t input_channels_, class_count_;
  Function logits_;
};

inline TrainedModel fake_model(int64_t input_channels,
                               int64_t class_count,
                               FakeModel::Function logits) {
  TrainedModel trained;
  trained.model = std::make_shared<FakeModel>(input_channels, class_count, std::move(logits));
  return trained;
}

/// Class 1 where channel `channel` exceeds `threshold`, certain of it.
inline TrainedModel threshold_model(double threshold,
                                    int64_t input_channels = 1,
                                    int64_t channel = 0) {
  return fake_model(input_channels, 2, [=](const at::Tensor& image) {
    const at::Tensor logit = (image.narrow(1, channel, 1) - threshold) * 20;
    return at::cat({-logit, logit}, 1);
  });
}

}  // namespace vireo::test
