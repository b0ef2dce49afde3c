#include "vision/metrics/segmentation_scores.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/promote_types.h>

#include "vision/metrics/surface_distance.h"

namespace vireo {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

double ratio(int64_t part, int64_t whole) {
  return whole == 0 ? kUndefined : static_cast<double>(part) / static_cast<double>(whole);
}

double image_diagonal(c10::IntArrayRef sizes, c10::ArrayRef<double> spacing) {
  double squares = 0;
  for (size_t axis = 0; axis < sizes.size(); ++axis)
    squares += std::pow(static_cast<double>(sizes[axis]) * spacing[axis], 2);
  return std::sqrt(squares);
}

// The smallest box that holds some voxels.
struct Box {
  std::array<int64_t, 3> begin{INT64_MAX, INT64_MAX, INT64_MAX};
  std::array<int64_t, 3> end{0, 0, 0};

  void include(const std::array<int64_t, 3>& index) {
    for (size_t axis = 0; axis < 3; ++axis) {
      begin[axis] = std::min(begin[axis], index[axis]);
      end[axis] = std::max(end[axis], index[axis] + 1);
    }
  }
  void add(const Box& other) {
    for (size_t axis = 0; axis < 3; ++axis) {
      begin[axis] = std::min(begin[axis], other.begin[axis]);
      end[axis] = std::max(end[axis], other.end[axis]);
    }
  }
};

// What one pass over a pair of label maps finds. Values are numbered 1.. in the order of the list
// given; number 0 is every other value.
struct Tally {
  explicit Tally(size_t values) : size(values), voxels(values * values), boxes(values) {}

  size_t size;                  // numbers, 0 included
  std::vector<int64_t> voxels;  // [prediction's number × truth's number]
  std::vector<Box> boxes;       // per number, of both maps

  int64_t& at(size_t predicted, size_t actual) { return voxels[predicted * size + actual]; }
  void add(const Tally& other) {
    for (size_t i = 0; i < voxels.size(); ++i) voxels[i] += other.voxels[i];
    for (size_t i = 0; i < size; ++i) boxes[i].add(other.boxes[i]);
  }
};

class NumberOfValue {
 public:
  explicit NumberOfValue(const std::vector<int64_t>& values) : values_(values) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    if (values.empty() || *low < 0 || *high > 65535) return;
    table_.resize(static_cast<size_t>(*high) + 1);
    for (size_t i = 0; i < values.size(); ++i) table_[static_cast<size_t>(values[i])] = i + 1;
  }
  size_t operator()(int64_t value) const {
    if (!table_.empty())
      return value >= 0 && static_cast<size_t>(value) < table_.size()
                 ? table_[static_cast<size_t>(value)]
                 : 0;
    const auto found = std::find(values_.begin(), values_.end(), value);
    return found == values_.end() ? 0 : static_cast<size_t>(found - values_.begin()) + 1;
  }

 private:
  std::vector<int64_t> values_;
  std::vector<size_t> table_;
};

template <typename scalar_t>
Tally tally_typed(const scalar_t* prediction,
                  const scalar_t* truth,
                  c10::IntArrayRef size_zyx,
                  const std::vector<int64_t>& values,
                  std::optional<int64_t> ignore_value) {
  const NumberOfValue number_of(values);
  const int64_t height = size_zyx[1], width = size_zyx[2];
  Tally total(values.size() + 1);
  std::mutex merging;
  at::parallel_for(0,
                   size_zyx[0] * height,
                   std::max<int64_t>(1, 32768 / std::max<int64_t>(1, width)),
                   [&](int64_t begin, int64_t end) {
                     Tally part(values.size() + 1);
                     for (int64_t row = begin; row < end; ++row)
                       for (int64_t x = 0; x < width; ++x) {
                         const int64_t voxel = row * width + x;
                         if (ignore_value && static_cast<int64_t>(truth[voxel]) == *ignore_value)
                           continue;
                         const size_t predicted =
                             number_of(static_cast<int64_t>(prediction[voxel]));
                         const size_t actual = number_of(static_cast<int64_t>(truth[voxel]));
                         ++part.at(predicted, actual);
                         if (predicted)
                           part.boxes[predicted].include({row / height, row % height, x});
                         if (actual) part.boxes[actual].include({row / height, row % height, x});
                       }
                     const std::lock_guard lock(merging);
                     total.add(part);
                   });
  return total;
}

Tally tally(const at::Tensor& prediction,
            const at::Tensor& truth,
            const std::vector<int64_t>& values,
            std::optional<int64_t> ignore_value) {
  Tally result(0);
  AT_DISPATCH_INTEGRAL_TYPES_AND(at::kBool, truth.scalar_type(), "score_label_map", [&] {
    result = tally_typed(prediction.const_data_ptr<scalar_t>(),
                         truth.const_data_ptr<scalar_t>(),
                         truth.sizes(),
                         values,
                         ignore_value);
  });
  return result;
}

