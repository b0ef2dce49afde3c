#pragma once

#include <array>
#include <string>

#include <ATen/core/Tensor.h>

#include "vision/image/volume.h"

namespace vireo {

/// How index axes are reordered and turned round, without resampling.
struct Reorientation {
  std::array<int, 3> order_zyx{0, 1, 2};  ///< axis i of the result is axis order_zyx[i] before
  std::array<bool, 3> flipped_zyx{};      ///< axes of the result that run the other way

  bool is_identity() const;
  Reorientation inverse() const;
};

/// What makes a grid's axes grow as a code says, for example "RAS" (see Geometry::orientation_xyz).
/// An empty code leaves everything as it is. Throws Error for what is no such code.
Reorientation reorientation(const Geometry& grid, const std::string& orientation_xyz);

/// The same places in space under the other indices. Values are [..., Z, Y, X].
Geometry reoriented(const Geometry& grid, const Reorientation& turn);
at::Tensor reoriented(const at::Tensor& values, const Reorientation& turn);
Volume reoriented(const Volume& volume, const Reorientation& turn);

}  // namespace vireo
