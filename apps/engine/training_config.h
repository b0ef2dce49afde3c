#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/engine/flat_parameters.h"
#include "apps/engine/schedule.h"
#include "vision/core/config_table.h"

namespace vireo {

/// The [train] table: what the training loop needs, whatever the task.
struct TrainingConfig {
  int64_t epochs = 100;
  double max_minutes = 0;  ///< 0: no budget. Counts validation, and all parts of a resumed run
  int64_t patience = 0;    ///< epochs without a better score before stopping; 0: never
  uint64_t seed = 12345;
  bool deterministic = false;
  int64_t fold = 0;
  std::string device = "auto";   ///< auto, cpu, cuda
  std::string autocast = "off";  ///< off, bf16
  bool channels_last = true;
  int64_t accumulate = 1;          ///< batches per optimiser step
  double gradient_clip = 1;        ///< largest norm of the gradient; 0: no clipping
  double ema_decay = 0.999;        ///< 0: no averaging
  int64_t bad_steps = 20;          ///< non-finite steps in a row before giving up
  double checkpoint_minutes = 10;  ///< also within an epoch; every epoch's end in any case
  int64_t threads = -1;            ///< that make batches; -1: chosen
  int64_t ahead = 6;               ///< batches made ahead
  /// The learning rate falls by this factor from layer to layer towards the input; 1: it does not.
  double layer_decay = 1;
  /// Weights to start from, a checkpoint or another safetensors file: of this network, made for any
  /// classes, or of its encoder (load_pretrained). Empty: at random.
  std::filesystem::path pretrained;
  Schedule schedule;
  AdamW::Settings optimizer;

  /// Throws ConfigError also for settings that exclude each other.
  static TrainingConfig from_config(ConfigTable table);
};

/// The [validation] table.
struct ValidationConfig {
  int64_t every_epochs = 1;
  int64_t slices_per_case = 0;  ///< 0: all
  /// best: the epoch with the highest score; last: the end of training (the score then takes no
  /// part in choosing the weights).
  bool select_best = true;
  bool whole_cases = true;  ///< predict and score whole held-out cases at the end

  static ValidationConfig from_config(ConfigTable table);
};

/// Where a run of the configuration at `config` leaves its files: runs/<path below configs, without
/// .toml>, with "fold_k" below it when a fold was asked for.
std::filesystem::path run_folder(const std::filesystem::path& config, int64_t fold_asked_for);

}  // namespace vireo
