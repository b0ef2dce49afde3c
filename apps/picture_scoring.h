#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "apps/engine/classification_results.h"
#include "apps/engine/classifier.h"
#include "datasets/picture_set.h"

// What the verbs `evaluate` and `baseline` share: a classifier's answers, scored and written.
namespace vireo {

struct PictureScoring {
  /// A configuration (.toml), a prepared cache, or a data set as `vireo prepare` reads it.
  std::filesystem::path data;
  std::filesystem::path output;
  std::string part = "auto";  ///< train, val, test; auto: test where there is one, else val
  int64_t fold = 0, resamples = 2000;
  double specificity = 0.9;
  uint64_t seed = 1;
};

/// Opens the cache, prepared first where that has not been done. Throws DataError, ConfigError.
PictureSet open_scored_pictures(const PictureScoring& request);

/// Answers to pictures of a set, in the order of the items.
using PictureClassifier = std::function<ClassificationRun(const std::vector<int64_t>& items)>;

/// Scores the part that is asked for, the validation part too where a temperature is to be fitted,
/// prints the scores and writes results.json, results.csv, predictions.csv and report.html.
/// `results` says what the classifier is; the rest is filled in.
void score_pictures(const PictureScoring& request,
                    const PictureSet& set,
                    const PictureClassifier& classify,
                    ClassificationResults results);

}  // namespace vireo
