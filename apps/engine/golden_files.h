#pragma once

#include <nlohmann/json_fwd.hpp>

#include "apps/engine/golden.h"
#include "vision/core/safetensors.h"

// The kinds of golden files; verify_golden_file chooses.
namespace vireo {

GoldenReport verify_network(const SafetensorsFile& file,
                            const nlohmann::json& golden,
                            Precision precision);
GoldenReport verify_operators(const SafetensorsFile& file, const nlohmann::json& golden);
/// `golden` may come from the file's metadata or from a JSON file beside it.
GoldenReport verify_scores(const SafetensorsFile& file, const nlohmann::json& golden);
GoldenReport verify_schedules(const nlohmann::json& golden);

}  // namespace vireo