at::Tensor belongs_to(const at::Tensor& labels, const std::vector<int64_t>& values) {
  at::Tensor mask = labels.eq(values.front());
  for (size_t i = 1; i < values.size(); ++i) mask.logical_or_(labels.eq(values[i]));
  return mask;
}

Confusion confusion_of(Tally& tally, const std::vector<bool>& member) {
  Confusion counts;
  for (size_t predicted = 0; predicted < tally.size; ++predicted)
    for (size_t actual = 0; actual < tally.size; ++actual) {
      int64_t& part = member[predicted]
                          ? (member[actual] ? counts.true_positive : counts.false_positive)
                          : (member[actual] ? counts.false_negative : counts.true_negative);
      part += tally.at(predicted, actual);
    }
  return counts;
}

void set_distances(ClassScores& scores, double distance) {
  scores.hausdorff_mm = scores.hd95_mm = scores.assd_mm = distance;
  scores.average_prediction_to_truth_mm = scores.average_truth_to_prediction_mm = distance;
}

void set_distances(ClassScores& scores, const SurfaceDistances& distances, double tolerance_mm) {
  scores.hausdorff_mm = distances.hausdorff();
  scores.hd95_mm = distances.hausdorff_percentile(95);
  scores.assd_mm = distances.average_symmetric();
  scores.average_prediction_to_truth_mm = distances.average_prediction_to_truth();
  scores.average_truth_to_prediction_mm = distances.average_truth_to_prediction();
  scores.nsd = distances.within(tolerance_mm);
}

// Everything that follows from counts alone, and the conventions for empty masks.
ClassScores scores_from_counts(const Confusion& counts,
                               double diagonal_mm,
                               double voxel_ml,
                               Protocol protocol) {
  ClassScores scores;
  scores.counts = counts;
  scores.dice = counts.dice();
  scores.iou = counts.iou();
  scores.precision = counts.precision();
  scores.recall = counts.recall();
  scores.specificity = counts.specificity();
  scores.predicted_ml = static_cast<double>(counts.predicted()) * voxel_ml;
  scores.actual_ml = static_cast<double>(counts.actual()) * voxel_ml;
  scores.volume_error_ml = scores.predicted_ml - scores.actual_ml;
  scores.relative_volume_error = ratio(counts.predicted() - counts.actual(), counts.actual());
  scores.hd95_voxels = kUndefined;

  const bool both_empty = counts.predicted() == 0 && counts.actual() == 0;
  scores.nsd = both_empty ? kUndefined : 0;
  set_distances(scores, both_empty ? kUndefined : diagonal_mm);
  if (protocol == Protocol::kTransUnet && (counts.predicted() == 0 || counts.actual() == 0)) {
    scores.dice = counts.predicted() > 0 ? 1 : 0;
    scores.hd95_mm = scores.hd95_voxels = 0;
  }
  return scores;
}

}  // namespace

double Confusion::dice() const {
  return ratio(2 * true_positive, predicted() + actual());
}
double Confusion::iou() const {
  return ratio(true_positive, true_positive + false_positive + false_negative);
}
double Confusion::precision() const {
  return ratio(true_positive, predicted());
}
double Confusion::recall() const {
  return ratio(true_positive, actual());
}
double Confusion::specificity() const {
  return ratio(true_negative, true_negative + false_positive);
}

