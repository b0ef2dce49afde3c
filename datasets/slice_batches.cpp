#include "datasets/slice_batches.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr uint8_t kIgnoredLabel = 255;

SliceView view_of(const CachedCase& source, int64_t slice, int64_t neighbours) {
  const at::Tensor& image = source.image;
  SliceView view;
  view.channels = image.size(0);
  view.height = image.size(2);
  view.width = image.size(3);
  view.pixel_aspect = source.geometry.spacing_mm_zyx[1] / source.geometry.spacing_mm_zyx[2];
  const int64_t depth = image.size(1), plane = view.height * view.width;
  const float* voxels = image.const_data_ptr<float>();
  for (int64_t offset = -neighbours; offset <= neighbours; ++offset) {
    const int64_t at = std::clamp<int64_t>(slice + offset, 0, depth - 1);
    for (int64_t c = 0; c < view.channels; ++c)
      view.planes.push_back(voxels + (c * depth + at) * plane);
  }
  view.labels = source.labels.const_data_ptr<uint8_t>() + slice * plane;
  return view;
}

Batch empty_batch(const SliceBatchSettings& settings, int64_t size, int64_t channels) {
  const auto [height, width] = settings.window_yx;
  return {at::empty({size, channels * (2 * settings.neighbours + 1), height, width}, at::kFloat),
          at::empty({size, height, width}, at::kByte)};
}

void check(const std::vector<CachedCase>& cases, const SliceBatchSettings& settings) {
  if (settings.window_yx[0] < 1 || settings.window_yx[1] < 1 || settings.batch_size < 1 ||
      settings.neighbours < 0)
    throw Error("batches need a window and a batch size of at least 1");
  for (const CachedCase& source : cases) {
    const at::Tensor &image = source.image, &labels = source.labels;
    const bool fits = image.defined() && labels.defined() && image.dim() == 4 &&
                      image.is_contiguous() && image.scalar_type() == at::kFloat &&
                      labels.is_contiguous() && labels.scalar_type() == at::kByte &&
                      image.sizes().slice(1) == labels.sizes();
    if (!fits)
      throw DataError(
          source.name,
          "a case for training needs a float32 image [C, D, H, W] and uint8 labels [D, H, W]");
    if (image.size(0) != cases[0].image.size(0))
      throw DataError(source.name,
                      "has " + std::to_string(image.size(0)) + " channel(s), but " + cases[0].name +
                          " has " + std::to_string(cases[0].image.size(0)));
  }
}

std::vector<CachedCase> checked(std::vector<CachedCase> cases, const SliceBatchSettings& settings) {
  check(cases, settings);
  return cases;
}

}  // namespace

SliceBatches::SliceBatches(std::vector<CachedCase> cases,
                           const SliceBatchSettings& settings,
                           const Augmentation& augmentation)
    : cases_(checked(std::move(cases), settings)),
      settings_(settings),
      augmentation_(augmentation),
      sampler_(cases_, settings.window_yx, settings.foreground_fraction, settings.seed) {}

Batch SliceBatches::make(int64_t index) const {
  const auto [height, width] = settings_.window_yx;
  Batch batch = empty_batch(settings_, settings_.batch_size, cases_[0].image.size(0));
  const int64_t image_size = batch.image.stride(0), pixels = height * width;
  for (int64_t b = 0; b < settings_.batch_size; ++b) {
    const int64_t sample = index * settings_.batch_size + b;
    Random random{settings_.seed, static_cast<uint64_t>(sample)};
    const SliceChoice choice = sampler_.choose(sample, random);
    cut_and_augment(augmentation_,
                    view_of(cases_[choice.case_index], choice.slice, settings_.neighbours),
                    {height, width, choice.top, choice.left},
                    random,
                    batch.image.mutable_data_ptr<float>() + b * image_size,
                    batch.target.mutable_data_ptr<uint8_t>() + b * pixels);
  }
  return batch;
}

SliceTiles::SliceTiles(std::vector<CachedCase> cases,
                       const SliceBatchSettings& settings,
                       int64_t slices_per_case)
    : cases_(checked(std::move(cases), settings)), settings_(settings) {
  const auto [window_y, window_x] = settings.window_yx;
  for (size_t c = 0; c < cases_.size(); ++c) {
    const int64_t depth = cases_[c].image.size(1);
    const int64_t height = cases_[c].image.size(2), width = cases_[c].image.size(3);
    const int64_t taken = slices_per_case > 0 ? std::min(slices_per_case, depth) : depth;
    for (int64_t i = 0; i < taken; ++i)
      for (int64_t y = 0; y < height; y += window_y)
        for (int64_t x = 0; x < width; x += window_x) {
          const SliceChoice place{c,
                                  (2 * i + 1) * depth / (2 * taken),
                                  window_start(height, window_y, y),
                                  window_start(width, window_x, x)};
          tiles_.push_back(
              {place, place.top < 0 ? 0 : y - place.top, place.left < 0 ? 0 : x - place.left});
        }
  }
}

int64_t SliceTiles::batch_count() const {
  return (static_cast<int64_t>(tiles_.size()) + settings_.batch_size - 1) / settings_.batch_size;
}

Batch SliceTiles::make(int64_t index) const {
  const auto [height, width] = settings_.window_yx;
  const int64_t first = index * settings_.batch_size;
  const int64_t size = std::min(settings_.batch_size, static_cast<int64_t>(tiles_.size()) - first);
  Batch batch = empty_batch(settings_, size, cases_[0].image.size(0));
  for (int64_t b = 0; b < size; ++b) {
    const Tile& tile = tiles_[static_cast<size_t>(first + b)];
    Random unused{0};
    uint8_t* labels = batch.target.mutable_data_ptr<uint8_t>() + b * height * width;
    cut_and_augment(Augmentation{},
                    view_of(cases_[tile.place.case_index], tile.place.slice, settings_.neighbours),
                    {height, width, tile.place.top, tile.place.left},
                    unused,
                    batch.image.mutable_data_ptr<float>() + b * batch.image.stride(0),
                    labels);
    std::fill_n(labels, tile.repeated_rows * width, kIgnoredLabel);
    for (int64_t y = 0; y < height; ++y)
      std::fill_n(labels + y * width, tile.repeated_columns, kIgnoredLabel);
  }
  return batch;
}

}  // namespace vireo
