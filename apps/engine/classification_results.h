#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "vision/metrics/classification_scores.h"

// What `vireo evaluate` and `vireo predict` write about classified pictures. Needs no image files.
namespace vireo {

struct ClassificationResults {
  std::string model, data, part;
  std::vector<std::string> class_names;
  std::vector<std::string> names;  ///< of the pictures
  ClassifiedSamples samples;
  ClassificationOptions options;
  ClassificationScores scores;
  ScoreIntervals intervals;
  int64_t bootstrap_resamples = 0;

  /// Fitted on the validation part; nothing when there was none, or it is what is scored.
  std::optional<double> temperature;
  OverallScores at_temperature;  ///< ece, mce, brier and log_loss with it

  int64_t parameter_count = 0;
  std::array<int64_t, 2> size_yx{0, 0};
  double crop_share = 1;  ///< of the resized short side that is cut out
  std::string filter;
  double pictures_per_second = 0, network_pictures_per_second = 0;
  int64_t peak_memory_bytes = 0;
};

/// name[,truth],predicted,[probability of] each class. Without truth when there is none; several
/// labels are joined by "|".
std::string predictions_csv(const std::vector<std::string>& names,
                            const std::vector<std::string>& class_names,
                            const ClassifiedSamples& samples,
                            double decision = 0.5);

/// Every score with its interval, per class too; curves are left to the report.
nlohmann::ordered_json results_json(const ClassificationResults& results);

/// A header and a row: timm's columns (model, img_size, top1, top1_err, top5, top5_err,
/// param_count, crop_pct, interpolation; percentages, millions), then ours.
std::string results_csv(const ClassificationResults& results);

/// For the terminal.
std::string results_table(const ClassificationResults& results);

}  // namespace vireo
