#include <algorithm>
#include <atomic>
#include <iostream>
#include <mutex>
#include <set>

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/case_evaluation.h"
#include "apps/engine/classifier.h"
#include "apps/engine/evaluation.h"
#include "apps/engine/evaluation_files.h"
#include "apps/engine/html_report.h"
#include "apps/engine/slice_picture.h"
#include "apps/pictures.h"
#include "apps/verbs.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPictures = 3;  // of the worst and of the best cases
constexpr int64_t kPicturePx = 288;

struct EvaluationRequest {
  fs::path predictions, truths, images, output;
  std::string labels, protocol = "strict";
  fs::path cases_file;
  double nsd_tolerance_mm = 1;
  std::vector<double> spacing_zyx;
  uint64_t seed = 1;
};

// Runs work(0..count-1), each thread taking the next; what LibTorch does inside stays on its
// thread, unless there is only one item. Collects the DataErrors and throws them together.
void for_each_case(const std::string& title,
                   size_t count,
                   const std::function<void(size_t)>& work) {
  InterruptGuard guard;
  Progress progress(title, static_cast<int64_t>(count));
  std::vector<std::string> problems;
  std::mutex adding;
  std::atomic<size_t> next{0};
  const auto take = [&](int64_t, int64_t) {
    for (size_t index = next++; index < count; index = next++) {
      throw_if_interrupted("nothing was written");
      try {
        work(index);
      } catch (const DataError& error) {
        const std::lock_guard lock(adding);
        problems.push_back(error.what());
      }
      progress.advance();
    }
  };
  if (count == 1)
    take(0, 1);
  else
    at::parallel_for(0, at::get_num_threads(), 1, take);
  progress.finish();
  if (problems.empty()) return;
  std::sort(problems.begin(), problems.end());
  std::string text = problems.front();
  for (size_t i = 1; i < problems.size(); ++i) text += "\n" + problems[i];
  throw Error(text);
}

std::vector<std::string> names_in(const fs::path& path) {
  std::vector<std::string> names;
  std::istringstream lines(read_text(path));
  std::string line;
  while (std::getline(lines, line)) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (!line.empty()) names.push_back(image_extension(line).empty() ? line : image_stem(line));
  }
  if (names.empty()) throw DataError(path, "names no case");
  return names;
}

// Every label that occurs, for want of a declaration.
LabelDeclaration labels_found(const std::vector<CasePair>& pairs) {
  std::vector<std::set<int64_t>> predicted(pairs.size()), actual(pairs.size());
  for_each_case("labels", pairs.size(), [&](size_t i) {
    const PairedLabels labels = read_pair(pairs[i], {});
    for (const int64_t value : values_in(labels.prediction.values)) predicted[i].insert(value);
    for (const int64_t value : values_in(labels.truth.values)) actual[i].insert(value);
  });
  std::set<int64_t> of_predictions, of_truths;
  for (const auto& values : predicted) of_predictions.insert(values.begin(), values.end());
  for (const auto& values : actual) of_truths.insert(values.begin(), values.end());
  // Masks of 0 and 255 on one side, of 0 and 1 on the other.
  const std::set<int64_t> one{1}, full{255};
  if ((of_predictions == one && of_truths == full) || (of_predictions == full && of_truths == one))
    of_predictions = of_truths;
  of_truths.merge(of_predictions);
  LabelDeclaration found;
  for (const int64_t value : of_truths)
    found.classes.push_back(
        {of_truths.size() == 1 ? "foreground" : "label " + std::to_string(value), {value}});
  if (found.classes.empty())
    throw DataError(pairs.front().truth,
                    "and all other files hold background alone: name the classes with --labels");
  return found;
}

std::vector<int64_t> values_of(const LabelDeclaration& declared) {
  std::set<int64_t> values;
  for (const ScoredClass& scored : declared.classes)
    values.insert(scored.values.begin(), scored.values.end());
  values.erase(0);
  if (declared.ignore_value) values.insert(*declared.ignore_value);
  return {values.begin(), values.end()};
}

