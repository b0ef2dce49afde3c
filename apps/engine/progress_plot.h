#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

namespace vireo {

/// Draws a run's records (metrics.jsonl) as one picture: loss of training and validation, the score
/// and its classes, the learning rate, and the time that epochs took.
void draw_progress(const nlohmann::json& history, const std::filesystem::path& png);

}  // namespace vireo
