#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json_fwd.hpp>

#include "vision/core/config_table.h"

// 8-bit pictures [H, W, C] to a network's input. Needs neither OpenCV nor ITK.
namespace vireo {

enum class PictureFilter { kNearest, kBilinear, kBicubic };

/// A filter's weight at a distance, in pixels: a half at most for the nearest, linear, Keys' cubic
/// with a = -0.5.
double picture_filter_weight(PictureFilter filter, double distance);

/// A part of a picture, in pixels from its upper left corner.
struct PictureBox {
  double top = 0, left = 0, height = 0, width = 0;
};

/// The box resampled to height x width. Where it shrinks, the filter widens with the factor, so
/// that every pixel counts (as Pillow resizes).
at::Tensor resized_picture(const at::Tensor& picture,
                           const PictureBox& box,
                           int64_t height,
                           int64_t width,
                           PictureFilter filter = PictureFilter::kBicubic);
at::Tensor resized_picture(const at::Tensor& picture, int64_t height, int64_t width);

/// How a picture becomes a network's input in validation and prediction: made once, kept in every
/// checkpoint.
struct PicturePreprocessing {
  std::array<int64_t, 2> size_yx{224, 224};
  /// The shorter side is resized to this and the middle cut out; 0: the whole picture is resized to
  /// size_yx, whatever its proportions.
  int64_t short_side = 0;
  PictureFilter filter = PictureFilter::kBicubic;
  /// By mean and standard deviation, per channel: the training set's, ImageNet's, or every
  /// picture's own (for exposures that differ from place to place).
  enum class Normalization { kData, kImageNet, kPicture };
  Normalization normalization = Normalization::kData;
  std::vector<double> mean, sd;  ///< per channel, of values in 0..1

  int64_t channels() const { return static_cast<int64_t>(mean.size()); }
  /// The part of a picture of this size that the network sees.
  PictureBox box(int64_t height, int64_t width) const;
  /// Writes float32 [C, size] to `out`.
  void apply(const at::Tensor& picture, float* out) const;
  /// The second half of apply: an 8-bit picture of size_yx, normalised.
  void normalise(const at::Tensor& picture, float* out) const;

  nlohmann::json to_json() const;
  /// Throws DataError naming `source`.
  static PicturePreprocessing from_json(const nlohmann::json& json, const std::string& source);
  /// Reads size, short_side, filter and normalization of the [picture] table; mean and sd are the
  /// data set's, or ImageNet's where the table says so.
  static PicturePreprocessing from_config(ConfigTable table);
  void take_statistics(const std::vector<double>& data_mean, const std::vector<double>& data_sd);
};

}  // namespace vireo
