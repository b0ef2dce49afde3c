#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace vireo {

using Vector3 = std::array<double, 3>;
using Matrix3 = std::array<std::array<double, 3>, 3>;

/// Where a voxel grid lies in the patient. Index axes are ordered as in tensors: z (slowest), y, x
/// (fastest). World coordinates are LPS in millimetres (x to the patient's Left, y to Posterior,
/// z to Superior), as in DICOM and ITK; NIfTI's RAS is converted where files are read.
///
/// A 2-D image is a grid with size_zyx[0] = 1 and, where nothing is known, 1 mm spacing.
struct Geometry {
  std::array<int64_t, 3> size_zyx{0, 0, 0};
  Vector3 spacing_mm_zyx{1, 1, 1};
  /// World position of the centre of voxel (0, 0, 0), as (L, P, S).
  Vector3 origin_lps_mm{0, 0, 0};
  /// direction_lps_from_zyx[i][j]: component i (L, P, S) of the unit vector along index axis j (z,
  /// y, x).
  Matrix3 direction_lps_from_zyx{{{0, 0, 1}, {0, 1, 0}, {1, 0, 0}}};

  /// Centre of the voxel at a (fractional) index, as (L, P, S) in mm.
  Vector3 lps_from_voxel(const Vector3& index_zyx) const;
  /// The fractional index (z, y, x) of a world point.
  Vector3 voxel_from_lps(const Vector3& point_lps_mm) const;
  /// Volume of one voxel in mm^3.
  double voxel_volume_mm3() const;
  int64_t voxel_count() const { return size_zyx[0] * size_zyx[1] * size_zyx[2]; }
  /// The index axis (0 = z, 1 = y, 2 = x) that slices lie along: the only one of a single voxel,
  /// else the one with the coarsest spacing. Of those within 1 % of each other the first.
  int coarsest_axis() const;
  /// Anatomical code of the directions in which x, y and z grow, for example "RAS".
  std::string orientation_xyz() const;

  /// The geometry after tensor axes are reordered: axis i of the result is axis `order[i]` of this.
  Geometry permuted(const std::array<int, 3>& order_zyx) const;
  /// The same region of space on a grid of another size: the outer faces of the volume stay.
  Geometry resized(const std::array<int64_t, 3>& size_zyx) const;
};

/// Empty when two grids agree (same size; spacing, origin and direction within `tolerance_mm` at
/// every corner); otherwise one sentence with what differs and by how much.
std::string difference(const Geometry& a, const Geometry& b, double tolerance_mm = 1e-2);

}  // namespace vireo
