#pragma once

#include <cstdint>
#include <vector>

#include "datasets/random.h"

// Intensity changes of augmentation, in place, on planes [height, width] of one image channel.
namespace vireo {

struct Planes {
  std::vector<float*> planes;
  int64_t height = 0, width = 0;

  int64_t pixels() const { return height * width; }
};

void add_noise(const Planes& image, double sd, Random& random);

/// Gaussian, truncated at 3 sigma; edges repeat.
void blur(const Planes& image, double sigma_pixels);

void scale_brightness(const Planes& image, double factor);

/// (x - mean) * factor + mean, clamped to the range that the image had.
void scale_contrast(const Planes& image, double factor);

/// Sampled down to `share` of the resolution (nearest) and back up (bilinear).
void lower_resolution(const Planes& image, double share);

/// x -> x^exponent over the image's range, then back to its mean and standard deviation.
void apply_gamma(const Planes& image, double exponent);

}  // namespace vireo
