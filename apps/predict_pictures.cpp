#include <algorithm>
#include <cstdio>
#include <iostream>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "apps/engine/classification_results.h"
#include "apps/engine/classifier.h"
#include "apps/engine/device.h"
#include "apps/pictures.h"
#include "datasets/picture_reader.h"
#include "kernels/process_memory.h"
#include "models/inference.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/core/parallel_tasks.h"
#include "vision/io/canvas.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr size_t kShownPictures = 24;  // in preview.png
constexpr int64_t kShownPx = 160;

// Paths of the input's images, relative to it, in alphabetical order.
std::vector<std::string> images_in(const fs::path& input) {
  std::error_code failed;
  if (!fs::exists(input, failed)) throw DataError(input, "does not exist");
  std::vector<std::string> names;
  if (!fs::is_directory(input)) return {input.filename().string()};
  for (const auto& entry : fs::recursive_directory_iterator(input))
    if (entry.is_regular_file() && is_named_as_image(entry.path()))
      names.push_back(entry.path().lexically_relative(input).string());
  if (names.empty()) throw DataError(input, "holds no image file");
  std::sort(names.begin(), names.end());
  return names;
}

// Decodes what can be decoded; the rest becomes problems, one line each.
PictureSet decoded(const fs::path& folder,
                   const std::vector<std::string>& names,
                   int64_t channels,
                   std::vector<std::string>& problems) {
  std::vector<at::Tensor> pictures(names.size());
  std::vector<std::string> reasons(names.size());
  run_parallel(static_cast<int64_t>(names.size()), 0, [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    try {
      pictures[at] = with_channels(read_classified_picture(folder / names[at]), channels);
    } catch (const DataError& error) {
      reasons[at] = error.what();
    }
  });
  PictureSet set;
  std::vector<at::Tensor> sound;
  for (size_t i = 0; i < names.size(); ++i) {
    if (!pictures[i].defined()) {
      problems.push_back(reasons[i]);
      continue;
    }
    PictureItem item;
    item.name = names[i];
    set.items.push_back(item);
    sound.push_back(pictures[i]);
  }
  set.picture = [sound](int64_t item) { return sound[static_cast<size_t>(item)]; };
  return set;
}

// What spoke for class `label`: the gradient of its answer with respect to the picture, times the
// picture, as strength over the prepared picture [H, W] in 0..1.
at::Tensor evidence_for(const TrainedClassifier& classifier,
                        const at::Tensor& picture,
                        int64_t label,
                        at::Device device) {
  const auto [height, width] = classifier.preprocessing.size_yx;
  at::Tensor image = at::empty({1, classifier.preprocessing.channels(), height, width}, at::kFloat);
  classifier.preprocessing.apply(picture, image.mutable_data_ptr<float>());
  image = image.to(device).set_requires_grad(true);
  classifier.model->forward(image)[0][label].backward();
  at::Tensor strength = (image.grad() * image.detach()).sum(1, /*keepdim=*/true).relu();
  // Single pixels say little: their surroundings count as well.
  const int64_t radius = std::max<int64_t>(1, std::min(height, width) / 28);
  for (int pass = 0; pass < 2; ++pass)
    strength = at::avg_pool2d(strength, {2 * radius + 1, 2 * radius + 1}, 1, {radius, radius});
  strength = strength[0][0].to(at::kCPU);
  return strength / strength.max().clamp_min(1e-12);
}

// The picture as the network sees it, float [3, H, W].
at::Tensor seen_by(const TrainedClassifier& classifier, const at::Tensor& picture) {
  const PicturePreprocessing& p = classifier.preprocessing;
  const PictureBox box = p.box(picture.size(0), picture.size(1));
  return with_channels(resized_picture(picture, box, p.size_yx[0], p.size_yx[1], p.filter), 3)
      .permute({2, 0, 1})
      .to(at::kFloat)
      .contiguous();
}

Canvas overlay(const at::Tensor& seen, const at::Tensor& strength) {
  const at::Tensor hot =
      at::stack({at::full_like(strength, 255), 200 * strength, at::zeros_like(strength)});
  const at::Tensor share = (0.65 * strength).unsqueeze(0);
  const Canvas canvas = Canvas::from_rgb((seen * (1 - share) + hot * share).contiguous(), 0, 255);
  const int64_t zoom = std::max<int64_t>(1, 448 / std::max(canvas.width(), canvas.height()));
  return canvas.resized(canvas.width() * zoom, canvas.height() * zoom);
}

