#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/picture_set.h"
#include "vision/metrics/classification_scores.h"

namespace vireo {

/// Adds a network's answers [B, K] to a list of doubles.
void append_logits(const at::Tensor& output, std::vector<double>& logits);

/// What is true of these pictures, with their patients as groups where every one is known.
ClassifiedSamples truth_of(const PictureSet& set, const std::vector<int64_t>& items);

}  // namespace vireo
