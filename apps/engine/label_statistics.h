#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json_fwd.hpp>

#include "datasets/preparation.h"

namespace vireo {

/// What one class of a segmentation measures.
struct LabelStatistics {
  int64_t voxels = 0;
  double volume_ml = 0;
  /// Mean and population standard deviation of the image's own values, per channel; NaN where the
  /// class is empty.
  std::vector<double> mean, sd;
};

/// Statistics of every class number 0..class_count-1. `classes` is uint8 [Z, Y, X], `image` float32
/// or int16 [C, Z, Y, X] on the same grid, both contiguous.
std::vector<LabelStatistics> label_statistics(const at::Tensor& classes,
                                              const at::Tensor& image,
                                              double voxel_volume_mm3,
                                              int64_t class_count);

/// {label name: {value, voxels, volume_ml, mean_intensity, sd_intensity}}, background left out;
/// intensities are a number for one channel and a list for several, null where the class is empty.
nlohmann::json to_json(const std::vector<LabelStatistics>& statistics,
                       const std::vector<Label>& labels);

}  // namespace vireo
