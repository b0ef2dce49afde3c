#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

namespace vireo {

/// Draws what bench_scaling() found, side by side: time and memory per pixel over the image's area.
/// What is linear in the area is level.
void draw_scaling(const nlohmann::ordered_json& report, const std::filesystem::path& png);

}  // namespace vireo
