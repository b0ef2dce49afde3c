#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/registry.h"

namespace vireo {

/// A model's parameters, gradients and floating-point buffers (batch statistics) moved into one
/// vector each, of which they become views: an optimiser step, a norm, an average or a copy then is
/// one pass over memory. The model must be on its device already and keep its shape afterwards.
class FlatParameters {
 public:
  /// Trainable parameters with at least two dimensions come first: weight decay is for them alone
  /// (norms, biases and other vectors are left out).
  explicit FlatParameters(Model& model);

  at::Tensor values;     ///< float32 [n]
  at::Tensor gradients;  ///< float32 [n], zero at first; backward() adds to it
  at::Tensor buffers;    ///< float32 [m], may be empty
  int64_t decayed = 0;   ///< values[0..decayed) are subject to weight decay
  /// Factors of the learning rate, float32 [n]; undefined: 1 for all.
  at::Tensor rates;

  /// What a pass forward and backward changes: the gradients, and statistics of all kinds.
  std::vector<at::Tensor> changed_by_passes() const;

  /// Names of what is trained, in the order of `values`.
  std::vector<std::string> trained_names() const;
  /// Sets `rates` from a factor for each name.
  void set_rates(const std::map<std::string, double>& rate_of);

  /// A state dictionary of the model with the vectors `values` and `buffers` in the places of its
  /// own; what is not floating-point is taken from the model. The result shares memory with both.
  std::map<std::string, at::Tensor> named(const at::Tensor& values,
                                          const at::Tensor& buffers) const;
  /// The reverse: fills the two vectors from a state dictionary of the same names.
  void gather(const std::map<std::string, at::Tensor>& state,
              at::Tensor& values,
              at::Tensor& buffers) const;

 private:
  struct Place {
    std::string name;
    bool is_buffer;
    int64_t offset;
    std::vector<int64_t> sizes;
  };
  std::vector<Place> places_;
  std::map<std::string, at::Tensor> others_;
};

/// AdamW with decoupled weight decay and bias correction, in one pass over flat vectors.
class AdamW {
 public:
  struct Settings {
    double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 1e-2;
  };
  AdamW(const FlatParameters& parameters, const Settings& settings);

  /// One step; gradients are multiplied by `gradient_scale` first (clipping, accumulation).
  void step(FlatParameters& parameters, double learning_rate, double gradient_scale);
  /// The same in one kernel of LibTorch's, which `step` takes on a GPU; for parameters without
  /// `rates`.
  void step_fused(FlatParameters& parameters, double learning_rate, double gradient_scale);

  at::Tensor first_moment, second_moment;  ///< float32 [n]
  int64_t steps = 0;

 private:
  Settings settings_;
};

/// Exponential moving average of values and buffers: average += (1 - d) * (current - average), with
/// d = min(decay, (1 + n) / (10 + n)) in update n = 1, 2, ... so that the start is forgotten soon.
class WeightAverage {
 public:
  /// `decay` 0: no averaging, the average is the current state.
  WeightAverage(const FlatParameters& parameters, double decay);

  void update(const FlatParameters& parameters);
  bool enabled() const { return decay_ > 0; }

  at::Tensor values, buffers;
  int64_t updates = 0;

 private:
  double decay_;
};

/// Puts the average in the model's place for as long as it lives.
class AverageInPlace {
 public:
  AverageInPlace(FlatParameters& parameters, const WeightAverage& average);
  ~AverageInPlace();
  AverageInPlace(const AverageInPlace&) = delete;
  AverageInPlace& operator=(const AverageInPlace&) = delete;

 private:
  FlatParameters& parameters_;
  at::Tensor values_, buffers_;
};

}  // namespace vireo
