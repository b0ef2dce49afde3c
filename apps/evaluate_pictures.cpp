#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "apps/engine/device.h"
#include "apps/pictures.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

void check_classes(const TrainedClassifier& classifier, const PictureSet& set) {
  if (classifier.class_names == set.class_names && classifier.multi_label == set.multi_label)
    return;
  const auto list = [](const std::vector<std::string>& names) {
    std::string text;
    for (size_t i = 0; i < names.size() && i < 10; ++i) text += (i ? ", " : "") + names[i];
    return text + (names.size() > 10 ? ", ..." : "");
  };
  throw Error("the model knows the classes " + list(classifier.class_names) +
              "; the data set has " + list(set.class_names));
}

}  // namespace

void evaluate_pictures(const PictureEvaluation& request) {
  const TrainedClassifier classifier = load_classifier(request.checkpoint);
  const at::Device device = choose_device(request.device);
  classifier.model->to(device);
  const PictureSet set = open_scored_pictures(request);
  check_classes(classifier, set);

  const PicturePreprocessing& picture = classifier.preprocessing;
  ClassificationResults results;
  results.model = classifier.model_name;
  results.parameter_count = classifier.parameter_count();
  results.size_yx = picture.size_yx;
  results.crop_share = picture.short_side > 0 ? static_cast<double>(picture.size_yx[0]) /
                                                    static_cast<double>(picture.short_side)
                                              : 1;
  results.filter = picture.to_json().at("filter").get<std::string>();
  const auto answer = [&](const std::vector<int64_t>& items) {
    return classify(classifier, set, items, device, request.batch_size);
  };
  score_pictures(request, set, answer, std::move(results));
}

}  // namespace vireo
