#include "apps/engine/case_validation.h"

#include <nlohmann/json.hpp>

#include "apps/engine/sliding_window.h"
#include "apps/engine/trained_model.h"
#include "models/inference.h"
#include "vision/core/atomic_file.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/core/progress.h"

namespace vireo {

Summary validate_cases(const std::filesystem::path& checkpoint,
                       const PreparedCache& cache,
                       const std::vector<std::string>& cases,
                       at::Device device,
                       const std::filesystem::path& folder) {
  std::vector<TrainedModel> models{load_trained_model(checkpoint)};
  models[0].model->to(device);
  models[0].model = prepare_for_inference(models[0].model);
  InferenceOptions inference;
  inference.device = device;

  // Prepared labels hold class numbers, not the values of the label files.
  std::vector<ScoredClass> classes;
  const auto& labels = cache.preparation().labels;
  for (size_t k = 1; k < labels.size(); ++k)
    classes.push_back({labels[k].name, {static_cast<int64_t>(k)}});

  std::vector<CaseScores> scores;
  Progress bar("validate", static_cast<int64_t>(cases.size()));
  for (const std::string& name : cases) {
    throw_if_interrupted("stopped during validation; give the same command again to repeat it");
    const CachedCase truth = cache.load(name);
    const at::Tensor prediction = predict_labels(models, truth.image, inference);
    const at::Tensor counted = truth.labels.ne(kIgnoredClass);
    scores.push_back(
        score_case(name, prediction * counted, truth.labels * counted, truth.geometry, classes));
    scores.back().prediction_file = scores.back().reference_file = name;
    bar.advance();
  }
  bar.finish();
  const Summary summary = summarize(std::move(scores), classes);
  write_text_atomically(folder / "summary.json", json_document(to_summary_json(summary)));
  return summary;
}

}  // namespace vireo
