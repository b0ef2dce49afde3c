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
#include "datasets/prepared_slices.h"
#include "datasets/source.h"
#include "models/inference.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
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

// What the models say of an image, as label values [Z, Y, X] on the file's grid.
at::Tensor segmented(const std::vector<TrainedModel>& models,
                     const std::string& name,
                     const Volume& image,
                     const InferenceOptions& inference) {
  const Preparation& preparation = models[0].preparation;
  const PreparedSlices slices(
      name, image, reorientation(image.geometry, preparation.orientation_xyz), preparation);
  NativeGrid grid(slices.geometry().size_zyx, slices.stored_size());
  const SliceSource source{slices.channels(),
                           slices.geometry().size_zyx,
                           [&](int64_t first, int64_t count) { return slices.read(first, count); }};
  predict_probabilities(
      models, source, inference, [&](int64_t first, const at::Tensor& probabilities) {
        grid.add(first, probabilities);
      });
  const at::Tensor classes = reoriented(grid.labels(), slices.axes().inverse()).contiguous();
  std::vector<int64_t> values;
  for (const Label& label : preparation.labels) values.push_back(label.value);
  return at::tensor(values, at::kInt)
      .index_select(0, classes.flatten().to(at::kLong))
      .view(classes.sizes());
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
  models[0].model = prepare_for_inference(models[0].model);

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
    const RawCase raw = read_case(one);
    const at::Tensor prediction = segmented(models, one.name, raw.image, inference);
    Geometry grid = raw.image.geometry;
    if (!request.spacing_zyx.empty())
      std::copy_n(request.spacing_zyx.begin(), 3, grid.spacing_mm_zyx.begin());
    scores.push_back(
        score_case(one.name, prediction, raw.labels.values[0], grid, classes, scoring));
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
  write_text_atomically(request.output / "summary.json", json_document(to_summary_json(summary)));
  std::cout << to_table(summary) << "summary.json, results.csv, report.html in "
            << request.output.string() << "\n";
}

}  // namespace vireo
