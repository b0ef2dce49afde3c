#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "datasets/picture_set.h"
#include "datasets/picture_transforms.h"
#include "models/registry.h"

namespace vireo {

/// Everything that classification needs, read from one checkpoint file.
struct TrainedClassifier {
  std::shared_ptr<Model> model;  ///< in eval mode, with the averaged weights where they were kept
  std::string model_name;
  PicturePreprocessing preprocessing;
  std::vector<std::string> class_names;
  bool multi_label = false;

  int64_t parameter_count() const;
};

/// Whether a checkpoint's metadata says that it classifies. Throws DataError for no checkpoint.
bool is_classifier(const std::filesystem::path& checkpoint);

/// Throws DataError for a file that is no checkpoint of a classifier, broken, or of a newer format.
TrainedClassifier load_classifier(const std::filesystem::path& checkpoint);

struct ClassificationRun {
  std::vector<double> logits;  ///< [items, classes]
  double network_seconds = 0, waiting_seconds = 0, seconds = 0;
};

/// The network's answers to pictures of `set`, in the order of `items`; pictures are decoded in
/// threads beside the network. `threads` < 0: chosen. Throws DataError for a picture that cannot be
/// read, and Interrupted. Runs the network's inference form.
ClassificationRun classify(const TrainedClassifier& classifier,
                           const PictureSet& set,
                           const std::vector<int64_t>& items,
                           at::Device device,
                           int64_t batch_size,
                           int64_t threads = -1,
                           Arithmetic precision = Arithmetic::kFloat32);

}  // namespace vireo