ReportPicture picture_of(const CasePair& pair,
                         const CaseScores& scores,
                         const LabelDeclaration& declared,
                         bool is_worst) {
  const PairedLabels labels = read_pair(pair, values_of(declared));
  const at::Tensor predicted = labels.prediction.values[0], actual = labels.truth.values[0];
  const Geometry& grid = labels.truth.geometry;
  at::Tensor image;
  if (!pair.image.empty()) {
    const Volume read = read_image(pair.image);
    const std::string differs = difference(read.geometry, grid);
    if (differs.empty())
      image = read.values;
    else
      log_warning(pair.image.string() +
                  ": not shown, it is not on the grid of the labels: " + differs);
  }
  std::vector<Color> colors;
  for (const ScoredClass& scored : declared.classes)
    for (const int64_t value : scored.values) {
      while (static_cast<int64_t>(colors.size()) <= value)
        colors.push_back(label_color(static_cast<int64_t>(colors.size())));
      colors[static_cast<size_t>(value)] = label_color(scored.values.front());
    }
  // A bad case shows where it is worst, a good one where there is most to see.
  const at::Tensor differing = predicted.ne(actual);
  PictureSlice slice = heaviest_slice(is_worst ? differing : actual.ne(0), grid);
  const double fill = image.defined() ? 0.3 : 0.85;
  ReportPicture picture;
  picture.case_name = scores.name;
  picture.mean_dice = scores.mean_dice();
  picture.is_worst = is_worst;
  picture.truth = draw_slice(image, actual, grid, slice, kPicturePx, fill, colors);
  picture.prediction = draw_slice(image, predicted, grid, slice, kPicturePx, fill, colors);
  const int64_t slices = grid.size_zyx[static_cast<size_t>(slice.axis)];
  picture.caption =
      slices == 1 ? "whole picture"
                  : "slice " + std::to_string(slice.index + 1) + " of " + std::to_string(slices);
  return picture;
}

std::vector<ReportPicture> pictures_of(const std::vector<CasePair>& pairs,
                                       const Summary& summary,
                                       const LabelDeclaration& declared) {
  std::vector<size_t> order;
  for (size_t i = 0; i < summary.cases.size(); ++i)
    if (!std::isnan(summary.cases[i].mean_dice())) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return summary.cases[a].mean_dice() < summary.cases[b].mean_dice();
  });
  const size_t worst = std::min(kPictures, (order.size() + 1) / 2);
  const size_t best = std::min(kPictures, order.size() - worst);
  std::vector<ReportPicture> pictures;
  const auto add = [&](size_t index, bool is_worst) {
    const CaseScores& scores = summary.cases[index];
    const auto pair = std::find_if(
        pairs.begin(), pairs.end(), [&](const CasePair& p) { return p.name == scores.name; });
    pictures.push_back(picture_of(*pair, scores, declared, is_worst));
  };
  for (size_t i = 0; i < worst; ++i) {
    add(order[i], true);
    if (i < best) add(order[order.size() - 1 - i], false);
  }
  return pictures;
}

ScoringOptions scoring_of(const EvaluationRequest& request) {
  ScoringOptions options;
  options.protocol = request.protocol == "transunet" ? Protocol::kTransUnet : Protocol::kStrict;
  options.nsd_tolerance_mm = request.nsd_tolerance_mm;
  return options;
}

void run(const EvaluationRequest& request) {
  ScoringOptions options = scoring_of(request);
  const std::vector<CasePair> pairs = pair_cases(
      request.predictions,
      request.truths,
      request.images,
      request.cases_file.empty() ? std::vector<std::string>{} : names_in(request.cases_file));
  const LabelDeclaration declared =
      request.labels.empty() ? labels_found(pairs) : declared_labels(request.labels);
  options.ignore_value = declared.ignore_value;
  const std::vector<int64_t> values = values_of(declared);

  std::vector<CaseScores> scores(pairs.size());
  for_each_case("evaluate", pairs.size(), [&](size_t i) {
    const PairedLabels labels = read_pair(pairs[i], values);
    Geometry grid = labels.truth.geometry;
    if (!request.spacing_zyx.empty())
      std::copy_n(request.spacing_zyx.begin(), 3, grid.spacing_mm_zyx.begin());
    scores[i] = score_case(pairs[i].name,
                           labels.prediction.values[0],
                           labels.truth.values[0],
                           grid,
                           declared.classes,
                           options);
    scores[i].prediction_file = pairs[i].prediction.string();
    scores[i].reference_file = pairs[i].truth.string();
  });
  const Summary summary = summarize(std::move(scores), declared.classes, options, request.seed);

  const fs::path output = !request.output.empty() ? request.output
                          : fs::is_directory(request.predictions)
                              ? request.predictions
                              : request.predictions.parent_path();
  const std::vector<ReportPicture> pictures = pictures_of(pairs, summary, declared);
  write_text_atomically(output / "results.csv", to_csv(summary));
  write_text_atomically(
      output / "report.html",
      to_html(summary,
              {"Segmentation scores", request.predictions.string(), request.truths.string()},
              pictures));
  write_text_atomically(output / "summary.json", json_document(to_summary_json(summary)));
  std::cout << to_table(summary) << "summary.json, results.csv, report.html in "
            << (output.empty() ? fs::path(".") : output).string() << "\n";
}

}  // namespace

