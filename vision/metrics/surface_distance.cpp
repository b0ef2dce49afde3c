#include "vision/metrics/surface_distance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "vision/metrics/distance_transform.h"
#include "vision/metrics/statistics.h"

namespace vireo {
namespace {

// First and one-past-last index of `occupied` along `axis`.
std::pair<int64_t, int64_t> extent(const at::Tensor& occupied, int64_t axis) {
  at::Tensor line = occupied;
  for (int64_t other = occupied.dim() - 1; other >= 0; --other)
    if (other != axis) line = line.any(other);
  const at::Tensor indices = line.nonzero();
  return {indices[0].item<int64_t>(), indices[-1].item<int64_t>() + 1};
}

// The distances, at the voxels of `surface`, of a squared distance transform.
std::vector<double> distances_at(const at::Tensor& surface, const at::Tensor& squared) {
  const at::Tensor chosen = squared.masked_select(surface).sqrt_();
  const double* first = chosen.data_ptr<double>();
  return {first, first + chosen.numel()};
}

double sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

at::Tensor mask_surface(const at::Tensor& mask) {
  const at::Tensor inside = mask.ne(0);
  at::Tensor kept = inside.clone();
  for (int64_t axis = 0; axis < mask.dim(); ++axis) {
    const int64_t length = mask.size(axis);
    if (length < 2) {
      kept.zero_();
      break;
    }
    kept.narrow(axis, 0, length - 1).logical_and_(inside.narrow(axis, 1, length - 1));
    kept.narrow(axis, 1, length - 1).logical_and_(inside.narrow(axis, 0, length - 1));
    kept.select(axis, 0).zero_();
    kept.select(axis, length - 1).zero_();
  }
  return inside.logical_and(kept.logical_not());
}

double SurfaceDistances::hausdorff() const {
  return std::max(*std::max_element(prediction_to_truth.begin(), prediction_to_truth.end()),
                  *std::max_element(truth_to_prediction.begin(), truth_to_prediction.end()));
}

double SurfaceDistances::hausdorff_percentile(double percent) const {
  std::vector<double> pooled = prediction_to_truth;
  pooled.insert(pooled.end(), truth_to_prediction.begin(), truth_to_prediction.end());
  return percentile(std::move(pooled), percent);
}

double SurfaceDistances::average_prediction_to_truth() const {
  return sum(prediction_to_truth) / static_cast<double>(prediction_to_truth.size());
}

double SurfaceDistances::average_truth_to_prediction() const {
  return sum(truth_to_prediction) / static_cast<double>(truth_to_prediction.size());
}

double SurfaceDistances::average_symmetric() const {
  const size_t count = prediction_to_truth.size() + truth_to_prediction.size();
  return (sum(prediction_to_truth) + sum(truth_to_prediction)) / static_cast<double>(count);
}

double SurfaceDistances::within(double tolerance) const {
  // A distance that equals the tolerance counts, whatever its last bit.
  const double limit = tolerance * (1 + 1e-12);
  const auto close = [limit](double distance) { return distance <= limit; };
  const auto count = std::count_if(prediction_to_truth.begin(), prediction_to_truth.end(), close) +
                     std::count_if(truth_to_prediction.begin(), truth_to_prediction.end(), close);
  return static_cast<double>(count) /
         static_cast<double>(prediction_to_truth.size() + truth_to_prediction.size());
}

SurfaceDistances surface_distances(const at::Tensor& prediction,
                                   const at::Tensor& truth,
                                   c10::ArrayRef<double> spacing) {
  TORCH_CHECK(prediction.sizes() == truth.sizes(),
              "surface_distances: sizes differ: ",
              prediction.sizes(),
              " and ",
              truth.sizes());
  at::Tensor predicted = prediction.ne(0), true_mask = truth.ne(0);
  if (!predicted.any().item<bool>() || !true_mask.any().item<bool>()) return {};

  const at::Tensor occupied = predicted.logical_or(true_mask);
  for (int64_t axis = 0; axis < occupied.dim(); ++axis) {
    const auto [begin, end] = extent(occupied, axis);
    predicted = predicted.narrow(axis, begin, end - begin);
    true_mask = true_mask.narrow(axis, begin, end - begin);
  }
  const at::Tensor predicted_surface = mask_surface(predicted);
  const at::Tensor true_surface = mask_surface(true_mask);
  return {distances_at(predicted_surface, squared_distance_transform(true_surface, spacing)),
          distances_at(true_surface, squared_distance_transform(predicted_surface, spacing))};
}

}  // namespace vireo
