#include "datasets/prepared_slices.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <utility>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include "vision/core/error.h"
#include "vision/transforms/resample.h"

namespace vireo {
namespace {

using Normalized = ChannelNormalization::Kind;

bool all_finite(const at::Tensor& values) {
  if (values.scalar_type() != at::kFloat) return true;
  const float* value = values.const_data_ptr<float>();
  std::atomic<bool> finite{true};
  at::parallel_for(0, values.numel(), 1 << 18, [&](int64_t begin, int64_t end) {
    bool all = true;
    for (int64_t i = begin; i < end; ++i) all &= std::isfinite(value[i]);
    if (!all) finite = false;
  });
  return finite;
}

}  // namespace

Geometry prepared_geometry(const Preparation& preparation, const Geometry& turned) {
  const Geometry stored = turned.permuted(prepared_axes(preparation, turned));
  std::array<int64_t, 3> size = stored.size_zyx;
  if (const auto& wanted = preparation.slice_size)
    return stored.resized({size[0], (*wanted)[0], (*wanted)[1]});
  if (!preparation.spacing_mm) return stored;
  for (int i = 0; i < 3; ++i) {
    const double wanted = (*preparation.spacing_mm)[i];
    if (wanted <= 0) continue;
    const double extent = static_cast<double>(size[i]) * stored.spacing_mm_zyx[i];
    size[i] = std::max<int64_t>(1, std::llround(extent / wanted));
  }
  return stored.resized(size);
}

PreparedSlices::PreparedSlices(std::string name,
                               Volume image,
                               const Reorientation& turn,
                               const Preparation& preparation)
    : name_(std::move(name)), image_(std::move(image)) {
  image_.values = image_.values.contiguous();
  const int64_t stored = image_.values.size(0);
  const auto wanted = static_cast<int64_t>(preparation.channels.size());
  const bool repeated = stored == 1 && image_.full_scale > 0 && wanted == 3;
  if (!repeated && stored != wanted)
    throw DataError(
        name_,
        "channels: " + std::to_string(stored) + " found, " + std::to_string(wanted) + " expected");
  if (!all_finite(image_.values)) throw DataError(name_, "holds NaN or infinite voxels");

  const Geometry turned = reoriented(image_.geometry, turn);
  const std::array<int, 3> order = prepared_axes(preparation, turned);
  for (int i = 0; i < 3; ++i) {
    axes_.order_zyx[i] = turn.order_zyx[order[i]];
    axes_.flipped_zyx[i] = turn.flipped_zyx[order[i]];
    stored_size_[i] = image_.geometry.size_zyx[axes_.order_zyx[i]];
  }
  geometry_ = prepared_geometry(preparation, turned);
  averages_ = preparation.slice_size && image_.full_scale > 0;

  for (int64_t c = 0; c < wanted; ++c) {
    const ChannelNormalization& how = preparation.channels[static_cast<size_t>(c)];
    if (how.kind == Normalized::kRgb && image_.full_scale <= 0)
      throw DataError(name_,
                      "channel " + how.channel_name +
                          " is to be normalised as a colour, but is no 8- or 16-bit picture");
    Normalization one{how, repeated ? 0 : c, how.mean, how.sd};
    if (how.kind == Normalized::kZScore) measure(one);
    normalizations_.push_back(one);
  }
}

at::Tensor PreparedSlices::read(int64_t first, int64_t count) const {
  if (averages_) {
    const auto& size = geometry_.size_zyx;
    return at::_upsample_bilinear2d_aa(normalised(first, count).transpose(0, 1).contiguous(),
                                       {size[1], size[2]},
                                       /*align_corners=*/false)
        .transpose(0, 1)
        .contiguous();
  }
  return resample_slices([this](int64_t from, int64_t slices) { return normalised(from, slices); },
                         stored_size_,
                         geometry_.size_zyx,
                         Interpolation::kCubic,
                         first,
                         count);
}

// Slices of a channel along the prepared axes, as stored: into float32 [count, H, W].
void PreparedSlices::read_stored(int64_t channel, int64_t first, const at::Tensor& into) const {
  const auto& order = axes_.order_zyx;
  const int64_t count = into.size(0);
  const int64_t begin = axes_.flipped_zyx[0] ? stored_size_[0] - first - count : first;
  at::Tensor slices =
      image_.values[channel].permute({order[0], order[1], order[2]}).narrow(0, begin, count);
  std::vector<int64_t> flipped;
  for (int64_t i = 0; i < 3; ++i)
    if (axes_.flipped_zyx[static_cast<size_t>(i)]) flipped.push_back(i);
  if (!flipped.empty()) slices = slices.flip(flipped);
  into.copy_(slices);
}

at::Tensor PreparedSlices::normalised(int64_t first, int64_t count) const {
  at::Tensor slices = at::empty({channels(), count, stored_size_[1], stored_size_[2]}, at::kFloat);
  for (int64_t c = 0; c < channels(); ++c) {
    const Normalization& one = normalizations_[static_cast<size_t>(c)];
    at::Tensor values = slices[c];
    read_stored(one.channel, first, values);
    switch (one.how.kind) {
      case Normalized::kNone:
        continue;
      case Normalized::kCt:
        values.clamp_(one.how.lower, one.how.upper);
        break;
      case Normalized::kRgb:
        values.div_(image_.full_scale);
        break;
      case Normalized::kZScore:
        break;
    }
    values.sub_(one.mean).div_(one.sd);
  }
  return slices;
}

// Mean and standard deviation of the non-zero voxels: sums in float64 slice by slice, added up in
// order.
void PreparedSlices::measure(Normalization& one) const {
  const int64_t depth = stored_size_[0];
  std::vector<double> sums(static_cast<size_t>(depth)), counts(sums.size());
  const auto add_up = [&](double centre, bool squared) {
    at::parallel_for(0, depth, 1, [&](int64_t begin, int64_t end) {
      const at::Tensor slice = at::empty({1, stored_size_[1], stored_size_[2]}, at::kFloat);
      for (int64_t z = begin; z < end; ++z) {
        read_stored(one.channel, z, slice);
        const float* value = slice.const_data_ptr<float>();
        double sum = 0;
        int64_t count = 0;
        for (int64_t i = 0; i < slice.numel(); ++i) {
          if (value[i] == 0) continue;
          const double x = static_cast<double>(value[i]) - centre;
          sum += squared ? x * x : x;
          ++count;
        }
        sums[static_cast<size_t>(z)] = sum;
        counts[static_cast<size_t>(z)] = static_cast<double>(count);
      }
    });
    const double count = std::accumulate(counts.begin(), counts.end(), 0.0);
    return count > 0 ? std::accumulate(sums.begin(), sums.end(), 0.0) / count : 0.0;
  };
  one.mean = add_up(0, false);
  one.sd = std::max(std::sqrt(add_up(one.mean, true)), 1e-8);
}

}  // namespace vireo
