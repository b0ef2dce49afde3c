#include "apps/engine/native_grid.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

// The two samples that a position lies between.
struct Tap {
  int64_t lower, upper;
  float upper_weight;
};

Tap tap(int64_t index, int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double position = std::clamp(
      (static_cast<double>(index) + 0.5) * scale - 0.5, 0.0, static_cast<double>(from - 1));
  const auto lower = static_cast<int64_t>(position);
  return {lower,
          std::min(lower + 1, from - 1),
          static_cast<float>(position - static_cast<double>(lower))};
}

std::vector<Tap> taps(int64_t from, int64_t to) {
  std::vector<Tap> all;
  for (int64_t i = 0; i < to; ++i) all.push_back(tap(i, from, to));
  return all;
}

}  // namespace

NativeGrid::NativeGrid(std::array<int64_t, 3> prepared_size,
                       std::array<int64_t, 3> native_size,
                       SliceSink probabilities)
    : from_(prepared_size),
      to_(native_size),
      sink_(std::move(probabilities)),
      labels_(at::zeros({to_[0], to_[1], to_[2]}, at::kByte)) {}

at::Tensor NativeGrid::slice(int64_t prepared_index) const {
  return prepared_index < slab_first_ ? carried_ : slab_.select(0, prepared_index - slab_first_);
}

void NativeGrid::add(int64_t first, const at::Tensor& probabilities) {
  TORCH_CHECK(first == available_, "slices must come in order");
  const bool same_grid = from_ == to_;
  if (same_grid && !sink_) {
    // Nothing to interpolate: the arg max is taken where the probabilities are.
    labels_.narrow(0, first, probabilities.size(0)).copy_(probabilities.argmax(1));
    available_ += probabilities.size(0);
    emitted_ = available_;
    return;
  }
  if (slab_.defined()) carried_ = slab_.select(0, slab_.size(0) - 1).clone();
  slab_ = probabilities.to(at::kCPU, at::kFloat).contiguous();
  slab_first_ = first;
  available_ = first + slab_.size(0);
  for (; emitted_ < to_[0]; ++emitted_) {
    const Tap z = tap(emitted_, from_[0], to_[0]);
    const int64_t needed = z.upper_weight > 0 ? z.upper : z.lower;
    if (needed >= available_) break;
    emit(emitted_, z.lower, needed, z.upper_weight);
  }
}

void NativeGrid::emit(int64_t native_index, int64_t lower, int64_t upper, float upper_weight) {
  const at::Tensor below = slice(lower), above = slice(upper);
  const int64_t classes = below.size(0), height = from_[1], width = from_[2];
  const auto taps_y = taps(height, to_[1]), taps_x = taps(width, to_[2]);
  if (sink_ && !resampled_.defined()) resampled_ = at::empty({classes, to_[1], to_[2]}, at::kFloat);
  float* const kept = sink_ ? resampled_.mutable_data_ptr<float>() : nullptr;
  const float* const slices[2] = {below.const_data_ptr<float>(), above.const_data_ptr<float>()};
  uint8_t* const labels = labels_.mutable_data_ptr<uint8_t>() + native_index * to_[1] * to_[2];

  at::parallel_for(0, to_[1], 8, [&](int64_t begin, int64_t end) {
    std::vector<float> row(width), best(to_[2]);
    for (int64_t y = begin; y < end; ++y) {
      const Tap& ty = taps_y[y];
      uint8_t* const label = labels + y * to_[2];
      for (int64_t k = 0; k < classes; ++k) {
        // Blend the four rows around, then sample along x.
        const auto line = [&](int i, int64_t at) { return slices[i] + (k * height + at) * width; };
        const float *a = line(0, ty.lower), *b = line(0, ty.upper);
        const float *c = line(1, ty.lower), *d = line(1, ty.upper);
        const float wy = ty.upper_weight, wz = upper_weight;
        for (int64_t x = 0; x < width; ++x)
          row[x] = (1 - wz) * ((1 - wy) * a[x] + wy * b[x]) + wz * ((1 - wy) * c[x] + wy * d[x]);
        float* const out = kept ? kept + (k * to_[1] + y) * to_[2] : nullptr;
        for (int64_t x = 0; x < to_[2]; ++x) {
          const Tap& tx = taps_x[x];
          const float value =
              (1 - tx.upper_weight) * row[tx.lower] + tx.upper_weight * row[tx.upper];
          if (out) out[x] = value;
          if (k == 0 || value > best[x]) {
            best[x] = value;
            label[x] = static_cast<uint8_t>(k);
          }
        }
      }
    }
  });
  if (sink_) sink_(native_index, resampled_);
}

const at::Tensor& NativeGrid::labels() const {
  TORCH_CHECK(available_ == from_[0] && (emitted_ == to_[0]),
              "labels are complete when every slice was added");
  return labels_;
}

}  // namespace vireo
