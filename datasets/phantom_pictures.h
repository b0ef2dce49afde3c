#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/picture_set.h"

// Made-up photographs of skin lesions in four classes: data to try classifiers on, for demos and
// tests. Nothing in them comes from a patient.
namespace vireo {

/// Their height and width in pixels.
inline constexpr int64_t kPhantomPictureSide = 64;

struct PhantomPicture {
  at::Tensor pixels;         ///< uint8 [H, W, 3], red first
  int64_t label = 0;         ///< of phantom_picture_classes()
  int64_t patient = 0;       ///< from 0; two pictures each, of one skin
  Part part = Part::kTrain;  ///< by patient: 7 of 10 train, 1 validates, 2 are for the test
};

/// regular: an even border, mottled inside; irregular: the same with a ragged border; globules:
/// round dots inside; streaks: rays that reach the border.
const std::vector<std::string>& phantom_picture_classes();

/// Picture number `index` of a seed: always the same bytes, whatever the threads. The class decides
/// about shape and texture alone: how many pixels are lesion, how dark they are, colours, light,
/// place, hairs, blur and noise are drawn from the same distributions for all.
PhantomPicture make_phantom_picture(int64_t index, uint64_t seed);

}  // namespace vireo
