#include "apps/engine/classifier.h"

#include <chrono>
#include <cmath>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "apps/engine/checkpoint.h"
#include "apps/engine/classified.h"
#include "apps/engine/device.h"
#include "apps/engine/trained_model.h"
#include "datasets/picture_batches.h"
#include "models/inference.h"
#include "vision/core/config_table.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/core/progress.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

int64_t TrainedClassifier::parameter_count() const {
  int64_t count = 0;
  for (const at::Tensor& parameter : model->parameters()) count += parameter.numel();
  return count;
}

bool is_classifier(const std::filesystem::path& checkpoint) {
  const auto metadata = SafetensorsFile::open(checkpoint).metadata();
  const auto task = metadata.find("task");
  return task != metadata.end() && task->second == "classification";
}

TrainedClassifier load_classifier(const std::filesystem::path& path) {
  const Checkpoint checkpoint = read_checkpoint(path);
  const auto text = [&](const std::string& key) -> const std::string& {
    const auto found = checkpoint.metadata.find(key);
    if (found == checkpoint.metadata.end())
      throw DataError(
          path, "has no \"" + key + "\" in its metadata: it is no checkpoint of a classifier");
    return found->second;
  };
  TrainedClassifier trained;
  try {
    const auto json = [&](const std::string& key) { return parse_json(text(key), path); };
    trained.preprocessing = PicturePreprocessing::from_json(json("picture"), path.string());
    trained.class_names = json("classes").get<std::vector<std::string>>();
    trained.multi_label = json("multi_label").get<bool>();
    trained.model_name =
        ConfigTable::from_text(text("model"), path.string() + " (model)").text("name");
  } catch (const nlohmann::json::exception& error) {
    throw DataError(path, std::string("has broken metadata: ") + error.what());
  }
  trained.model = network_of(checkpoint, path);
  if (trained.model->class_count() != static_cast<int64_t>(trained.class_names.size()))
    throw DataError(path, "names another number of classes than its network has");
  return trained;
}

ClassificationRun classify(const TrainedClassifier& classifier,
                           const PictureSet& set,
                           const std::vector<int64_t>& items,
                           at::Device device,
                           int64_t batch_size,
                           int64_t threads,
                           Arithmetic precision) {
  const at::NoGradGuard no_grad;
  const auto network = prepare_for_inference(classifier.model, precision);
  const PictureRows rows(set, items, classifier.preprocessing, batch_size);
  BatchLoader batches([&](int64_t i) { return rows.make(i); },
                      0,
                      rows.batch_count(),
                      choose_batch_threads(threads, device),
                      4);
  ClassificationRun run;
  const InterruptGuard guard;
  Progress progress("classify", static_cast<int64_t>(items.size()));
  const Clock::time_point start = Clock::now();
  for (int64_t i = 0; i < rows.batch_count(); ++i) {
    throw_if_interrupted("nothing was written");
    const Batch batch = batches.next();
    const Clock::time_point before = Clock::now();
    append_logits(network->forward(batch.image.to(device)), run.logits);
    run.network_seconds += seconds_since(before);
    progress.advance(batch.image.size(0));
  }
  run.seconds = seconds_since(start);
  run.waiting_seconds = batches.seconds_waited();
  for (const double logit : run.logits)
    if (!std::isfinite(logit))
      throw Error("the network's answers are not finite numbers; its weights are damaged");
  return run;
}

}  // namespace vireo
