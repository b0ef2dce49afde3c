#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/picture_set.h"

namespace vireo {

/// The shards of a picture cache while it is being made. Each says which items it holds and what
/// it was made from, so that a preparation which was interrupted goes on behind the last of them.
class PictureShards {
 public:
  /// A shard is written when another picture would make it larger than `shard_bytes`.
  PictureShards(std::filesystem::path folder,
                std::string inputs,
                int64_t item_count,
                int64_t shard_bytes);

  /// Takes over the shards that an interrupted run with the same inputs left: `visit` is shown
  /// each of their pictures. Other shards are removed. Returns the number of pictures.
  int64_t take_over(const std::function<void(int64_t item, const at::Tensor& picture)>& visit);
  /// Removes all shards.
  void clear() { remove_from(0); }

  bool holds(int64_t item) const { return places_[static_cast<size_t>(item)].shard >= 0; }
  void add(int64_t item, const at::Tensor& picture);  ///< uint8 [H, W, C]
  /// Writes what is not written yet.
  void finish();
  /// Adds the item's place to those of the cache.
  void locate(int64_t item, PictureStorage& storage) const;

 private:
  struct Place {
    int64_t shard = -1, offset = 0;
    std::array<int64_t, 3> size_hwc{};
  };
  bool read_shard(const std::function<void(int64_t, const at::Tensor&)>& visit);
  void remove_from(int64_t number);

  std::filesystem::path folder_;
  std::string inputs_;
  int64_t shard_bytes_;
  std::vector<Place> places_;
  int64_t number_ = 0;           // of the shard that is being filled
  std::vector<uint8_t> pixels_;  // its content
  std::vector<int64_t> items_;
};

}  // namespace vireo
