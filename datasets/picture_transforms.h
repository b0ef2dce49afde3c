#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/picture_preprocessing.h"
#include "datasets/random.h"
#include "vision/core/config_table.h"

// What is done to 8-bit pictures [H, W, C] in training. Needs neither OpenCV nor ITK.
namespace vireo {

/// The changes of RandAugment (arXiv 1909.13719), with levels that only get stronger.
enum class PictureChange {
  kAutoContrast,
  kEqualize,
  kInvert,
  kRotate,
  kPosterize,
  kSolarize,
  kSolarizeAdd,
  kColor,
  kContrast,
  kBrightness,
  kSharpness,
  kShearX,
  kShearY,
  kTranslateX,
  kTranslateY
};
/// Their names in configurations, in this order.
const std::vector<std::string>& picture_change_names();

/// Applies one change. `level` 0..1: rotation up to 30 degrees, shear up to 0.3, translation up to
/// 0.45 of the side, colour, contrast, brightness and sharpness by a factor of 1 +- 0.9,
/// posterising from 4 bits down to none, solarising from 256 down to 0, adding up to 110 below 128.
/// `fill` [C] colours what comes into view.
void change_picture(at::Tensor& picture,
                    PictureChange change,
                    double level,
                    bool negative,
                    const std::array<uint8_t, 3>& fill,
                    PictureFilter filter);

/// What is done to training pictures. Everything off is PicturePreprocessing alone.
struct PictureAugmentation {
  bool crop = false;
  std::array<double, 2> crop_scale{1, 1};            ///< share of the picture's area
  std::array<double, 2> crop_ratio{1, 1};            ///< width / height
  double mirror_x = 0, mirror_y = 0, transpose = 0;  ///< probabilities

  int64_t changes_per_picture = 0;  ///< RandAugment
  double change_probability = 0.5;
  double magnitude = 9, magnitude_sd = 0.5;  ///< of 10
  std::vector<PictureChange> changes;

  double erase = 0;  ///< probability of erasing a rectangle with noise
  std::array<double, 2> erase_area{0.02, 0.3333};
  double erase_ratio = 0.3;  ///< of the sides, down to; up to its inverse

  double mixup_probability = 0, mixup_alpha = 0.8;
  double cutmix_probability = 0, cutmix_alpha = 1;

  /// Reads the [augment] table. Throws ConfigError.
  static PictureAugmentation from_config(ConfigTable table);
};

/// One training picture, float32 [C, size], to `out`. Deterministic in `random`.
void augment_picture(const PictureAugmentation& augmentation,
                     const PicturePreprocessing& preprocessing,
                     const at::Tensor& picture,
                     Random& random,
                     float* out);

/// Mixes a batch with itself in reverse order, images [B, C, H, W] and soft targets [B, K] alike,
/// in place: mixup (a weighted sum) or cutmix (a rectangle of the other picture).
void mix_batch(const PictureAugmentation& augmentation,
               at::Tensor& images,
               at::Tensor& targets,
               Random& random);

/// Beta(alpha, alpha), by Jöhnk's method.
double symmetric_beta(double alpha, Random& random);

}  // namespace vireo
