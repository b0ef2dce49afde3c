#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/picture_set.h"

// What colours alone tell: logistic regression on colour histograms, the plain answer that a
// network has to beat. Needs no image files.
namespace vireo {

/// The share of each picture's pixels that falls into each of 8 x 8 x 8 colours, or of 64 grey
/// levels where the set has one channel: float64 [items, bins]. Pictures are taken as they are.
/// Throws DataError and Interrupted.
at::Tensor colour_histograms(const PictureSet& set, const std::vector<int64_t>& items);

struct HistogramBaseline {
  at::Tensor mean, sd;      ///< [bins], of the training pictures; sd 1 where nothing varies
  at::Tensor weight, bias;  ///< [classes, bins], [classes]
  double l2 = 0;            ///< strength: half of it times the squared weights is added to the loss
  int64_t choosing = 0;     ///< pictures on which the strength was chosen

  /// histograms [N, bins] -> logits [N, classes]
  at::Tensor logits(const at::Tensor& histograms) const;
};

/// Fits softmax (multi-label: logistic) regression with mean cross entropy on standardised
/// histograms [items, bins] by L-BFGS, to its minimum. The strength out of 1e-4 ... 1e2 is the one
/// with the least loss on a fifth of the items, patients kept whole, which the fit for choosing
/// leaves out. Throws Error for fewer than two items.
HistogramBaseline fit_histogram_baseline(const PictureSet& set,
                                         const std::vector<int64_t>& items,
                                         const at::Tensor& histograms,
                                         uint32_t seed = 1);

}  // namespace vireo
