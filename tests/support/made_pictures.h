#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "datasets/picture_set.h"
#include "datasets/random.h"

namespace vireo::test {

/// Grey pictures of three classes, 12 x 12: noise with a bright bar across, down, or none.
inline PictureSet made_pictures(int64_t count, uint64_t seed = 0) {
  PictureSet set;
  set.name = "made";
  set.class_names = {"across", "down", "none"};
  set.channels = 1;
  set.mean = {0.4};
  set.sd = {0.2};
  const auto pixels = std::make_shared<std::vector<at::Tensor>>();
  for (int64_t i = 0; i < count; ++i) {
    Random random{seed, static_cast<uint64_t>(i), 3};
    PictureItem item;
    item.name = "picture_" + std::to_string(i);
    item.label = i % 3;
    set.items.push_back(item);
    at::Tensor picture = at::empty({12, 12, 1}, at::kByte);
    const int64_t at = 3 + random.below(6);
    for (int64_t y = 0; y < 12; ++y)
      for (int64_t x = 0; x < 12; ++x) {
        const bool bar = item.label == 0 ? y == at : item.label == 1 && x == at;
        picture[y][x][0] = static_cast<int64_t>(random.uniform(40, 100)) + (bar ? 120 : 0);
      }
    pixels->push_back(picture);
  }
  set.picture = [pixels](int64_t item) { return (*pixels)[static_cast<size_t>(item)]; };
  return set;
}

}  // namespace vireo::test
