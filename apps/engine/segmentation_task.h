#pragma once

#include <optional>
#include <vector>

#include "apps/engine/task.h"
#include "datasets/slice_batches.h"
#include "vision/losses/cross_entropy_dice.h"

namespace vireo {

/// Segmentation of slices: windows of prepared cases, cross-entropy and Dice, scored by the
/// pseudo-Dice, which is the Dice of each foreground class over all validated pixels at once.
class SegmentationTask : public Task {
 public:
  struct Settings {
    SliceBatchSettings batches;
    int64_t batches_per_epoch = 0;  ///< 0: as many as one pass over the slices needs
    Augmentation augmentation;
    CrossEntropyDice loss;
    int64_t validation_slices_per_case = 0;

    /// Reads [batches], [augment] and [loss] of the whole configuration.
    static Settings from_config(ConfigTable& config);
  };

  /// Both lists hold prepared cases with labels; `validation` may be empty.
  SegmentationTask(const Preparation& preparation,
                   std::vector<CachedCase> training,
                   std::vector<CachedCase> validation,
                   const Settings& settings);

  ModelShape model_shape() const override { return shape_; }
  int64_t batches_per_epoch() const override { return batches_per_epoch_; }
  Batch training_batch(int64_t index) const override { return training_.make(index); }
  at::Tensor loss(const at::Tensor& output, const Batch& batch) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override { return validation_->make(index); }
  void begin_validation() override;
  void add_validation(const at::Tensor& output, const Batch& batch) override;
  Validation end_validation() override;
  std::string data_digest() const override { return data_digest_; }
  std::map<std::string, std::string> checkpoint_metadata() const override;

 private:
  Preparation preparation_;
  Settings settings_;
  ModelShape shape_;
  std::string data_digest_;
  SliceBatches training_;
  std::optional<SliceTiles> validation_;
  int64_t batches_per_epoch_ = 0;
  at::Tensor confusion_;  ///< int64 [truth, prediction]
  double loss_sum_ = 0;
  int64_t loss_count_ = 0;
};

}  // namespace vireo
