#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "datasets/prepared_cache.h"
#include "datasets/random.h"

namespace vireo::test {

/// A case [channels, depth, height, width] with noise and, in every slice but the first, a bright
/// disc (class 1) beside a dark one (class 2), at a place that `seed` decides.
inline CachedCase made_case(const std::string& name,
                            uint64_t seed,
                            int64_t depth = 6,
                            int64_t height = 24,
                            int64_t width = 20,
                            int64_t channels = 1) {
  Random random{seed, 77};
  CachedCase made;
  made.name = name;
  made.image = at::empty({channels, depth, height, width}, at::kFloat);
  made.labels = at::zeros({depth, height, width}, at::kByte);
  made.geometry.size_zyx = made.native.size_zyx = {depth, height, width};
  made.slices_of_class.resize(2);
  const double cy = static_cast<double>(height) * random.uniform(0.4, 0.6);
  const double cx = static_cast<double>(width) * random.uniform(0.35, 0.65);
  const double radius = static_cast<double>(std::min(height, width)) / 6;
  auto labels = made.labels.accessor<uint8_t, 3>();
  auto image = made.image.accessor<float, 4>();
  for (int64_t z = 0; z < depth; ++z) {
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x) {
        const auto inside = [&](double oy) {
          return std::hypot(static_cast<double>(y) - cy - oy, static_cast<double>(x) - cx) < radius;
        };
        const uint8_t label = z == 0 ? 0 : inside(-radius) ? 1 : inside(radius) ? 2 : 0;
        labels[z][y][x] = label;
        const double level = label == 1 ? 2.0 : label == 2 ? -2.0 : 0.0;
        for (int64_t c = 0; c < channels; ++c)
          image[c][z][y][x] = static_cast<float>(level + 0.3 * random.normal());
      }
    if (z > 0)
      for (auto& slices : made.slices_of_class) slices.push_back(z);
  }
  return made;
}

inline std::vector<CachedCase> made_cases(int64_t count, uint64_t first_seed = 0) {
  std::vector<CachedCase> cases;
  for (int64_t i = 0; i < count; ++i)
    cases.push_back(made_case("case_" + std::to_string(i), first_seed + static_cast<uint64_t>(i)));
  return cases;
}

}  // namespace vireo::test
