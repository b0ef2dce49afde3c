#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>
#include <nlohmann/json_fwd.hpp>

#include "datasets/batches.h"
#include "models/registry.h"

namespace vireo {

/// How well the present weights do on held-out data.
struct Validation {
  double score = 0;                      ///< larger is better; NaN when nothing could be scored
  std::string text;                      ///< for the progress line
  std::map<std::string, double> values;  ///< for metrics.jsonl
};

/// What the training loop does not know: the data, the loss, the score.
class Task {
 public:
  virtual ~Task() = default;

  virtual ModelShape model_shape() const = 0;
  virtual int64_t batches_per_epoch() const = 0;
  /// Batch `index`, counted over the whole run: a function of the index alone, thread-safe.
  virtual Batch training_batch(int64_t index) const = 0;
  /// The loss to minimise, a scalar, of the model's output for a batch on the same device.
  virtual at::Tensor loss(const at::Tensor& output, const Batch& batch) const = 0;

  virtual int64_t validation_batches() const = 0;
  virtual Batch validation_batch(int64_t index) const = 0;
  /// Starts a validation, takes its batches' outputs one after another, and ends it.
  virtual void begin_validation() = 0;
  virtual void add_validation(const at::Tensor& output, const Batch& batch) = 0;
  virtual Validation end_validation() = 0;

  /// A digest of what is trained on and validated with: a run goes on only with the same data.
  virtual std::string data_digest() const = 0;
  /// What prediction needs beside the model, as metadata of the checkpoint.
  virtual std::map<std::string, std::string> checkpoint_metadata() const = 0;
};

}  // namespace vireo
