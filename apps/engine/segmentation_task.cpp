#include "apps/engine/segmentation_task.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "vision/core/error.h"
#include "vision/core/sha256.h"

namespace vireo {

namespace {

std::string digest_of(const std::vector<CachedCase>& training,
                      const std::vector<CachedCase>& validation) {
  Sha256 digest;
  for (const auto* part : {&training, &validation}) {
    for (const CachedCase& one : *part) {
      const std::string line = one.name + "\t" + one.sha256 + "\n";
      digest.update(line.data(), line.size());
    }
    digest.update("\n", 1);
  }
  return digest.hex_digest();
}

}  // namespace

SegmentationTask::Settings SegmentationTask::Settings::from_config(ConfigTable& config) {
  Settings s;
  ConfigTable batches = config.table("batches");
  const auto window = batches.integers("window", {224, 224}, 2);
  if (window[0] < 1 || window[1] < 1)
    batches.fail("window", "expected [height, width] of at least 1 pixel");
  s.batches.window_yx = {window[0], window[1]};
  s.batches.neighbours = batches.integer("neighbours", 0, 0, 64);
  s.batches.batch_size = batches.integer("batch_size", 24, 1, 100'000);
  s.batches.foreground_fraction = batches.number("foreground_fraction", 0.33, 0, 1);
  s.batches_per_epoch = batches.integer("batches_per_epoch", 0, 0);
  s.augmentation = Augmentation::from_config(config.table("augment"));
  ConfigTable loss = config.table("loss");
  s.loss.cross_entropy_weight = loss.number("cross_entropy", s.loss.cross_entropy_weight, 0, 1e6);
  s.loss.dice_weight = loss.number("dice", s.loss.dice_weight, 0, 1e6);
  s.loss.batch_dice = loss.boolean("batch_dice", s.loss.batch_dice);
  if (s.loss.cross_entropy_weight + s.loss.dice_weight <= 0)
    loss.fail("", "both weights are 0: nothing would be learned");
  return s;
}

SegmentationTask::SegmentationTask(const Preparation& preparation,
                                   std::vector<CachedCase> training,
                                   std::vector<CachedCase> validation,
                                   const Settings& settings)
    : preparation_(preparation),
      settings_(settings),
      data_digest_(digest_of(training, validation)),
      training_(std::move(training), settings.batches, settings.augmentation) {
  const int64_t channels = static_cast<int64_t>(preparation.channels.size());
  shape_ = {channels * (2 * settings.batches.neighbours + 1), preparation.class_count()};
  const int64_t size = settings.batches.batch_size;
  batches_per_epoch_ = settings.batches_per_epoch > 0 ? settings.batches_per_epoch
                                                      : (training_.slice_count() + size - 1) / size;
  if (!validation.empty())
    validation_.emplace(
        std::move(validation), settings.batches, settings.validation_slices_per_case);
}

at::Tensor SegmentationTask::loss(const at::Tensor& output, const Batch& batch) const {
  return cross_entropy_dice(output, batch.target, settings_.loss).total;
}

int64_t SegmentationTask::validation_batches() const {
  return validation_ ? validation_->batch_count() : 0;
}

void SegmentationTask::begin_validation() {
  confusion_ = at::zeros({shape_.class_count, shape_.class_count}, at::kLong);
  loss_sum_ = 0;
  loss_count_ = 0;
}

void SegmentationTask::add_validation(const at::Tensor& output, const Batch& batch) {
  const at::Tensor counted = batch.target.ne(kIgnoredPixel);
  const at::Tensor truth = batch.target.masked_select(counted).to(at::kLong);
  const at::Tensor prediction = output.argmax(1).masked_select(counted);
  confusion_ +=
      at::bincount(
          truth * shape_.class_count + prediction, {}, shape_.class_count * shape_.class_count)
          .view_as(confusion_)
          .cpu();
  const int64_t size = batch.target.size(0);
  loss_sum_ += loss(output, batch).item<double>() * static_cast<double>(size);
  loss_count_ += size;
}

Validation SegmentationTask::end_validation() {
  const auto counts = confusion_.accessor<int64_t, 2>();
  const at::Tensor truths = confusion_.sum(1), predictions = confusion_.sum(0);
  Validation result;
  double sum = 0;
  int64_t scored = 0;
  for (int64_t k = 1; k < shape_.class_count; ++k) {
    const auto size = truths[k].item<double>() + predictions[k].item<double>();
    // A class that is neither there nor predicted says nothing.
    if (size == 0) continue;
    const double dice = 2 * static_cast<double>(counts[k][k]) / size;
    result.values["pseudo_dice/" + preparation_.labels[static_cast<size_t>(k)].name] = dice;
    sum += dice;
    ++scored;
  }
  result.score =
      scored > 0 ? sum / static_cast<double>(scored) : std::numeric_limits<double>::quiet_NaN();
  result.values["pseudo_dice"] = result.score;
  result.values["validation_loss"] =
      loss_sum_ / static_cast<double>(std::max<int64_t>(1, loss_count_));
  char text[48];
  std::snprintf(text, sizeof text, "pseudo-Dice %.4f", result.score);
  result.text = text;
  return result;
}

std::map<std::string, std::string> SegmentationTask::checkpoint_metadata() const {
  const std::array<bool, 2> mirrored{settings_.augmentation.mirror_y > 0,
                                     settings_.augmentation.mirror_x > 0};
  return {{"task", "segmentation"},
          {"preparation", preparation_.to_json().dump()},
          {"window_yx", nlohmann::json(settings_.batches.window_yx).dump()},
          {"neighbours", std::to_string(settings_.batches.neighbours)},
          {"mirrored_yx", nlohmann::json(mirrored).dump()}};
}

}  // namespace vireo
