#pragma once

#include <string>
#include <vector>

#include "models/registry.h"

namespace vireo {

/// What a model costs at one input shape, found by running it once on zeros.
struct ModelCost {
  int64_t parameters = 0;      ///< trainable numbers
  int64_t buffer_numbers = 0;  ///< others that a checkpoint holds, such as running statistics
  /// Multiply-adds of one forward pass: convolutions, matrix products, Bi-WKV (kWkvMultiplyAdds
  /// per token and channel) and WKV6 (its states, written and read, in each direction). Norms,
  /// activations and resizing are not counted. FLOPs are twice this.
  int64_t multiply_adds = 0;
  /// Largest sum of tensor memory that a pass allocates, beyond the weights and the input; scratch
  /// memory inside libraries is not seen.
  int64_t inference_peak_bytes = 0;
  int64_t training_peak_bytes = 0;  ///< forward and backward, gradients included; 0: not measured
};

/// Two scans (three multiply-adds each for a and b, with their exponentials) and the combination.
constexpr int64_t kWkvMultiplyAdds = 16;

/// Runs forward (and, with `training`, forward and backward in training mode) at `shape` = [B, C,
/// H, W] on the model's device and type. Leaves parameters, buffers, gradients and mode as they
/// were.
ModelCost measure_cost(Model& model, const std::vector<int64_t>& shape, bool training);

}  // namespace vireo
