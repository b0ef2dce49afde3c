#include "datasets/picture_batches.h"

#include <algorithm>
#include <mutex>
#include <set>

#include <ATen/ATen.h>

#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {
namespace {

// The target of one picture: with smoothing, a share of it goes to all classes alike (multi-label:
// every label moves towards a half).
void write_target(const PictureSet& set, int64_t item, double smoothing, float* out) {
  const int64_t classes = set.class_count();
  const double floor = set.multi_label ? smoothing / 2 : smoothing / static_cast<double>(classes);
  for (int64_t k = 0; k < classes; ++k)
    out[k] = static_cast<float>((set.holds(item, k) ? 1 - smoothing : 0) + floor);
}

void warn_once(const std::string& message) {
  static std::mutex mutex;
  static std::set<std::string> warned;
  const std::lock_guard lock(mutex);
  if (warned.insert(message).second) log_warning(message + "; another picture takes its place");
}

Batch empty_batch(const PictureSet& set, const PicturePreprocessing& preprocessing, int64_t size) {
  return {at::empty(
              {size, preprocessing.channels(), preprocessing.size_yx[0], preprocessing.size_yx[1]},
              at::kFloat),
          at::empty({size, set.class_count()}, at::kFloat)};
}

}  // namespace

std::vector<int64_t> class_sizes(const PictureSet& set, const std::vector<int64_t>& items) {
  std::vector<int64_t> sizes(set.class_names.size());
  for (const int64_t item : items)
    for (size_t k = 0; k < sizes.size(); ++k) sizes[k] += set.holds(item, static_cast<int64_t>(k));
  return sizes;
}

PictureBatches::PictureBatches(const PictureSet& set,
                               std::vector<int64_t> items,
                               const PicturePreprocessing& preprocessing,
                               const PictureAugmentation& augmentation,
                               const PictureBatchSettings& settings)
    : set_(set),
      items_(std::move(items)),
      preprocessing_(preprocessing),
      augmentation_(augmentation),
      settings_(settings) {
  if (items_.empty()) throw Error("there is no picture to train on");
  if (!settings.balanced) return;
  for (int64_t k = 0; k < set.class_count(); ++k) {
    std::vector<int64_t> list;
    for (const int64_t item : items_)
      if (set.holds(item, k)) list.push_back(item);
    if (!list.empty()) of_class_.push_back(std::move(list));
  }
  if (of_class_.empty()) throw Error("no picture to train on has a label to balance by");
}

int64_t PictureBatches::choose(int64_t sample, Random& random) const {
  if (settings_.balanced) {
    const auto& list =
        of_class_[static_cast<size_t>(random.below(static_cast<int64_t>(of_class_.size())))];
    return list[static_cast<size_t>(random.below(static_cast<int64_t>(list.size())))];
  }
  const auto count = static_cast<uint64_t>(items_.size());
  const auto position = static_cast<uint64_t>(sample);
  const uint64_t key = Random({settings_.seed, 0x91C7ULL, position / count}).bits();
  return items_[shuffled_position(position % count, count, key)];
}

Batch PictureBatches::make(int64_t index) const {
  Batch batch = empty_batch(set_, preprocessing_, settings_.batch_size);
  float* image = batch.image.mutable_data_ptr<float>();
  float* target = batch.target.mutable_data_ptr<float>();
  for (int64_t b = 0; b < settings_.batch_size; ++b) {
    const int64_t sample = index * settings_.batch_size + b;
    Random random{settings_.seed, static_cast<uint64_t>(sample)};
    int64_t item = choose(sample, random);
    at::Tensor picture;
    for (int64_t tries = 0; !picture.defined(); ++tries) {
      try {
        picture = set_.picture(item);
      } catch (const DataError& error) {
        if (tries == 100) throw;
        warn_once(error.what());
        item = items_[static_cast<size_t>(random.below(picture_count()))];
      }
    }
    augment_picture(
        augmentation_, preprocessing_, picture, random, image + b * batch.image.stride(0));
    write_target(set_, item, settings_.label_smoothing, target + b * set_.class_count());
  }
  Random random{settings_.seed, 0x313DULL, static_cast<uint64_t>(index)};
  mix_batch(augmentation_, batch.image, batch.target, random);
  return batch;
}

PictureRows::PictureRows(const PictureSet& set,
                         std::vector<int64_t> items,
                         const PicturePreprocessing& preprocessing,
                         int64_t batch_size)
    : set_(set), items_(std::move(items)), preprocessing_(preprocessing), batch_size_(batch_size) {}

int64_t PictureRows::batch_count() const {
  return (static_cast<int64_t>(items_.size()) + batch_size_ - 1) / batch_size_;
}

Batch PictureRows::make(int64_t index) const {
  const int64_t first = index * batch_size_;
  const int64_t size = std::min(batch_size_, static_cast<int64_t>(items_.size()) - first);
  Batch batch = empty_batch(set_, preprocessing_, size);
  for (int64_t b = 0; b < size; ++b) {
    const int64_t item = items_[static_cast<size_t>(first + b)];
    preprocessing_.apply(set_.picture(item),
                         batch.image.mutable_data_ptr<float>() + b * batch.image.stride(0));
    write_target(set_, item, 0, batch.target.mutable_data_ptr<float>() + b * set_.class_count());
  }
  return batch;
}

}  // namespace vireo
