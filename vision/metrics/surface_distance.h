#pragma once

#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

namespace vireo {

/// The surface of a mask: its voxels that one erosion with the face-connected element (4 neighbours
/// in 2-D, 6 in 3-D) removes; outside the image counts as background. mask: CPU, not zero = inside.
/// Returns bool of the same shape.
at::Tensor mask_surface(const at::Tensor& mask);

/// Distances between the surfaces of two masks on one grid, voxel centre to voxel centre, in the
/// spacing's unit. Definitions as in MedPy 0.5; each function needs both lists non-empty.
struct SurfaceDistances {
  std::vector<double> prediction_to_truth;  ///< one per surface voxel of the prediction
  std::vector<double> truth_to_prediction;  ///< one per surface voxel of the truth

  bool defined() const { return !prediction_to_truth.empty() && !truth_to_prediction.empty(); }
  double hausdorff() const;  ///< the largest of both lists
  /// The percentile, linearly interpolated, of both lists pooled.
  double hausdorff_percentile(double percent) const;
  double average_prediction_to_truth() const;
  double average_truth_to_prediction() const;
  double average_symmetric() const;  ///< mean of both lists pooled
  /// Share of both lists pooled that is at most `tolerance`: the normalised surface Dice, counted
  /// in surface voxels.
  double within(double tolerance) const;
};

/// Both lists are empty when either mask is. Masks [..] of any integer type or bool, on the CPU, at
/// most 3 axes; the work is done inside the box that holds both.
SurfaceDistances surface_distances(const at::Tensor& prediction,
                                   const at::Tensor& truth,
                                   c10::ArrayRef<double> spacing);

}  // namespace vireo
