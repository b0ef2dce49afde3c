#include "apps/engine/histogram_baseline.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <torch/optim/lbfgs.h>

#include "vision/core/error.h"
#include "vision/core/parallel_tasks.h"
#include "vision/core/progress.h"

namespace vireo {
namespace {

constexpr int64_t kColourLevels = 8, kGreyLevels = 64;
constexpr int64_t kChoosingFolds = 5;
constexpr int64_t kMostSteps = 1000;

at::Tensor histogram_targets(const PictureSet& set, const std::vector<int64_t>& items) {
  at::Tensor targets =
      at::empty({static_cast<int64_t>(items.size()), set.class_count()}, at::kDouble);
  auto* out = targets.mutable_data_ptr<double>();
  for (const int64_t item : items)
    for (int64_t k = 0; k < set.class_count(); ++k) *out++ = set.holds(item, k) ? 1 : 0;
  return targets;
}

at::Tensor cross_entropy_of(const at::Tensor& logits, const at::Tensor& targets, bool multi_label) {
  if (multi_label) return at::binary_cross_entropy_with_logits(logits, targets);
  return -(targets * at::log_softmax(logits, 1)).sum(1).mean();
}

HistogramBaseline fit(const at::Tensor& histograms,
                      const at::Tensor& targets,
                      bool multi_label,
                      double l2) {
  HistogramBaseline fitted;
  fitted.l2 = l2;
  fitted.mean = histograms.mean(0);
  fitted.sd = histograms.std(0, /*unbiased=*/false);
  fitted.sd = at::where(fitted.sd > 1e-12, fitted.sd, at::ones_like(fitted.sd));
  fitted.weight = at::zeros({targets.size(1), histograms.size(1)}, at::kDouble);
  fitted.bias = at::zeros({targets.size(1)}, at::kDouble);
  std::vector<at::Tensor> parameters{fitted.weight, fitted.bias};
  for (at::Tensor& parameter : parameters) parameter.set_requires_grad(true);
  torch::optim::LBFGS optimiser(parameters,
                                torch::optim::LBFGSOptions(1)
                                    .max_iter(kMostSteps)
                                    .max_eval(2 * kMostSteps)
                                    .tolerance_grad(1e-7)
                                    .tolerance_change(1e-12)
                                    .history_size(20)
                                    .line_search_fn("strong_wolfe"));
  optimiser.step([&] {
    optimiser.zero_grad();
    const at::Tensor loss = cross_entropy_of(fitted.logits(histograms), targets, multi_label) +
                            l2 / 2 * fitted.weight.square().sum();
    loss.backward();
    return loss;
  });
  for (at::Tensor& parameter : parameters) parameter.set_requires_grad(false);
  return fitted;
}

}  // namespace

at::Tensor colour_histograms(const PictureSet& set, const std::vector<int64_t>& items) {
  const auto count = static_cast<int64_t>(items.size());
  const bool grey = set.channels == 1;
  const int64_t bins = grey ? kGreyLevels : kColourLevels * kColourLevels * kColourLevels;
  at::Tensor histograms = at::zeros({count, bins}, at::kDouble);
  auto* values = histograms.mutable_data_ptr<double>();
  Progress progress("histograms", count);
  run_parallel(
      count,
      0,
      [&](int64_t i) {
        const at::Tensor picture = set.picture(items[static_cast<size_t>(i)]).contiguous();
        const uint8_t* pixel = picture.const_data_ptr<uint8_t>();
        const int64_t pixels = picture.size(0) * picture.size(1);
        double* row = values + i * bins;
        for (int64_t p = 0; p < pixels; ++p, pixel += set.channels) {
          int64_t bin = 0;
          const int64_t levels = grey ? kGreyLevels : kColourLevels;
          for (int64_t c = 0; c < set.channels; ++c) bin = bin * levels + pixel[c] * levels / 256;
          row[bin] += 1 / static_cast<double>(pixels);
        }
        progress.advance();
      },
      "nothing was written");
  progress.finish();
  return histograms;
}

at::Tensor HistogramBaseline::logits(const at::Tensor& histograms) const {
  return at::linear((histograms - mean) / sd, weight, bias);
}

HistogramBaseline fit_histogram_baseline(const PictureSet& set,
                                         const std::vector<int64_t>& items,
                                         const at::Tensor& histograms,
                                         uint32_t seed) {
  if (items.size() < 2) throw Error("a regression needs at least two training pictures");
  const at::Tensor targets = histogram_targets(set, items);
  PictureSet training;
  for (const int64_t item : items) {
    training.items.push_back(set.items[static_cast<size_t>(item)]);
    training.items.back().part = Part::kTrain;
    training.items.back().fold = -1;
  }
  split_by_patient(training, kChoosingFolds, seed);
  const auto rows = [](const std::vector<int64_t>& list) { return at::tensor(list, at::kLong); };
  const at::Tensor kept = rows(training.training_items(0)),
                   choosing = rows(training.validation_items(0));
  // Of a single patient nothing can be left out.
  const at::Tensor fitting = kept.numel() > 0 && choosing.numel() > 0 ? kept : choosing;

  double best_l2 = 0, least = std::numeric_limits<double>::infinity();
  for (int step = -8; step <= 4; ++step) {
    const double l2 = std::pow(10, 0.5 * step);
    const HistogramBaseline fitted = fit(
        histograms.index_select(0, fitting), targets.index_select(0, fitting), set.multi_label, l2);
    const auto loss = cross_entropy_of(fitted.logits(histograms.index_select(0, choosing)),
                                       targets.index_select(0, choosing),
                                       set.multi_label)
                          .item<double>();
    if (loss < least) {
      least = loss;
      best_l2 = l2;
    }
  }
  HistogramBaseline baseline = fit(histograms, targets, set.multi_label, best_l2);
  baseline.choosing = choosing.numel();
  return baseline;
}

}  // namespace vireo