std::vector<ClassScores> score_label_map(const at::Tensor& prediction,
                                         const at::Tensor& truth,
                                         const std::vector<std::vector<int64_t>>& classes,
                                         c10::ArrayRef<double> spacing_mm,
                                         const ScoringOptions& options) {
  TORCH_CHECK(truth.dim() == 2 || truth.dim() == 3,
              "score_label_map: [Z,Y,X] or [Y,X], not ",
              truth.sizes());
  TORCH_CHECK(prediction.sizes() == truth.sizes(),
              "score_label_map: prediction ",
              prediction.sizes(),
              ", truth ",
              truth.sizes());
  TORCH_CHECK(static_cast<int64_t>(spacing_mm.size()) == truth.dim(),
              "score_label_map: ",
              spacing_mm.size(),
              " spacings for ",
              truth.dim(),
              " axes");
  std::vector<int64_t> values;
  for (const auto& members : classes) {
    TORCH_CHECK(!members.empty(), "score_label_map: a class without label values");
    values.insert(values.end(), members.begin(), members.end());
  }
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());

  const at::ScalarType type = at::promote_types(prediction.scalar_type(), truth.scalar_type());
  at::Tensor predicted = prediction.to(type).contiguous();
  at::Tensor actual = truth.to(type).contiguous();
  const bool flat = truth.dim() == 2;
  Tally found = tally(flat ? predicted.unsqueeze(0) : predicted,
                      flat ? actual.unsqueeze(0) : actual,
                      values,
                      options.ignore_value);

  const double diagonal_mm = image_diagonal(truth.sizes(), spacing_mm);
  double voxel_ml = 1e-3;
  for (const double step : spacing_mm) voxel_ml *= step;
  const std::vector<double> unit_spacing(spacing_mm.size(), 1.0);

  std::vector<ClassScores> result;
  for (const auto& members : classes) {
    std::vector<bool> member(found.size, false);
    Box box;
    for (const int64_t value : members) {
      const auto number =
          std::lower_bound(values.begin(), values.end(), value) - values.begin() + 1;
      member[static_cast<size_t>(number)] = true;
      box.add(found.boxes[static_cast<size_t>(number)]);
    }
    ClassScores scores =
        scores_from_counts(confusion_of(found, member), diagonal_mm, voxel_ml, options.protocol);
    if (scores.counts.predicted() > 0 && scores.counts.actual() > 0) {
      at::Tensor predicted_box = predicted, actual_box = actual;
      for (int64_t axis = 0; axis < truth.dim(); ++axis) {
        const auto a = static_cast<size_t>(flat ? axis + 1 : axis);
        predicted_box = predicted_box.narrow(axis, box.begin[a], box.end[a] - box.begin[a]);
        actual_box = actual_box.narrow(axis, box.begin[a], box.end[a] - box.begin[a]);
      }
      at::Tensor predicted_mask = belongs_to(predicted_box, members);
      at::Tensor actual_mask = belongs_to(actual_box, members);
      if (options.ignore_value) {
        const at::Tensor counted = actual_box.ne(*options.ignore_value);
        predicted_mask.logical_and_(counted);
        actual_mask.logical_and_(counted);
      }
      set_distances(scores,
                    surface_distances(predicted_mask, actual_mask, spacing_mm),
                    options.nsd_tolerance_mm);
      if (options.protocol == Protocol::kTransUnet)
        scores.hd95_voxels =
            surface_distances(predicted_mask, actual_mask, unit_spacing).hausdorff_percentile(95);
    }
    result.push_back(scores);
  }
  return result;
}

ClassScores score_mask(const at::Tensor& prediction,
                       const at::Tensor& truth,
                       c10::ArrayRef<double> spacing_mm,
                       const ScoringOptions& options) {
  return score_label_map(prediction.ne(0), truth.ne(0), {{1}}, spacing_mm, options).front();
}

std::map<std::string, std::optional<double>> medpy_scores(const at::Tensor& prediction,
                                                          const at::Tensor& truth,
                                                          c10::ArrayRef<double> spacing) {
  const std::vector<double> unit(static_cast<size_t>(truth.dim()), 1.0);
  if (spacing.empty()) spacing = unit;
  const ClassScores scores = score_mask(prediction, truth, unit);
  const bool both_empty = scores.counts.predicted() == 0 && scores.counts.actual() == 0;
  std::map<std::string, std::optional<double>> named{{"dc", scores.dice},
                                                     {"jc", both_empty ? 1.0 : scores.iou},
                                                     {"precision", scores.precision},
                                                     {"recall", scores.recall},
                                                     {"sensitivity", scores.recall},
                                                     {"specificity", scores.specificity},
                                                     {"hd", std::nullopt},
                                                     {"hd95", std::nullopt},
                                                     {"asd", std::nullopt},
                                                     {"assd", std::nullopt},
                                                     {"asd_truth_to_pred", std::nullopt},
                                                     {"hd95_unit_spacing", std::nullopt}};
  const SurfaceDistances distances = surface_distances(prediction, truth, spacing);
  if (!distances.defined()) return named;
  named["hd"] = distances.hausdorff();
  named["hd95"] = distances.hausdorff_percentile(95);
  named["asd"] = distances.average_prediction_to_truth();
  named["assd"] = distances.average_symmetric();
  named["asd_truth_to_pred"] = distances.average_truth_to_prediction();
  named["hd95_unit_spacing"] = scores.hd95_mm;
  return named;
}

std::pair<double, double> transunet_scores(const at::Tensor& prediction, const at::Tensor& truth) {
  const std::vector<double> unit(static_cast<size_t>(truth.dim()), 1.0);
  ScoringOptions options;
  options.protocol = Protocol::kTransUnet;
  const ClassScores scores = score_mask(prediction, truth, unit, options);
  return {scores.dice, scores.hd95_mm};
}

}  // namespace vireo