void add_evaluate(CLI::App& app) {
  auto request = std::make_shared<EvaluationRequest>();
  auto pictures = std::make_shared<PictureEvaluation>();
  CLI::App* verb = app.add_subcommand(
      "evaluate",
      "Score label maps against the truth (Dice, IoU, HD95, ASSD, NSD, volumes, in mm), or a "
      "trained model on a data set");
  verb->footer(
      "Cases are paired by file name (.nii.gz, .nrrd, .mha, .png, ...); the grids must agree. "
      "Leaves\n"
      "summary.json (with nnU-Net's keys), results.csv and report.html.\n\n"
      "Example:\n"
      "  vireo evaluate predictions data/phantom/labelsTs --labels data/phantom/dataset.json \\\n"
      "      --images data/phantom/imagesTs --output scores\n\n"
      "PREDICTIONS may also be a segmenter's checkpoint and TRUTHS the configuration (.toml) of a\n"
      "data set: its cases (--part, --fold) are segmented on their own grids and scored against\n"
      "the data set's own truth, whatever its files are (HDF5, several masks, JPEG masks).\n\n"
      "Example:\n"
      "  vireo evaluate runs/segmentation/synapse/rwkv_unet_b/checkpoint_best.safetensors \\\n"
      "      configs/segmentation/synapse/rwkv_unet_b.toml --protocol transunet --output scores\n\n"
      "For classification PREDICTIONS is a checkpoint and TRUTHS a configuration (.toml), a\n"
      "prepared cache or a data set. Leaves results.json, results.csv (timm's columns first),\n"
      "predictions.csv and report.html.\n\n"
      "Example:\n"
      "  vireo evaluate runs/classification/isic2017/vision_rwkv_small/checkpoint_best.safetensors "
      "\\\n"
      "      configs/classification/isic2017/vision_rwkv_small.toml --output scores");
  verb->add_option(
          "PREDICTIONS", request->predictions, "Folder of label maps, or one file; or a checkpoint")
      ->required();
  verb->add_option("TRUTHS", request->truths, "Folder of label maps, or one file")->required();
  verb->add_option(
      "--labels",
      request->labels,
      "dataset.json, or names: liver,spleen or liver=1,kidneys=2+3 [every label found]");
  verb->add_option("--protocol",
                   request->protocol,
                   "How empty classes count: strict, or transunet as in the literature")
      ->check(CLI::IsMember({"strict", "transunet"}))
      ->capture_default_str();
  verb->add_option("--nsd-tolerance-mm", request->nsd_tolerance_mm, "Tolerance of the surface Dice")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option(
      "--cases", request->cases_file, "File that names the cases to score, one a line");
  verb->add_option(
          "--images", request->images, "Images for the report's pictures (CASE or CASE_0000)")
      ->check(CLI::ExistingPath);
  verb->add_option("--output", request->output, "Where the results go [PREDICTIONS]");
  verb->add_option("--spacing",
                   request->spacing_zyx,
                   "mm between slices, rows, columns, instead of the files'")
      ->expected(3)
      ->check(CLI::PositiveNumber);
  verb->add_option("--seed", request->seed, "Seed of the bootstrap intervals")
      ->capture_default_str();
  verb->add_option("--part", pictures->part, "With a checkpoint: the part of the data set to score")
      ->check(CLI::IsMember({"auto", "train", "val", "test"}))
      ->capture_default_str();
  verb->add_option("--fold", pictures->fold, "With a checkpoint: the fold that was held out")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--specificity",
                   pictures->specificity,
                   "Classification: the specificity at which the sensitivity is told")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--batch", pictures->batch_size, "Classification: pictures per batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--device", pictures->device, "With a checkpoint: where the network runs")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->callback([request, pictures] {
    if (request->predictions.extension() != ".safetensors") return run(*request);
    const fs::path output = request->output.empty()
                                ? request->predictions.parent_path() / "evaluation"
                                : request->output;
    if (!is_classifier(request->predictions)) {
      if (request->truths.extension() != ".toml")
        throw DataError(request->predictions,
                        "segments; give a data set's configuration (.toml) to score it on, or its "
                        "label maps, which `vireo predict` writes");
      return evaluate_cases({request->predictions,
                             request->truths,
                             output,
                             pictures->part,
                             pictures->fold,
                             pictures->device,
                             scoring_of(*request),
                             request->spacing_zyx,
                             request->seed});
    }
    pictures->checkpoint = request->predictions;
    pictures->data = request->truths;
    pictures->output = output;
    pictures->seed = request->seed;
    evaluate_pictures(*pictures);
  });
}

}  // namespace vireo
