#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "vision/metrics/segmentation_scores.h"

namespace vireo {

/// What `vireo evaluate` does with a segmenter and a data set's configuration.
struct CaseEvaluation {
  std::filesystem::path checkpoint, config, output;
  std::string part = "auto";  ///< train, val, test; auto: test where there is one, else val
  int64_t fold = 0;
  std::string device = "auto";
  ScoringOptions scoring;
  std::vector<double> spacing_zyx;  ///< instead of the files'; empty: theirs
  uint64_t seed = 1;
};

/// Segments the cases of one part of the data set, each on its own grid, scores them against the
/// data set's own truth, whatever files hold it, prints the scores and writes summary.json,
/// results.csv and report.html. Throws Error where model and data set do not go together.
void evaluate_cases(const CaseEvaluation& request);

}  // namespace vireo
