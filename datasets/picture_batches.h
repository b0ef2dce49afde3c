#pragma once

#include <cstdint>
#include <vector>

#include "datasets/batches.h"
#include "datasets/picture_set.h"
#include "datasets/picture_transforms.h"

namespace vireo {

struct PictureBatchSettings {
  int64_t batch_size = 0;
  /// Draw every class equally often (multi-label: every label's pictures), instead of every picture
  /// once before any comes again.
  bool balanced = false;
  double label_smoothing = 0;
  uint64_t seed = 0;
};

/// Training batches. image float32 [B, C, H, W], target float32 [B, K]: probabilities of the
/// classes, soft where labels are smoothed or pictures mixed. Thread-safe; every batch is a
/// function of the settings and its index. A picture that cannot be read any more is warned about
/// once and replaced by the next one.
class PictureBatches {
 public:
  /// Throws Error when `items` is empty.
  PictureBatches(const PictureSet& set,
                 std::vector<int64_t> items,
                 const PicturePreprocessing& preprocessing,
                 const PictureAugmentation& augmentation,
                 const PictureBatchSettings& settings);

  Batch make(int64_t index) const;
  int64_t picture_count() const { return static_cast<int64_t>(items_.size()); }

 private:
  int64_t choose(int64_t sample, Random& random) const;

  const PictureSet& set_;
  std::vector<int64_t> items_;
  PicturePreprocessing preprocessing_;
  PictureAugmentation augmentation_;
  PictureBatchSettings settings_;
  std::vector<std::vector<int64_t>> of_class_;  // of classes that occur
};

/// Every picture once, in order, without augmentation. The last batch may be smaller.
class PictureRows {
 public:
  PictureRows(const PictureSet& set,
              std::vector<int64_t> items,
              const PicturePreprocessing& preprocessing,
              int64_t batch_size);

  int64_t batch_count() const;
  Batch make(int64_t index) const;
  const std::vector<int64_t>& items() const { return items_; }

 private:
  const PictureSet& set_;
  std::vector<int64_t> items_;
  PicturePreprocessing preprocessing_;
  int64_t batch_size_;
};

/// How many of `items` hold each class.
std::vector<int64_t> class_sizes(const PictureSet& set, const std::vector<int64_t>& items);

}  // namespace vireo