// A picture and what spoke for its class, under the answer.
Canvas shown(const at::Tensor& seen, const Canvas& evidence, const std::string& answer) {
  const auto small = [](const Canvas& canvas) {
    const int64_t width = kShownPx * canvas.width() / canvas.height();
    return canvas.resized(std::max<int64_t>(1, width), kShownPx);
  };
  const Canvas pair = tile({small(Canvas::from_rgb(seen, 0, 255)), small(evidence)}, 2, 2);
  Canvas cell(pair.width(), pair.height() + 22);
  cell.draw_text(2, 16, answer, 9);
  cell.paste(pair, 0, 22);
  return cell;
}

}  // namespace

void predict_pictures(const PicturePrediction& request) {
  const TrainedClassifier classifier = load_classifier(request.checkpoint);
  const at::Device device = choose_device(request.device);
  classifier.model->to(device);
  const std::vector<std::string> files = images_in(request.input);
  const fs::path folder =
      fs::is_directory(request.input) ? request.input : request.input.parent_path();
  std::vector<std::string> problems;
  PictureSet set = decoded(folder, files, classifier.preprocessing.channels(), problems);
  set.class_names = classifier.class_names;

  ClassifiedSamples samples;
  samples.class_count = set.class_count();
  std::vector<std::string> names;
  std::vector<int64_t> items;
  for (size_t i = 0; i < set.items.size(); ++i) {
    names.push_back(set.items[i].name);
    items.push_back(static_cast<int64_t>(i));
  }
  double seconds = 0;
  if (!items.empty()) {
    const ClassificationRun run =
        classify(classifier, set, items, device, request.batch_size, -1, request.precision);
    samples.probabilities = probabilities_at(
        run.logits, samples.class_count, classifier.multi_label, request.temperature);
    seconds = run.seconds;
  }

  ordered_json list = ordered_json::array();
  std::vector<Canvas> previews;
  for (const int64_t i : items) {
    const double* p = samples.probabilities.data() + i * samples.class_count;
    ordered_json entry = {{"name", names[static_cast<size_t>(i)]}};
    const int64_t best = std::max_element(p, p + samples.class_count) - p;
    ordered_json predicted = ordered_json::array();
    for (int64_t k = 0; k < samples.class_count; ++k)
      if (classifier.multi_label ? p[k] >= 0.5 : k == best)
        predicted.push_back(set.class_names[static_cast<size_t>(k)]);
    entry["predicted"] = classifier.multi_label ? predicted : predicted[0];
    for (int64_t k = 0; k < samples.class_count; ++k)
      entry["probabilities"][set.class_names[static_cast<size_t>(k)]] = p[k];
    list.push_back(entry);
    if (!request.evidence) continue;
    const at::Tensor picture = set.picture(i);
    fs::path png = request.output / "evidence" / names[static_cast<size_t>(i)];
    png += ".png";
    const at::Tensor seen = seen_by(classifier, picture);
    const Canvas evidence = overlay(seen, evidence_for(classifier, picture, best, device));
    evidence.write_png(png);
    if (previews.size() == kShownPictures) continue;
    char answer[96];
    std::snprintf(answer,
                  sizeof answer,
                  "%.60s, %.1f %%",
                  set.class_names[static_cast<size_t>(best)].c_str(),
                  100 * p[best]);
    previews.push_back(shown(seen, evidence, answer));
  }
  if (!previews.empty()) tile(previews, 3, 12).write_png(request.output / "preview.png");
  write_text_atomically(request.output / "predictions.csv",
                        predictions_csv(names, set.class_names, samples));
  write_text_atomically(
      request.output / "predictions.json",
      json_document(ordered_json{{"model", classifier.model_name},
                                 {"temperature", request.temperature},
                                 {"precision", name_of(request.precision)},
                                 {"multi_label", classifier.multi_label},
                                 {"pictures", list},
                                 {"problems", problems},
                                 {"seconds", seconds},
                                 {"peak_memory_mib", peak_memory_bytes() >> 20}}));
  std::cout << items.size() << " picture(s) classified into " << request.output.string() << "\n";
  if (problems.empty()) return;
  std::string message = std::to_string(problems.size()) + " picture(s) failed:";
  for (const std::string& problem : problems) message += "\n  " + problem;
  throw Error(message);
}

}  // namespace vireo
