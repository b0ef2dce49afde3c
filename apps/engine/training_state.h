#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

namespace vireo {

/// Where a run stands, beside its tensors: what a checkpoint keeps as "training_state".
struct TrainingState {
  int64_t iteration = 0;  ///< optimiser steps, skipped ones included
  int64_t epoch = 0;      ///< completed and validated
  double seconds = 0;     ///< spent so far
  double waiting_seconds = 0;
  double best_score = 0;
  int64_t best_epoch = 0;    ///< 0: none yet
  double learning_rate = 0;  ///< of the last step
  std::string finished;      ///< why the run ended; empty while it goes on

  // Of the epoch that is going on.
  double loss_sum = 0, norm_sum = 0, epoch_seconds = 0;
  int64_t good_steps = 0, skipped_steps = 0;

  nlohmann::json history = nlohmann::json::array();  ///< one record per epoch

  std::string to_text() const;
  /// Throws DataError naming `source`.
  static TrainingState from_text(const std::string& text, const std::filesystem::path& source);
};

/// Adds an epoch's record to metrics.jsonl.
void append_metrics(const std::filesystem::path& file, const nlohmann::json& record);

/// Makes metrics.jsonl hold exactly these records: what a process that was cut off wrote after its
/// last checkpoint will be written again.
void rewrite_metrics(const std::filesystem::path& file, const nlohmann::json& history);

/// The lines in which two resolved configurations differ, leaving out the settings that may change
/// when a run goes on (length, patience, device, threads, validation at the end).
std::string config_difference(const std::string& before, const std::string& now);

}  // namespace vireo
