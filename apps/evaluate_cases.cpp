#include <algorithm>
#include <iostream>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "apps/case_evaluation.h"
#include "apps/engine/device.h"
#include "apps/engine/evaluation.h"
#include "apps/engine/html_report.h"
#include "apps/engine/native_grid.h"
#include "apps/engine/sliding_window.h"
#include "apps/engine/trained_model.h"
#include "apps/engine/training_config.h"
#include "datasets/case_scan.h"
#include "datasets/fingerprint.h"
#include "datasets/source.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/image/orientation.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

DatasetSource open_source(const CaseEvaluation& request, DataConfig& config) {
  ConfigTable table = ConfigTable::from_file(request.config);
  if (table.choice("task", "segmentation", {"segmentation", "classification"}) != "segmentation")
    throw Error(request.config.string() + " is a classification's, and " +
                request.checkpoint.string() + " segments");
  config = DataConfig::from_table(table.table("data"), run_folder(request.config, -1));
  DatasetSource source = read_source(config);
  for (const std::string& note : source.notes) log_info(note);
  throw_problems(source);
  return source;
}

// The cases of the part that is asked for.
std::vector<SourceCase> chosen_cases(const CaseEvaluation& request,
                                     const DataConfig& config,
                                     const DatasetSource& source) {
  const bool has_test = !source.test_cases.empty();
  if (request.part == "test" && !has_test)
    throw DataError(source.folder, "has no test part beside its validation part; --part val");
  if (request.part == "test" || (request.part == "auto" && has_test)) return source.test_cases;
  const std::vector<Fold> folds = folds_of(config, source);
  if (request.fold >= static_cast<int64_t>(folds.size()))
    throw UsageError("--fold " + std::to_string(request.fold) +
                     " does not exist: the data set has " + std::to_string(folds.size()) +
                     ", numbered from 0");
  const Fold& fold = folds[static_cast<size_t>(request.fold)];
  const auto& names = request.part == "train" ? fold.train : fold.val;
  std::vector<SourceCase> cases;
  for (const SourceCase& one : source.cases)
    if (std::find(names.begin(), names.end(), one.name) != names.end()) cases.push_back(one);
  return cases;
}

void check_labels(const Preparation& preparation, const DatasetSource& source) {
  const auto names = [](const std::vector<Label>& labels) {
    std::string text;
    for (const Label& label : labels) text += (text.empty() ? "" : ", ") + label.name;
    return text;
  };
  if (names(preparation.labels) != names(source.labels))
    throw Error("the model knows the classes " + names(preparation.labels) + "; the data set has " +
                names(source.labels));
}

// What the model says of a case and what is true, as label values on the file's grid, turned as the
// network sees it.
struct Answer {
  at::Tensor prediction, truth;  // [Z, Y, X]
  Geometry grid;
};

Answer answer(const std::vector<TrainedModel>& models,
              const SourceCase& one,
              const InferenceOptions& inference) {
  const Preparation& preparation = models[0].preparation;
  const RawCase raw = read_case(one);
  const Reorientation turn = reorientation(raw.image.geometry, preparation.orientation_xyz);
  const Volume image = reoriented(raw.image, turn), truth = reoriented(raw.labels, turn);
  const PreparedCase prepared = prepare_case(one.name, image, std::nullopt, preparation);
  const auto& order = prepared.axis_order;
  std::array<int64_t, 3> target{}, inverse{};
  for (int64_t i = 0; i < 3; ++i) {
    target[i] = image.geometry.size_zyx[order[i]];
    inverse[order[i]] = i;
  }
  NativeGrid grid(prepared.geometry.size_zyx, target);
  predict_probabilities(
      models, prepared.image, inference, [&](int64_t first, const at::Tensor& probabilities) {
        grid.add(first, probabilities);
      });
  std::vector<int64_t> values;
  for (const Label& label : preparation.labels) values.push_back(label.value);
  const at::Tensor classes = grid.labels().permute(inverse).contiguous();
  const at::Tensor found =
      at::tensor(values, at::kInt).index_select(0, classes.flatten().to(at::kLong));
  return {found.view(classes.sizes()), truth.values[0], image.geometry};
}

}  // namespace

void evaluate_cases(const CaseEvaluation& request) {
  DataConfig config;
  const DatasetSource source = open_source(request, config);
  std::vector<TrainedModel> models{load_trained_model(request.checkpoint)};
  const Preparation& preparation = models[0].preparation;
  check_labels(preparation, source);
  InferenceOptions inference;
  inference.device = choose_device(request.device);
  models[0].model->to(inference.device);

  ScoringOptions scoring = request.scoring;
  scoring.ignore_value = preparation.ignore_value;
  std::vector<ScoredClass> classes;
  for (size_t k = 1; k < preparation.labels.size(); ++k)
    classes.push_back({preparation.labels[k].name, {preparation.labels[k].value}});

  const std::vector<SourceCase> cases = chosen_cases(request, config, source);
  const InterruptGuard guard;
  Progress progress("evaluate", static_cast<int64_t>(cases.size()));
  std::vector<CaseScores> scores;
  for (const SourceCase& one : cases) {
    throw_if_interrupted("nothing was written");
    const Answer found = answer(models, one, inference);
    Geometry grid = found.grid;
    if (!request.spacing_zyx.empty())
      std::copy_n(request.spacing_zyx.begin(), 3, grid.spacing_mm_zyx.begin());
    scores.push_back(score_case(one.name, found.prediction, found.truth, grid, classes, scoring));
    scores.back().prediction_file = request.checkpoint.string();
    scores.back().reference_file = one.labels.string();
    progress.advance();
  }
  progress.finish();
  const Summary summary = summarize(std::move(scores), classes, scoring, request.seed);
  write_text_atomically(request.output / "results.csv", to_csv(summary));
  write_text_atomically(
      request.output / "report.html",
      to_html(summary,
              {"Segmentation scores", request.checkpoint.string(), source.folder.string()},
              {}));
  write_text_atomically(request.output / "summary.json", to_summary_json(summary).dump(2) + "\n");
  std::cout << to_table(summary) << "summary.json, results.csv, report.html in "
            << request.output.string() << "\n";
}

}  // namespace vireo
