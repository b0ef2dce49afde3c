#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "apps/picture_scoring.h"

// What the verbs `phantom`, `evaluate` and `predict` do where pictures have classes.
namespace vireo {

struct PicturePhantom {
  std::filesystem::path folder;
  int64_t pictures = 0;
  uint64_t seed = 1;
  bool overwrite = false;
};
/// Makes room for a phantom of either kind: removes `ours` from its folder. Throws DataError where
/// a folder that is not empty may not be overwritten, or a file is in the way.
void make_room(const std::filesystem::path& folder,
               bool overwrite,
               const std::vector<std::string>& ours);

/// Leaves images/, preview.png, labels.csv and phantom.json in the folder.
void make_phantom_pictures(const PicturePhantom& request);

struct PictureEvaluation : PictureScoring {
  std::filesystem::path checkpoint;
  std::string device = "auto";
  int64_t batch_size = 32;
};
void evaluate_pictures(const PictureEvaluation& request);

struct PicturePrediction {
  std::filesystem::path checkpoint;
  std::filesystem::path input;   ///< an image file, or a folder of them (folders below included)
  std::filesystem::path output;  ///< a folder
  std::string device = "auto";
  int64_t batch_size = 16;
  double temperature = 1;
  bool evidence = false;  ///< also an overlay of what spoke for the predicted class
  Arithmetic precision = Arithmetic::kFloat32;
};
void predict_pictures(const PicturePrediction& request);

}  // namespace vireo
