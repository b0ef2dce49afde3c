#include <chrono>
#include <cstdio>
#include <memory>

#include <ATen/ATen.h>
#include <CLI/CLI.hpp>

#include "apps/engine/classified.h"
#include "apps/engine/histogram_baseline.h"
#include "apps/engine/training_config.h"
#include "apps/picture_scoring.h"
#include "apps/verbs.h"
#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {
namespace {

void run_baseline(PictureScoring request) {
  if (request.output.empty()) {
    if (request.data.extension() != ".toml")
      throw UsageError("say where the results go: --output FOLDER");
    request.output = run_folder(request.data, -1) / "baseline";
  }
  const PictureSet set = open_scored_pictures(request);
  const auto training = set.training_items(request.fold);
  const HistogramBaseline baseline =
      fit_histogram_baseline(set, training, colour_histograms(set, training));
  char text[160];
  std::snprintf(text,
                sizeof text,
                "fitted to %zu pictures; L2 strength %.3g, chosen on %ld of them",
                training.size(),
                baseline.l2,
                static_cast<long>(baseline.choosing));
  log_info(text);

  ClassificationResults results;
  results.model = "colour_histogram_regression";
  results.parameter_count = baseline.weight.numel() + baseline.bias.numel();
  const auto answer = [&](const std::vector<int64_t>& items) {
    const auto begin = std::chrono::steady_clock::now();
    ClassificationRun run;
    append_logits(baseline.logits(colour_histograms(set, items)), run.logits);
    run.seconds = run.network_seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return run;
  };
  score_pictures(request, set, answer, std::move(results));
}

}  // namespace

void add_baseline(CLI::App& app) {
  auto request = std::make_shared<PictureScoring>();
  CLI::App* verb = app.add_subcommand(
      "baseline", "Score logistic regression on colour histograms, for classifiers to beat");
  verb->footer(
      "Fits to the training part of a classification data set and scores as `vireo evaluate` does\n"
      "a network: the same part, scores, intervals and files. Histograms are of 8x8x8 colours (64\n"
      "grey levels), standardised; the L2 strength is chosen on a fifth of the training part.\n\n"
      "Example:\n"
      "  vireo baseline configs/classification/isic2017/vision_rwkv_small.toml --output baseline");
  verb->add_option("DATA",
                   request->data,
                   "Configuration (.toml), prepared cache, or data set of pictures with classes")
      ->required();
  verb->add_option("--output", request->output, "Where the results go [baseline/ of the run]");
  verb->add_option("--part", request->part, "The part of the data set to score")
      ->check(CLI::IsMember({"auto", "train", "val", "test"}))
      ->capture_default_str();
  verb->add_option("--fold", request->fold, "The fold to hold out")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option(
          "--specificity", request->specificity, "The specificity at which the sensitivity is told")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--seed", request->seed, "Seed of the bootstrap intervals")
      ->capture_default_str();
  verb->callback([request] { run_baseline(*request); });
}

}  // namespace vireo
