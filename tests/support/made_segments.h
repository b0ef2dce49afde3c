#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>

#include "vision/image/geometry.h"
#include "vision/io/segmentation/dcmqi_metadata.h"

namespace vireo::test {

/// Axes turned about all three world axes, steps and origin of no round number.
inline Geometry oblique_grid(int64_t depth, int64_t height, int64_t width) {
  const double a = 0.4, b = -0.25, c = 0.15;
  const double ca = std::cos(a), sa = std::sin(a), cb = std::cos(b), sb = std::sin(b);
  const double cc = std::cos(c), sc = std::sin(c);
  Geometry grid;
  grid.size_zyx = {depth, height, width};
  grid.spacing_mm_zyx = {2.5, 0.7421875, 1.1};
  grid.origin_lps_mm = {-61.337, 42.00131, -103.25};
  const Matrix3 turned{{{ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc},
                        {sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc},
                        {-sb, cb * sc, cb * cc}}};
  for (size_t i = 0; i < 3; ++i)
    grid.direction_lps_from_zyx[i] = {turned[i][2], turned[i][1], turned[i][0]};
  return grid;
}

/// A grid whose slices follow each other against the normal of their plane.
inline Geometry reversed_grid(int64_t depth, int64_t height, int64_t width) {
  Geometry grid = oblique_grid(depth, height, width);
  for (auto& row : grid.direction_lps_from_zyx) row[0] = -row[0];
  return grid;
}

/// The grids whose axes run along the world's, in each of the 48 orders and directions.
inline std::vector<Geometry> straight_grids(int64_t depth, int64_t height, int64_t width) {
  std::vector<Geometry> grids;
  std::array<size_t, 3> order{0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs) {
      Geometry grid = oblique_grid(depth, height, width);
      grid.direction_lps_from_zyx = {};
      for (size_t axis = 0; axis < 3; ++axis)
        grid.direction_lps_from_zyx[order[axis]][axis] = (signs >> axis & 1) != 0 ? -1 : 1;
      grids.push_back(grid);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  return grids;
}

/// Labels 1, 2 and 5: a box with a hole in which an island lies, a noisy region, one voxel.
inline at::Tensor made_labels(int64_t depth, int64_t height, int64_t width) {
  at::Tensor labels = at::zeros({depth, height, width}, at::kInt);
  const auto box = [&](int64_t z0, int64_t y0, int64_t x0, int64_t h, int64_t w, int value) {
    labels.slice(0, z0, depth).slice(1, y0, y0 + h).slice(2, x0, x0 + w).fill_(value);
  };
  box(0, 1, 1, 9, 8, 1);
  box(0, 3, 2, 5, 6, 0);
  box(0, 4, 4, 2, 2, 1);
  const at::Tensor part = labels.slice(0, depth / 2, depth).slice(2, width / 2, width);
  part.masked_fill_(at::rand(part.sizes()) < 0.6, 2);
  labels[depth - 1][height - 1][0] = 5;
  return labels;
}

/// Descriptions of 1, 2, 5 and of 4, which made_labels does not hold.
inline SegmentationMetadata made_metadata() {
  SegmentationMetadata metadata;
  for (const auto& [value, name] : {std::pair<int64_t, const char*>{1, "liver"},
                                    {4, "spleen"},
                                    {2, "left kidney"},
                                    {5, "tumor"}})
    metadata.segments.push_back(describe_segment(value, name));
  return metadata;
}

}  // namespace vireo::test
