#include "apps/engine/classification_task.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "apps/engine/classified.h"
#include "vision/core/error.h"
#include "vision/core/sha256.h"
#include "vision/metrics/classification_scores.h"

namespace vireo {
namespace {

using Settings = ClassificationTask::Settings;

Settings with_statistics(Settings settings, const PictureSet& set) {
  settings.preprocessing.take_statistics(set.mean, set.sd);
  return settings;
}

// Single-label: by the classes' frequencies, with mean 1 over the training pictures. Multi-label:
// of a label that is there against one that is not.
at::Tensor weights_of(const PictureSet& set,
                      const std::vector<int64_t>& training,
                      ClassificationTask::ClassWeights kind) {
  if (kind == ClassificationTask::ClassWeights::kNone) return {};
  const auto count = static_cast<double>(training.size());
  std::vector<double> weights;
  double mean = 0;
  for (const int64_t size : class_sizes(set, training)) {
    const auto n = static_cast<double>(size);
    const double inverse = size == 0 ? 0 : (set.multi_label ? count - n : count) / n;
    weights.push_back(kind == ClassificationTask::ClassWeights::kInverse ? inverse
                                                                         : std::sqrt(inverse));
    mean += weights.back() * n / count;
  }
  if (!set.multi_label)
    for (double& weight : weights) weight /= mean;
  return at::tensor(weights, at::kDouble).to(at::kFloat);
}

}  // namespace

Settings ClassificationTask::Settings::from_config(ConfigTable& config) {
  Settings s;
  s.preprocessing = PicturePreprocessing::from_config(config.table("picture"));
  ConfigTable batches = config.table("batches");
  s.batches.batch_size = batches.integer("batch_size", 64, 1, 100'000);
  s.validation_batch_size = batches.integer("validation_batch_size", 0, 0, 100'000);
  s.batches_per_epoch = batches.integer("batches_per_epoch", 0, 0);
  s.batches.balanced = batches.choice("sampling", "pictures", {"pictures", "classes"}) == "classes";
  s.augmentation = PictureAugmentation::from_config(config.table("augment"));
  ConfigTable loss = config.table("loss");
  s.batches.label_smoothing = loss.number("label_smoothing", 0, 0, 0.99);
  const std::string weights =
      loss.choice("class_weights", "none", {"none", "inverse", "square_root"});
  s.class_weights = weights == "inverse"       ? ClassWeights::kInverse
                    : weights == "square_root" ? ClassWeights::kSquareRoot
                                               : ClassWeights::kNone;
  const std::string score =
      config.table("validation")
          .choice("score", "accuracy", {"accuracy", "balanced_accuracy", "auroc"});
  s.score = score == "auroc"               ? Score::kAuroc
            : score == "balanced_accuracy" ? Score::kBalancedAccuracy
                                           : Score::kAccuracy;
  return s;
}

namespace {

std::string digest_of(const PictureSet& set,
                      const std::vector<int64_t>& training,
                      const std::vector<int64_t>& validation) {
  Sha256 digest;
  for (const auto* part : {&training, &validation}) {
    for (const int64_t item : *part) {
      std::string line = set.items[static_cast<size_t>(item)].name;
      for (int64_t label = 0; label < set.class_count(); ++label)
        if (set.holds(item, label)) line += "\t" + std::to_string(label);
      line += "\n";
      digest.update(line.data(), line.size());
    }
    digest.update("\n", 1);
  }
  return digest.hex_digest();
}

}  // namespace

ClassificationTask::ClassificationTask(const PictureSet& set,
                                       const std::vector<int64_t>& training,
                                       const std::vector<int64_t>& validation,
                                       Settings settings)
    : set_(set),
      settings_(with_statistics(std::move(settings), set)),
      training_(set, training, settings_.preprocessing, settings_.augmentation, settings_.batches),
      validation_(set,
                  validation,
                  settings_.preprocessing,
                  settings_.validation_batch_size > 0 ? settings_.validation_batch_size
                                                      : settings_.batches.batch_size),
      data_digest_(digest_of(set, training, validation)),
      class_weights_(weights_of(set, training, settings_.class_weights)) {
  const int64_t size = settings_.batches.batch_size;
  batches_per_epoch_ = settings_.batches_per_epoch > 0
                           ? settings_.batches_per_epoch
                           : (training_.picture_count() + size - 1) / size;
}

ModelShape ClassificationTask::model_shape() const {
  return {set_.channels, set_.class_count()};
}

at::Tensor ClassificationTask::loss(const at::Tensor& output, const Batch& batch) const {
  if (output.dim() != 2)
    throw Error(
        "the model gives an answer for every pixel; a classifier gives one per picture. "
        "Choose such a model, or task = \"segmentation\"");
  const at::Tensor logits = output.to(at::kFloat), &target = batch.target;
  const at::Tensor weights =
      class_weights_.defined() ? class_weights_.to(logits.device()) : class_weights_;
  if (set_.multi_label)
    return at::binary_cross_entropy_with_logits(logits, target, {}, weights, at::Reduction::Mean);
  at::Tensor per_class = target * at::log_softmax(logits, 1);
  if (weights.defined()) per_class = per_class * weights;
  return -per_class.sum() / static_cast<double>(target.size(0));
}

int64_t ClassificationTask::validation_batches() const {
  return validation_.batch_count();
}

void ClassificationTask::begin_validation() {
  logits_.clear();
}

void ClassificationTask::add_validation(const at::Tensor& output, const Batch&) {
  append_logits(output, logits_);
}

Validation ClassificationTask::end_validation() {
  Validation result;
  // A validation that was cut off scores nothing.
  if (logits_.size() != validation_.items().size() * set_.class_names.size()) {
    result.score = std::numeric_limits<double>::quiet_NaN();
    return result;
  }
  for (const double logit : logits_)
    if (!std::isfinite(logit)) {
      result.score = std::numeric_limits<double>::quiet_NaN();
      result.text = "the network's answers are not finite";
      return result;
    }
  ClassifiedSamples samples = truth_of(set_, validation_.items());
  samples.probabilities = probabilities_at(logits_, set_.class_count(), set_.multi_label);
  const OverallScores scores = ClassificationScorer(samples).scores().overall;
  result.values = {{"accuracy", scores.top1},
                   {"balanced_accuracy", scores.balanced_accuracy},
                   {"auroc", scores.macro_auroc},
                   {"validation_loss", scores.log_loss}};
  result.score = settings_.score == Score::kAuroc              ? scores.macro_auroc
                 : settings_.score == Score::kBalancedAccuracy ? scores.balanced_accuracy
                                                               : scores.top1;
  char text[64];
  std::snprintf(text, sizeof text, "accuracy %.4f AUROC %.4f", scores.top1, scores.macro_auroc);
  result.text = text;
  return result;
}

std::map<std::string, std::string> ClassificationTask::checkpoint_metadata() const {
  return {{"task", "classification"},
          {"picture", settings_.preprocessing.to_json().dump()},
          {"classes", nlohmann::json(set_.class_names).dump()},
          {"multi_label", set_.multi_label ? "true" : "false"},
          {"dataset", set_.name}};
}

}  // namespace vireo
