#pragma once

#include <memory>

#include "kernels/graph/recorded_pass.h"
#include "models/registry.h"

namespace vireo {

/// A network as a GPU evaluates it: without gradients, its pass recorded for each size of image
/// (recorded_pass.h), on request in bfloat16 where that is known to be safe. Logits are float32 and
/// the caller's own.
class RecordedNetwork : public Model {
 public:
  RecordedNetwork(std::shared_ptr<Model> network, bool bf16, std::unique_ptr<GraphStream> stream);

  at::Tensor forward(const at::Tensor& image) override { return pass_({image})[0].clone(); }
  int64_t input_channels() const override { return network_->input_channels(); }
  int64_t class_count() const override { return network_->class_count(); }
  bool classifies() const override { return network_->classifies(); }
  const RecordedPass& pass() const { return pass_; }

 private:
  std::shared_ptr<Model> network_;
  RecordedPass pass_;
};

}  // namespace vireo
