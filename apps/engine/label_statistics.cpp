#include "apps/engine/label_statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

namespace vireo {
namespace {

// Adds f(voxel, class) over all voxels, per class: partial sums by slice, added up in order so that
// the result does not depend on the number of threads.
template <typename F>
std::vector<double> sums_by_class(const at::Tensor& classes, int64_t class_count, const F& f) {
  const int64_t slices = classes.size(0), area = classes.size(1) * classes.size(2);
  const uint8_t* labels = classes.const_data_ptr<uint8_t>();
  std::vector<double> partial(slices * class_count, 0.0);
  at::parallel_for(0, slices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t z = begin; z < end; ++z) {
      double* sums = partial.data() + z * class_count;
      for (int64_t i = z * area; i < (z + 1) * area; ++i)
        if (labels[i] < class_count) sums[labels[i]] += f(i, labels[i]);
    }
  });
  std::vector<double> sums(class_count, 0.0);
  for (int64_t z = 0; z < slices; ++z)
    for (int64_t k = 0; k < class_count; ++k) sums[k] += partial[z * class_count + k];
  return sums;
}

// Mean and standard deviation of a channel's values, into the statistics.
template <typename T>
void add_channel(const at::Tensor& classes,
                 const T* values,
                 const std::vector<double>& counts,
                 std::vector<LabelStatistics>& statistics) {
  const auto class_count = static_cast<int64_t>(counts.size());
  std::vector<double> means = sums_by_class(
      classes, class_count, [&](int64_t i, uint8_t) { return static_cast<double>(values[i]); });
  for (size_t k = 0; k < counts.size(); ++k) means[k] /= std::max(counts[k], 1.0);
  const std::vector<double> squares =
      sums_by_class(classes, class_count, [&](int64_t i, uint8_t k) {
        const double apart = static_cast<double>(values[i]) - means[k];
        return apart * apart;
      });
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (size_t k = 0; k < counts.size(); ++k) {
    statistics[k].mean.push_back(counts[k] > 0 ? means[k] : nan);
    statistics[k].sd.push_back(counts[k] > 0 ? std::sqrt(squares[k] / counts[k]) : nan);
  }
}

nlohmann::json number_or_list(const std::vector<double>& values) {
  nlohmann::json list = nlohmann::json::array();
  for (const double value : values)
    list.push_back(std::isfinite(value) ? nlohmann::json(value) : nlohmann::json());
  return list.size() == 1 ? list[0] : list;
}

}  // namespace

std::vector<LabelStatistics> label_statistics(const at::Tensor& classes,
                                              const at::Tensor& image,
                                              double voxel_volume_mm3,
                                              int64_t class_count) {
  TORCH_CHECK(
      classes.is_contiguous() && image.is_contiguous() && image.sizes().slice(1) == classes.sizes(),
      "labels and image must be contiguous and of one size");
  const auto counts = sums_by_class(classes, class_count, [](int64_t, uint8_t) { return 1.0; });
  std::vector<LabelStatistics> statistics(class_count);
  for (int64_t k = 0; k < class_count; ++k) {
    statistics[k].voxels = static_cast<int64_t>(counts[k]);
    statistics[k].volume_ml = counts[k] * voxel_volume_mm3 / 1000;
  }
  for (int64_t channel = 0; channel < image.size(0); ++channel) {
    const at::Tensor values = image[channel];
    if (values.scalar_type() == at::kShort)
      add_channel(classes, values.const_data_ptr<int16_t>(), counts, statistics);
    else
      add_channel(classes, values.const_data_ptr<float>(), counts, statistics);
  }
  return statistics;
}

nlohmann::json to_json(const std::vector<LabelStatistics>& statistics,
                       const std::vector<Label>& labels) {
  nlohmann::json json = nlohmann::json::object();
  for (size_t k = 1; k < labels.size() && k < statistics.size(); ++k) {
    const LabelStatistics& one = statistics[k];
    json[labels[k].name] = {{"value", labels[k].value},
                            {"voxels", one.voxels},
                            {"volume_ml", one.volume_ml},
                            {"mean_intensity", number_or_list(one.mean)},
                            {"sd_intensity", number_or_list(one.sd)}};
  }
  return json;
}

}  // namespace vireo
