#include "apps/picture_scoring.h"

#include <iostream>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "apps/engine/classification_report.h"
#include "apps/engine/classified.h"
#include "apps/engine/training_config.h"
#include "datasets/picture_reader.h"
#include "datasets/prepare_pictures.h"
#include "kernels/process_memory.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kWrongPictures = 24;
constexpr int64_t kThumbnailPx = 220;

std::vector<int64_t> items_of(const PictureSet& set, const std::string& part, int64_t fold) {
  return part == "test"  ? set.test_items()
         : part == "val" ? set.validation_items(fold)
                         : set.training_items(fold);
}

Canvas canvas_of(const at::Tensor& picture) {
  const at::Tensor planes = picture.permute({2, 0, 1}).contiguous();
  Canvas canvas =
      planes.size(0) == 1 ? Canvas::from_gray(planes[0], 0, 255) : Canvas::from_rgb(planes, 0, 255);
  const double scale = static_cast<double>(kThumbnailPx) /
                       static_cast<double>(std::max(canvas.width(), canvas.height()));
  const auto scaled = [&](int64_t side) {
    return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(side) * scale));
  };
  return canvas.resized(scaled(canvas.width()), scaled(canvas.height()));
}

std::vector<WrongPicture> wrong_pictures(const ClassificationResults& results,
                                         const PictureSet& set,
                                         const std::vector<int64_t>& items) {
  const ClassificationScorer scorer(results.samples, results.options);
  std::vector<WrongPicture> pictures;
  for (const int64_t i : most_wrong(scorer, kWrongPictures)) {
    const auto at = static_cast<size_t>(i);
    const auto truth = static_cast<size_t>(results.samples.truth[at]);
    pictures.push_back({results.names[at],
                        results.class_names[truth],
                        results.class_names[static_cast<size_t>(scorer.predicted(i))],
                        results.samples.probabilities[at * results.class_names.size() + truth],
                        canvas_of(set.picture(items[at]))});
  }
  return pictures;
}

// The temperature of the validation part, and what calibration is with it.
void calibrate(const PictureScoring& request,
               const PictureSet& set,
               const PictureClassifier& classify,
               const std::vector<double>& logits,
               ClassificationResults& results) {
  const auto held_out = set.validation_items(request.fold);
  if (held_out.empty() || results.part == "val") return;
  results.temperature = fit_temperature(classify(held_out).logits, truth_of(set, held_out));
  ClassifiedSamples samples = results.samples;
  samples.probabilities =
      probabilities_at(logits, samples.class_count, samples.multi_label(), *results.temperature);
  results.at_temperature = ClassificationScorer(samples, results.options).scores().overall;
}

}  // namespace

PictureSet open_scored_pictures(const PictureScoring& request) {
  if (is_picture_cache(request.data))
    return open_picture_cache(request.data, read_classified_picture);
  PictureDataConfig config;
  if (request.data.extension() == ".toml") {
    ConfigTable table = ConfigTable::from_file(request.data);
    if (table.choice("task", "segmentation", {"segmentation", "classification"}) !=
        "classification")
      throw DataError(request.data, "describes a segmentation; a classification was expected");
    config = PictureDataConfig::from_table(table.table("data"), run_folder(request.data, -1));
  } else {
    config.folder = request.data;
    config.cache = request.output / "prepared";
  }
  if (fs::exists(config.folder) || !is_picture_cache(config.cache)) prepare_pictures(config);
  return open_picture_cache(config.cache, read_classified_picture);
}

void score_pictures(const PictureScoring& request,
                    const PictureSet& set,
                    const PictureClassifier& classify,
                    ClassificationResults results) {
  results.part = request.part != "auto" ? request.part : set.test_items().empty() ? "val" : "test";
  const std::vector<int64_t> items = items_of(set, results.part, request.fold);
  if (items.empty()) throw DataError(request.data, "has no pictures in its part " + results.part);
  const ClassificationRun run = classify(items);
  const auto count = static_cast<double>(items.size());
  results.data = set.name;
  results.class_names = set.class_names;
  for (const int64_t item : items)
    results.names.push_back(set.items[static_cast<size_t>(item)].name);
  results.samples = truth_of(set, items);
  results.samples.probabilities = probabilities_at(run.logits, set.class_count(), set.multi_label);
  results.options.specificity = request.specificity;
  results.pictures_per_second = count / run.seconds;
  results.network_pictures_per_second = count / run.network_seconds;
  calibrate(request, set, classify, run.logits, results);

  const ClassificationScorer scorer(results.samples, results.options);
  results.scores = scorer.scores();
  results.bootstrap_resamples = request.resamples;
  results.intervals = bootstrap_scores(scorer, request.seed, request.resamples);
  results.peak_memory_bytes = peak_memory_bytes();

  const fs::path& output = request.output;
  write_text_atomically(output / "predictions.csv",
                        predictions_csv(results.names, results.class_names, results.samples));
  write_text_atomically(output / "results.csv", results_csv(results));
  write_text_atomically(output / "report.html",
                        to_html(results, wrong_pictures(results, set, items)));
  write_text_atomically(output / "results.json", json_document(results_json(results)));
  std::cout << results_table(results)
            << "results.json, results.csv, predictions.csv, report.html in " << output.string()
            << "\n";
}

}  // namespace vireo
