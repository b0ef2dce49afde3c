#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

namespace vireo {

/// A checkpoint is one safetensors file.
///   tensors    the model's under their own (published) names; in a checkpoint to go on from also
///              the averaged weights as "ema.NAME" and the optimiser's state as "optimizer.NAME"
///   metadata   "format" = "vireo-checkpoint", "format_version", "sha256" of all the rest, and:
///              "model" (TOML table), "model_shape", "config" (the run's resolved TOML),
///              "preparation", "window_yx", "neighbours", "mirrored_yx", "epoch", "iteration",
///              "best_score", "history", ... (JSON)
struct Checkpoint {
  std::map<std::string, at::Tensor> model;
  std::map<std::string, at::Tensor> average;    ///< stored under "ema."
  std::map<std::string, at::Tensor> optimizer;  ///< stored under "optimizer."
  std::map<std::string, std::string> metadata;
};

inline constexpr int64_t kCheckpointVersion = 1;

/// Writes atomically; format, format_version and sha256 are added to the metadata.
void write_checkpoint(const std::filesystem::path& path, const Checkpoint& checkpoint);

/// The same, and the file that was there remains as NAME.previous.safetensors. At every moment one
/// of the two is whole.
void write_checkpoint_keeping_previous(const std::filesystem::path& path,
                                       const Checkpoint& checkpoint);

/// Reads and verifies. Throws DataError for a file that is no checkpoint, of a newer format, or
/// whose content does not have the checksum that it states. The tensors are views of the mapped
/// file: clone before writing to them.
Checkpoint read_checkpoint(const std::filesystem::path& path);

std::filesystem::path previous_checkpoint(const std::filesystem::path& path);

/// `path`, or with a warning its predecessor where it is damaged or missing. Throws DataError when
/// neither can be read.
Checkpoint read_checkpoint_or_previous(const std::filesystem::path& path);

}  // namespace vireo
