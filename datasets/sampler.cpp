#include "datasets/sampler.h"

#include <algorithm>

#include "vision/core/error.h"

namespace vireo {

int64_t window_start(int64_t size, int64_t window, int64_t at) {
  if (size <= window) return -((window - size) / 2);
  return std::clamp<int64_t>(at, 0, size - window);
}

SliceSampler::SliceSampler(const std::vector<CachedCase>& cases,
                           std::array<int64_t, 2> window_yx,
                           double foreground_fraction,
                           uint64_t seed)
    : cases_(cases), window_yx_(window_yx), foreground_fraction_(foreground_fraction), seed_(seed) {
  std::vector<std::vector<Slice>> of_class;
  for (uint32_t c = 0; c < cases.size(); ++c) {
    for (uint32_t s = 0; s < static_cast<uint32_t>(cases[c].image.size(1)); ++s)
      slices_.push_back({c, s});
    of_class.resize(std::max(of_class.size(), cases[c].slices_of_class.size()));
    for (size_t k = 0; k < cases[c].slices_of_class.size(); ++k)
      for (const int64_t s : cases[c].slices_of_class[k])
        of_class[k].push_back({c, static_cast<uint32_t>(s)});
  }
  if (slices_.empty()) throw Error("there is no slice to train on: the list of cases is empty");
  for (size_t k = 0; k < of_class.size(); ++k) {
    if (of_class[k].empty()) continue;
    labels_.push_back(static_cast<uint8_t>(k + 1));
    slices_of_class_.push_back(std::move(of_class[k]));
  }
}

SliceSampler::Slice SliceSampler::in_shuffled_order(int64_t position) const {
  const auto count = static_cast<uint64_t>(slices_.size());
  const uint64_t pass = static_cast<uint64_t>(position) / count;
  const uint64_t index = static_cast<uint64_t>(position) % count;
  return slices_[shuffled_position(index, count, Random({seed_, 0x5EEDULL, pass}).bits())];
}

std::array<int64_t, 2> SliceSampler::size_of(const Slice& slice) const {
  const at::Tensor& image = cases_[slice.case_index].image;
  return {image.size(2), image.size(3)};
}

bool SliceSampler::look_for(uint8_t label,
                            const Slice& slice,
                            Random& random,
                            SliceChoice& choice) const {
  const auto [height, width] = size_of(slice);
  const uint8_t* labels =
      cases_[slice.case_index].labels.const_data_ptr<uint8_t>() + slice.slice * height * width;
  const int64_t found = std::count(labels, labels + height * width, label);
  if (found == 0) return false;
  int64_t left_over = random.below(found), pixel = 0;
  while (labels[pixel] != label || left_over-- > 0) ++pixel;
  const auto place = [&](int64_t size, int64_t window, int64_t at) {
    return window_start(size, window, at - window / 4 - random.below(window / 2 + 1));
  };
  choice.top = place(height, window_yx_[0], pixel / width);
  choice.left = place(width, window_yx_[1], pixel % width);
  return true;
}

SliceChoice SliceSampler::choose(int64_t sample, Random& random) const {
  SliceChoice choice;
  if (!labels_.empty() && random.chance(foreground_fraction_)) {
    const auto k = static_cast<size_t>(random.below(static_cast<int64_t>(labels_.size())));
    const auto& slices = slices_of_class_[k];
    const Slice& slice =
        slices[static_cast<size_t>(random.below(static_cast<int64_t>(slices.size())))];
    choice.case_index = slice.case_index;
    choice.slice = slice.slice;
    if (look_for(labels_[k], slice, random, choice)) return choice;
  } else {
    const Slice slice = in_shuffled_order(sample);
    choice.case_index = slice.case_index;
    choice.slice = slice.slice;
  }
  const auto [height, width] =
      size_of({static_cast<uint32_t>(choice.case_index), static_cast<uint32_t>(choice.slice)});
  const auto place = [&](int64_t size, int64_t window) {
    return window_start(size, window, random.below(std::max<int64_t>(size - window, 0) + 1));
  };
  choice.top = place(height, window_yx_[0]);
  choice.left = place(width, window_yx_[1]);
  return choice;
}

}  // namespace vireo
