#pragma once

#include <cstdint>
#include <vector>

#include "datasets/random.h"
#include "vision/core/config_table.h"

namespace vireo {

/// Drawn uniformly from [low, high] in a share `probability` of the samples.
struct RandomRange {
  double probability = 0;
  double low = 0, high = 0;
};

/// What is done to a slice while it is cut to the window. Everything off is the plain cut.
struct Augmentation {
  double mirror_y = 0, mirror_x = 0;  ///< probabilities
  double quarter_turns = 0;           ///< probability of a turn by 0, 90, 180 or 270 degrees
  RandomRange rotation_degrees;
  RandomRange scaling;             ///< magnification; 2 shows things twice as large
  RandomRange translation_pixels;  ///< along each axis
  RandomRange elastic_pixels;      ///< sd of the displacement of control points
  double elastic_spacing = 16;     ///< pixels between control points
  RandomRange noise_sd;            ///< of additive Gaussian noise, in prepared intensities
  RandomRange blur_sigma_pixels;
  RandomRange brightness;      ///< factor
  RandomRange contrast;        ///< factor of the distance from the mean; the range is kept
  RandomRange low_resolution;  ///< share of the resolution that is left, in (0, 1]
  RandomRange gamma;           ///< exponent over the range; mean and sd are kept
  /// true: the class with the largest bilinear weight; false: the nearest pixel's class.
  bool smooth_labels = true;

  /// Reads the [augment] table (strictly): `mirror_y`, `mirror_x`, `quarter_turns`,
  /// `elastic_spacing`, `smooth_labels`, and for each range a table such as
  /// `rotation_degrees = { probability = 0.3, range = [-30, 30] }`. What is absent is off.
  static Augmentation from_config(ConfigTable table);
};

/// A slice as it lies in memory, neighbours included.
struct SliceView {
  std::vector<const float*> planes;  ///< each [height, width]; offset-major: offset * channels + c
  const uint8_t* labels = nullptr;   ///< [height, width], or none
  int64_t height = 0, width = 0;
  int64_t channels = 1;     ///< image channels: planes p and p + channels show the same one
  double pixel_aspect = 1;  ///< spacing along y / spacing along x
};

/// The window's place in a slice: out pixel (i, j) shows slice pixel (top + i, left + j) before
/// augmentation. It may reach beyond the slice.
struct SliceWindow {
  int64_t height = 0, width = 0;
  int64_t top = 0, left = 0;
};

/// Cuts and augments in one sampling pass. `image` receives [planes, window] (bilinear, zero beyond
/// the slice), `labels` (unless null) [window] (255 beyond the slice). Intensity changes are drawn
/// per image channel and shared by its neighbouring slices. Deterministic in `random`.
void cut_and_augment(const Augmentation& augmentation,
                     const SliceView& slice,
                     const SliceWindow& window,
                     Random& random,
                     float* image,
                     uint8_t* labels);

}  // namespace vireo
