#include "vision/transforms/resample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

// For each output position along one axis: which inputs, with which weights.
struct Taps {
  int count = 1;
  std::vector<int64_t> index;  // [out][count]
  std::vector<float> weight;

  int64_t size() const { return static_cast<int64_t>(index.size()) / count; }
};

// Of output positions first..first+size-1 of `out`.
Taps taps_along(int64_t in, int64_t out, Interpolation interpolation, int64_t first, int64_t size) {
  Taps taps;
  taps.count = interpolation == Interpolation::kNearest  ? 1
               : interpolation == Interpolation::kLinear ? 2
                                                         : 4;
  const double ratio = static_cast<double>(in) / static_cast<double>(out);
  for (int64_t o = first; o < first + size; ++o) {
    const double centre = (static_cast<double>(o) + 0.5) * ratio - 0.5;
    const auto add = [&](int64_t index, double weight) {
      taps.index.push_back(std::clamp<int64_t>(index, 0, in - 1));
      taps.weight.push_back(static_cast<float>(weight));
    };
    // A centre exactly between two voxels belongs to the lower one.
    const auto nearest = static_cast<int64_t>(std::ceil(centre - 0.5));
    const auto below = static_cast<int64_t>(std::floor(centre));
    const double t = centre - static_cast<double>(below);
    if (interpolation == Interpolation::kNearest) {
      add(nearest, 1);
    } else if (interpolation == Interpolation::kLinear) {
      add(below, 1 - t);
      add(below + 1, t);
    } else {
      add(below - 1, ((-0.5 * t + 1) * t - 0.5) * t);
      add(below, (1.5 * t - 2.5) * t * t + 1);
      add(below + 1, ((-1.5 * t + 2) * t + 0.5) * t);
      add(below + 2, (0.5 * t - 0.5) * t * t);
    }
  }
  return taps;
}

Taps taps_along(int64_t in, int64_t out, Interpolation interpolation) {
  return taps_along(in, out, interpolation, 0, out);
}

// [outer, in, inner] -> [outer, taps.size(), inner].
at::Tensor resample_axis(const at::Tensor& image, int64_t axis, const Taps& taps) {
  const int64_t in = image.size(axis), out = taps.size();
  auto shape = image.sizes().vec();
  int64_t outer = 1, inner = 1;
  for (int64_t i = 0; i < axis; ++i) outer *= shape[i];
  for (size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  shape[axis] = out;
  at::Tensor result = at::empty(shape, image.options());
  const float* from = image.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  at::parallel_for(0, outer * out, std::max<int64_t>(1, 16384 / inner), [&](int64_t b, int64_t e) {
    for (int64_t row = b; row < e; ++row) {
      const int64_t o = row % out;
      const float* source = from + row / out * in * inner;
      float* target = to + row * inner;
      const int64_t* index = &taps.index[o * taps.count];
      const float* weight = &taps.weight[o * taps.count];
      std::fill(target, target + inner, 0.0F);
      for (int k = 0; k < taps.count; ++k) {
        if (weight[k] == 0) continue;
        const float* line = source + index[k] * inner;
        for (int64_t i = 0; i < inner; ++i) target[i] += weight[k] * line[i];
      }
    }
  });
  return result;
}

void check_size(const std::array<int64_t, 3>& size) {
  if (*std::min_element(size.begin(), size.end()) < 1)
    throw Error("resample: a grid needs at least one voxel along every axis");
}

}  // namespace

at::Tensor resample_slices(const SliceReader& read,
                           const std::array<int64_t, 3>& from_zyx,
                           const std::array<int64_t, 3>& to_zyx,
                           Interpolation interpolation,
                           int64_t first,
                           int64_t count) {
  check_size(from_zyx);
  check_size(to_zyx);
  // Which slices these are made of.
  Taps along_z;
  int64_t begin = first, end = first + count;
  if (from_zyx[0] != to_zyx[0]) {
    along_z = taps_along(from_zyx[0], to_zyx[0], interpolation, first, count);
    const auto [low, high] = std::minmax_element(along_z.index.begin(), along_z.index.end());
    begin = *low;
    end = *high + 1;
    for (int64_t& index : along_z.index) index -= begin;
  }
  at::Tensor result = read(begin, end - begin).to(at::kFloat).contiguous();
  if (result.dim() != 4 || result.size(1) != end - begin || result.size(2) != from_zyx[1] ||
      result.size(3) != from_zyx[2])
    throw Error("resample: slices [C, " + std::to_string(end - begin) + ", Y, X] were expected");
  // Axes that shrink first: the fewest values in between.
  std::array<int, 3> order{0, 1, 2};
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return to_zyx[a] * from_zyx[b] < to_zyx[b] * from_zyx[a];
  });
  for (const int axis : order) {
    if (from_zyx[axis] == to_zyx[axis]) continue;
    result = resample_axis(
        result,
        axis + 1,
        axis == 0 ? along_z : taps_along(from_zyx[axis], to_zyx[axis], interpolation));
  }
  return result;
}

at::Tensor resample_image(const at::Tensor& image,
                          const std::array<int64_t, 3>& size_zyx,
                          Interpolation interpolation) {
  if (image.dim() != 4 || image.numel() == 0)
    throw Error("resample: an image [C, Z, Y, X] was expected");
  return resample_slices(
      [&](int64_t first, int64_t count) { return image.narrow(1, first, count); },
      {image.size(1), image.size(2), image.size(3)},
      size_zyx,
      interpolation,
      0,
      size_zyx[0]);
}

at::Tensor resample_labels(const at::Tensor& labels,
                           const std::array<int64_t, 3>& size_zyx,
                           Interpolation interpolation) {
  if (labels.dim() != 3 || labels.numel() == 0 || labels.is_floating_point())
    throw Error("resample: integer labels [Z, Y, X] were expected");
  if (interpolation == Interpolation::kCubic)
    throw Error("resample: labels are interpolated linearly or taken from the nearest voxel");
  check_size(size_zyx);
  if (labels.sizes() == at::IntArrayRef(size_zyx.data(), 3)) return labels.contiguous();

  if (interpolation == Interpolation::kNearest) {
    at::Tensor result = labels;
    for (int axis = 0; axis < 3; ++axis) {
      const Taps taps = taps_along(labels.size(axis), size_zyx[axis], interpolation);
      result = result.index_select(axis, at::tensor(taps.index, at::kLong));
    }
    return result.contiguous();
  }

  const auto values = std::get<0>(at::_unique(labels, /*sorted=*/true));
  at::Tensor best_weight, best = at::empty(size_zyx, labels.options());
  for (int64_t i = 0; i < values.numel(); ++i) {
    const at::Scalar value = values[i].item();
    const at::Tensor weight = resample_image(
        labels.eq(value).to(at::kFloat).unsqueeze(0), size_zyx, Interpolation::kLinear)[0];
    if (i == 0) {
      best_weight = weight;
      best.fill_(value);
      continue;
    }
    // Rounding in the weights must not decide between equals.
    const at::Tensor wins = weight > best_weight + 1e-6;
    best.masked_fill_(wins, value);
    best_weight = at::where(wins, weight, best_weight);
  }
  return best;
}

}  // namespace vireo
