#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string>

#include "apps/engine/checkpoint.h"
#include "datasets/preparation.h"
#include "models/registry.h"

namespace vireo {

/// Everything that prediction needs, read from one checkpoint file.
struct TrainedModel {
  std::shared_ptr<Model>
      model;  ///< in eval mode, with the averaged (EMA) weights where they were kept
  Preparation preparation;
  std::array<int64_t, 2> window_yx{0, 0};  ///< the slice size that the network was trained at
  int64_t neighbours =
      0;  ///< 2.5-D: slices on each side that come in as channels; slices beyond the end repeat
  std::array<bool, 2> mirrored_yx{false, false};  ///< axes that training flipped, and TTA may
  std::string config_toml;                        ///< the run's resolved configuration
  /// What the network's activations take per pixel in inference, where measured; 0: unknown.
  int64_t activation_bytes_per_pixel = 0;
};

/// The network of a checkpoint that was read from `path`, whatever its task: in eval mode, with the
/// averaged weights where they were kept. Throws DataError where its metadata do not tell which.
std::shared_ptr<Model> network_of(const Checkpoint& checkpoint, const std::filesystem::path& path);

/// Throws DataError for a file that is no checkpoint, broken, or of a newer format.
TrainedModel load_trained_model(const std::filesystem::path& checkpoint);

}  // namespace vireo
