#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "apps/engine/task.h"
#include "apps/engine/training_config.h"

namespace vireo {

/// Where a run lives and what it is called back with.
struct TrainingRun {
  std::filesystem::path folder;
  std::string config_toml;  ///< the resolved configuration; a run goes on only with the same one
  std::string model_toml;   ///< the [model] table, complete
  bool restart = false;     ///< forget what the folder holds
  /// Called after each epoch with all epochs' records, for example to draw them.
  std::function<void(const nlohmann::json& history)> epoch_done;
};

struct TrainingResult {
  int64_t epochs = 0;        ///< completed
  double best_score = 0;     ///< of the weights in checkpoint_best; NaN without validation
  double seconds = 0;        ///< spent on training and validation, over all parts of the run
  double waiting_share = 0;  ///< of that time: waiting for batches
  std::string reason;        ///< why it ended
};

std::filesystem::path best_checkpoint(const std::filesystem::path& run_folder);
std::filesystem::path latest_checkpoint(const std::filesystem::path& run_folder);

/// The training loop. Writes config.toml, metrics.jsonl (a line per epoch), checkpoint_latest (with
/// everything needed to go on, and its predecessor) and checkpoint_best (with everything needed to
/// predict) into the run's folder, and goes on where an earlier process stopped. Every random
/// choice is a function of the seed and the iteration, so that a run which was cut off anywhere and
/// taken up again makes the same steps as one that was not.
///
/// Throws Interrupted after SIGINT or SIGTERM, with the state saved; Error when the loss stays
/// non-finite, when another process trains in the folder, or when the folder holds a run of another
/// configuration.
TrainingResult train(Task& task,
                     const std::shared_ptr<Model>& model,
                     const TrainingConfig& config,
                     const ValidationConfig& validation,
                     const TrainingRun& run);

}  // namespace vireo
