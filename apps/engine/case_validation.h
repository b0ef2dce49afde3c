#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "apps/engine/evaluation.h"
#include "datasets/prepared_cache.h"

namespace vireo {

/// Predicts whole held-out cases of a prepared cache with a checkpoint, as `vireo predict` would,
/// scores them on the prepared grid, and writes `folder`/summary.json (atomically).
/// Throws Interrupted when the user asked to stop.
Summary validate_cases(const std::filesystem::path& checkpoint,
                       const PreparedCache& cache,
                       const std::vector<std::string>& cases,
                       at::Device device,
                       const std::filesystem::path& folder);

}  // namespace vireo
