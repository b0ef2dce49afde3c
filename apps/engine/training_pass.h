#pragma once

#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

#include "apps/engine/flat_parameters.h"
#include "datasets/batches.h"
#include "kernels/graph/recorded_pass.h"
#include "models/registry.h"

namespace vireo {

/// The loss to minimise, a scalar, of a network's output for a batch.
using BatchLoss = std::function<at::Tensor(const at::Tensor& output, const Batch& batch)>;

/// What of a training step grows with the network: its passes forward and backward. On a GPU they
/// are recorded and repeated (recorded_pass.h).
class TrainingPass {
 public:
  /// `bf16`: operators for which that is known to be safe run in bfloat16.
  TrainingPass(std::shared_ptr<Model> model,
               const FlatParameters& parameters,
               BatchLoss loss,
               bool bf16,
               std::unique_ptr<GraphStream> stream);

  /// Adds the gradients of the loss to the parameters'. Returns the loss.
  at::Tensor operator()(const Batch& batch) {
    return pass_({batch.image, batch.target})[0].clone();
  }

 private:
  RecordedPass pass_;
};

}  // namespace vireo
