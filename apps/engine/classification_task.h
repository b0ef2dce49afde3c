#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/engine/task.h"
#include "datasets/picture_batches.h"

namespace vireo {

/// Classification of pictures: cross entropy with soft targets (multi-label: binary cross entropy
/// of every label), scored on held-out pictures by accuracy or area under the ROC curve.
class ClassificationTask : public Task {
 public:
  enum class ClassWeights { kNone, kInverse, kSquareRoot };
  enum class Score { kAccuracy, kBalancedAccuracy, kAuroc };

  struct Settings {
    PicturePreprocessing preprocessing;
    PictureBatchSettings batches;
    int64_t validation_batch_size = 0;  ///< 0: as in training
    int64_t batches_per_epoch = 0;      ///< 0: as many as one pass over the pictures needs
    PictureAugmentation augmentation;
    /// Weights of the classes in the loss: one over their share of the training pictures, or the
    /// square root of that, with mean 1 over the training pictures.
    ClassWeights class_weights = ClassWeights::kNone;
    Score score = Score::kAccuracy;

    /// Reads [picture], [batches], [augment], [loss] and `score` of [validation].
    static Settings from_config(ConfigTable& config);
  };

  /// `set` must outlive the task; `validation` may be empty.
  ClassificationTask(const PictureSet& set,
                     const std::vector<int64_t>& training,
                     const std::vector<int64_t>& validation,
                     Settings settings);

  ModelShape model_shape() const override;
  int64_t batches_per_epoch() const override { return batches_per_epoch_; }
  Batch training_batch(int64_t index) const override { return training_.make(index); }
  at::Tensor loss(const at::Tensor& output, const Batch& batch) const override;
  int64_t validation_batches() const override;
  Batch validation_batch(int64_t index) const override { return validation_.make(index); }
  void begin_validation() override;
  void add_validation(const at::Tensor& output, const Batch& batch) override;
  Validation end_validation() override;
  std::string data_digest() const override { return data_digest_; }
  std::map<std::string, std::string> checkpoint_metadata() const override;

  /// What validation collected last, by which a temperature can be fitted.
  const PicturePreprocessing& preprocessing() const { return settings_.preprocessing; }

 private:
  const PictureSet& set_;
  Settings settings_;
  PictureBatches training_;
  PictureRows validation_;
  int64_t batches_per_epoch_ = 0;
  std::string data_digest_;
  at::Tensor class_weights_;  ///< [K]; undefined: none
  std::vector<double> logits_;
};

}  // namespace vireo
