#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

namespace vireo {

/// How voxels of one class were found.
struct Confusion {
  int64_t true_positive = 0;
  int64_t false_positive = 0;
  int64_t false_negative = 0;
  int64_t true_negative = 0;

  int64_t predicted() const { return true_positive + false_positive; }
  int64_t actual() const { return true_positive + false_negative; }

  // Each is NaN when its denominator is zero.
  double dice() const;
  double iou() const;
  double precision() const;
  double recall() const;
  double specificity() const;
};

/// What a class that is empty in the prediction or the truth scores.
///   kStrict:    both empty: nothing is defined, the case does not count for this class. One empty:
///               Dice, IoU and NSD 0, every distance the image's diagonal sqrt(Σ(n_i·spacing_i)²);
///               precision (empty prediction) and recall (empty truth) stay undefined.
///   kTransUnet: the literature's published code. Truth empty, prediction not: Dice 1, HD95 0.
///               Otherwise, both empty included: Dice 0, HD95 0. Everything else as under kStrict.
enum class Protocol { kStrict, kTransUnet };

/// Scores of one class of one case. NaN: not defined. Distances in mm, volumes in ml.
struct ClassScores {
  Confusion counts;
  double dice = 0, iou = 0, precision = 0, recall = 0, specificity = 0;
  double hausdorff_mm = 0;  ///< HD
  double hd95_mm = 0;
  double hd95_voxels = 0;  ///< with unit spacing, as published; under kTransUnet only, else NaN
  double average_prediction_to_truth_mm = 0, average_truth_to_prediction_mm = 0;  ///< ASD
  double assd_mm = 0;
  double nsd = 0;
  double predicted_ml = 0, actual_ml = 0;
  double volume_error_ml = 0;        ///< predicted - actual
  double relative_volume_error = 0;  ///< (predicted - actual) / actual; NaN when actual is 0
};

struct ScoringOptions {
  Protocol protocol = Protocol::kStrict;
  double nsd_tolerance_mm = 1;
  /// Voxels where the truth holds this value count nowhere.
  std::optional<int64_t> ignore_value;
};

/// Scores a label map. prediction and truth: the same shape [Z, Y, X] or [Y, X], an integer type or
/// bool, on the CPU. classes: for each class scored, the label values that belong to it (several: a
/// region). spacing_mm: one per axis. Values of no class are background. Definitions of the
/// distances: vision/metrics/surface_distance.h.
std::vector<ClassScores> score_label_map(const at::Tensor& prediction,
                                         const at::Tensor& truth,
                                         const std::vector<std::vector<int64_t>>& classes,
                                         c10::ArrayRef<double> spacing_mm,
                                         const ScoringOptions& options = {});

/// The same for one mask; not zero = inside.
ClassScores score_mask(const at::Tensor& prediction,
                       const at::Tensor& truth,
                       c10::ArrayRef<double> spacing_mm,
                       const ScoringOptions& options = {});

/// The scores of a pair of masks under the names and conventions of MedPy 0.5: dc, jc, precision,
/// recall, sensitivity, specificity, hd, hd95, asd, assd (with `spacing`), hd95_unit_spacing,
/// asd_truth_to_pred (with `spacing`). NaN where MedPy returns NaN; nothing where it raises. An
/// empty `spacing` is 1 on every axis.
std::map<std::string, std::optional<double>> medpy_scores(const at::Tensor& prediction,
                                                          const at::Tensor& truth,
                                                          c10::ArrayRef<double> spacing = {});

/// (Dice, HD95 with unit spacing) of a pair of masks as published with TransUNet.
std::pair<double, double> transunet_scores(const at::Tensor& prediction, const at::Tensor& truth);

}  // namespace vireo
