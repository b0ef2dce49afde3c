#pragma once

#include <filesystem>

#include <ATen/Functions.h>

#include "datasets/cache_writer.h"
#include "datasets/picture_shards.h"

// Prepared caches of a few voxels and pixels.
namespace vireo::fuzz {

inline std::filesystem::path write_small_cache(const std::filesystem::path& folder) {
  Preparation preparation;
  preparation.dataset_name = "small";
  preparation.channels = {{"MRI", ChannelNormalization::Kind::kZScore}};
  preparation.labels = {{"background", 0, {}}, {"one", 1, {}}};
  PreparedCase one;
  one.name = "a";
  one.image = at::ones({1, 2, 3, 4});
  one.labels = at::ones({2, 3, 4}, at::kByte);
  one.geometry.size_zyx = one.native.size_zyx = {2, 3, 4};
  write_prepared_cache(folder, preparation, {one}, {{{"a"}, {"a"}}});
  return folder;
}

inline constexpr const char* kSmallInputs = "inputs";

inline std::filesystem::path write_small_picture_cache(const std::filesystem::path& folder) {
  PictureSet set;
  set.name = "small";
  set.class_names = {"cat", "dog"};
  set.mean = set.sd = {0.5, 0.5, 0.5};
  set.items = {{"a.png", 0, 1, Part::kTrain, 0}, {"b.png", 1, -1, Part::kVal, -1}};
  PictureStorage storage;
  std::filesystem::create_directories(folder);
  PictureShards shards(folder, kSmallInputs, 2, 1 << 20);
  for (int64_t i = 0; i < 2; ++i) shards.add(i, at::ones({2, 3, 3}, at::kByte));
  shards.finish();
  for (int64_t i = 0; i < 2; ++i) shards.locate(i, storage);
  write_picture_cache(folder, set, storage, kSmallInputs);
  return folder;
}

}  // namespace vireo::fuzz
