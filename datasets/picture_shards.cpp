#include "datasets/picture_shards.h"

#include <ATen/ATen.h>

#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {

namespace fs = std::filesystem;

// In pixels; the product of two of them cannot overflow.
constexpr int64_t kLargestSide = 1 << 20;

PictureShards::PictureShards(fs::path folder,
                             std::string inputs,
                             int64_t item_count,
                             int64_t shard_bytes)
    : folder_(std::move(folder)),
      inputs_(std::move(inputs)),
      shard_bytes_(shard_bytes),
      places_(static_cast<size_t>(item_count)) {}

int64_t PictureShards::take_over(const std::function<void(int64_t, const at::Tensor&)>& visit) {
  while (fs::exists(picture_shard(folder_, number_)) && read_shard(visit)) ++number_;
  remove_from(number_);
  int64_t held = 0;
  for (const Place& place : places_) held += place.shard >= 0;
  return held;
}

// False, and nothing is taken, when the shard is not one of this preparation's.
bool PictureShards::read_shard(const std::function<void(int64_t, const at::Tensor&)>& visit) {
  try {
    const SafetensorsFile file = SafetensorsFile::open(picture_shard(folder_, number_));
    const auto inputs = file.metadata().find("inputs");
    if (inputs == file.metadata().end() || inputs->second != inputs_) return false;
    const at::Tensor pixels = file.tensor("pixels"), index = file.tensor("items");
    if (pixels.scalar_type() != at::kByte || pixels.dim() != 1 ||
        index.scalar_type() != at::kLong || index.dim() != 2 || index.size(1) != 4)
      return false;
    // Item, height, width, channels by row.
    const auto rows = index.accessor<int64_t, 2>();
    std::vector<Place> held;
    int64_t end = 0;
    for (int64_t i = 0; i < rows.size(0); ++i) {
      const int64_t height = rows[i][1], width = rows[i][2], channels = rows[i][3];
      if (rows[i][0] < 0 || rows[i][0] >= static_cast<int64_t>(places_.size()) || height < 1 ||
          width < 1 || height > kLargestSide || width > kLargestSide ||
          (channels != 1 && channels != 3) || height * width * channels > pixels.numel() - end)
        return false;
      held.push_back({number_, end, {height, width, channels}});
      end += height * width * channels;
    }
    for (int64_t i = 0; i < rows.size(0); ++i) {
      const Place& place = held[static_cast<size_t>(i)];
      const auto& [height, width, channels] = place.size_hwc;
      places_[static_cast<size_t>(rows[i][0])] = place;
      visit(rows[i][0],
            pixels.narrow(0, place.offset, height * width * channels).view(place.size_hwc));
    }
    return true;
  } catch (const DataError&) {
    return false;
  }
}

void PictureShards::remove_from(int64_t number) {
  while (fs::remove(picture_shard(folder_, number))) ++number;
}

void PictureShards::add(int64_t item, const at::Tensor& picture) {
  if (static_cast<int64_t>(pixels_.size()) + picture.numel() > shard_bytes_) finish();
  places_[static_cast<size_t>(item)] = {number_,
                                        static_cast<int64_t>(pixels_.size()),
                                        {picture.size(0), picture.size(1), picture.size(2)}};
  items_.push_back(item);
  const uint8_t* values = picture.const_data_ptr<uint8_t>();
  pixels_.insert(pixels_.end(), values, values + picture.numel());
}

void PictureShards::finish() {
  if (items_.empty()) return;
  at::Tensor index = at::empty({static_cast<int64_t>(items_.size()), 4}, at::kLong);
  auto* row = index.mutable_data_ptr<int64_t>();
  for (const int64_t item : items_) {
    *row++ = item;
    for (const int64_t extent : places_[static_cast<size_t>(item)].size_hwc) *row++ = extent;
  }
  const at::Tensor pixels =
      at::from_blob(pixels_.data(), {static_cast<int64_t>(pixels_.size())}, at::kByte);
  write_safetensors(picture_shard(folder_, number_++),
                    {{"pixels", pixels}, {"items", index}},
                    {{"inputs", inputs_}});
  pixels_.clear();
  items_.clear();
}

void PictureShards::locate(int64_t item, PictureStorage& storage) const {
  const Place& place = places_[static_cast<size_t>(item)];
  storage.shards.push_back(place.shard);
  storage.offsets.push_back(place.offset);
  storage.sizes_hwc.push_back(place.size_hwc);
}

}  // namespace vireo
