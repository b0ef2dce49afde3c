#include "vision/image/geometry.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace vireo {
namespace {

// The columns of index-to-world: direction times spacing.
Matrix3 scaled_axes(const Geometry& geometry) {
  Matrix3 axes = geometry.direction_lps_from_zyx;
  for (auto& row : axes)
    for (int j = 0; j < 3; ++j) row[j] *= geometry.spacing_mm_zyx[j];
  return axes;
}

double determinant(const Matrix3& m) {
  return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
         m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
         m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
}

Matrix3 inverse(const Matrix3& m) {
  const double scale = 1 / determinant(m);
  Matrix3 result;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      const int r0 = (j + 1) % 3, r1 = (j + 2) % 3, c0 = (i + 1) % 3, c1 = (i + 2) % 3;
      result[i][j] = (m[r0][c0] * m[r1][c1] - m[r0][c1] * m[r1][c0]) * scale;
    }
  }
  return result;
}

Vector3 times(const Matrix3& m, const Vector3& v) {
  Vector3 result;
  for (int i = 0; i < 3; ++i) result[i] = m[i][0] * v[0] + m[i][1] * v[1] + m[i][2] * v[2];
  return result;
}

std::string text(const char* format, double a, double b, double c) {
  char buffer[128];
  std::snprintf(buffer, sizeof buffer, format, a, b, c);
  return buffer;
}

std::string size_text(const std::array<int64_t, 3>& zyx) {
  return std::to_string(zyx[2]) + "x" + std::to_string(zyx[1]) + "x" + std::to_string(zyx[0]);
}

std::string vector_text(const Vector3& v) {
  return text("(%.6g, %.6g, %.6g)", v[0], v[1], v[2]);
}

double distance(const Vector3& a, const Vector3& b) {
  return std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

}  // namespace

Vector3 Geometry::lps_from_voxel(const Vector3& index_zyx) const {
  Vector3 point = times(scaled_axes(*this), index_zyx);
  for (int i = 0; i < 3; ++i) point[i] += origin_lps_mm[i];
  return point;
}

Vector3 Geometry::voxel_from_lps(const Vector3& point_lps_mm) const {
  Vector3 offset = point_lps_mm;
  for (int i = 0; i < 3; ++i) offset[i] -= origin_lps_mm[i];
  return times(inverse(scaled_axes(*this)), offset);
}

double Geometry::voxel_volume_mm3() const {
  return std::abs(determinant(scaled_axes(*this)));
}

int Geometry::coarsest_axis() const {
  // Rotated grids tell equal spacings with rounding.
  constexpr double kEqual = 0.99;
  if (std::count(size_zyx.begin(), size_zyx.end(), 1) == 1)
    return static_cast<int>(std::find(size_zyx.begin(), size_zyx.end(), 1) - size_zyx.begin());
  const double most = *std::max_element(spacing_mm_zyx.begin(), spacing_mm_zyx.end());
  const auto coarsest = std::find_if(
      spacing_mm_zyx.begin(), spacing_mm_zyx.end(), [&](double mm) { return mm >= kEqual * most; });
  return static_cast<int>(coarsest - spacing_mm_zyx.begin());
}

std::string Geometry::orientation_xyz() const {
  // Of the six ways to pair index axes with world axes, the one that is aligned best overall: two
  // index axes never get the same letter pair, however oblique the grid.
  std::array<int, 3> world{0, 1, 2}, best = world;
  double best_alignment = -1;
  do {
    double alignment = 0;
    for (int j = 0; j < 3; ++j) alignment += std::abs(direction_lps_from_zyx[world[j]][j]);
    if (alignment > best_alignment + 1e-9) {
      best_alignment = alignment;
      best = world;
    }
  } while (std::next_permutation(world.begin(), world.end()));

  static constexpr const char* kLetters[3] = {"LR", "PA", "SI"};  // growing, shrinking
  std::string code;
  for (int j = 2; j >= 0; --j)
    code += kLetters[best[j]][direction_lps_from_zyx[best[j]][j] < 0 ? 1 : 0];
  return code;
}

Geometry Geometry::permuted(const std::array<int, 3>& order_zyx) const {
  Geometry result = *this;
  for (int i = 0; i < 3; ++i) {
    result.size_zyx[i] = size_zyx[order_zyx[i]];
    result.spacing_mm_zyx[i] = spacing_mm_zyx[order_zyx[i]];
    for (int k = 0; k < 3; ++k)
      result.direction_lps_from_zyx[k][i] = direction_lps_from_zyx[k][order_zyx[i]];
  }
  return result;
}

Geometry Geometry::resized(const std::array<int64_t, 3>& new_size_zyx) const {
  Geometry result = *this;
  Vector3 first_centre;
  for (int i = 0; i < 3; ++i) {
    const double ratio = static_cast<double>(size_zyx[i]) / static_cast<double>(new_size_zyx[i]);
    first_centre[i] = (ratio - 1) / 2;
    result.spacing_mm_zyx[i] = spacing_mm_zyx[i] * ratio;
  }
  result.size_zyx = new_size_zyx;
  result.origin_lps_mm = lps_from_voxel(first_centre);
  return result;
}

std::string difference(const Geometry& a, const Geometry& b, double tolerance_mm) {
  if (a.size_zyx != b.size_zyx)
    return "sizes differ: " + size_text(a.size_zyx) + " and " + size_text(b.size_zyx) +
           " voxels (x, y, z)";

  double apart = 0;
  for (int corner = 0; corner < 8; ++corner) {
    Vector3 index;
    for (int i = 0; i < 3; ++i)
      index[i] = (corner >> i & 1) != 0 ? static_cast<double>(a.size_zyx[i] - 1) : 0.0;
    apart = std::max(apart, distance(a.lps_from_voxel(index), b.lps_from_voxel(index)));
  }
  if (apart <= tolerance_mm) return "";

  const std::string by =
      text(" (corners up to %.4g mm apart; %.4g mm is tolerated)", apart, tolerance_mm, 0);
  const auto xyz = [](const Vector3& zyx) { return Vector3{zyx[2], zyx[1], zyx[0]}; };
  for (int i = 0; i < 3; ++i) {
    const double off = std::abs(a.spacing_mm_zyx[i] - b.spacing_mm_zyx[i]);
    if (off * static_cast<double>(std::max<int64_t>(1, a.size_zyx[i] - 1)) > tolerance_mm)
      return "spacings differ: " + vector_text(xyz(a.spacing_mm_zyx)) + " and " +
             vector_text(xyz(b.spacing_mm_zyx)) + " mm (x, y, z)" + by;
  }
  if (distance(a.origin_lps_mm, b.origin_lps_mm) > tolerance_mm)
    return "origins differ: " + vector_text(a.origin_lps_mm) + " and " +
           vector_text(b.origin_lps_mm) + " mm (L, P, S)" + by;
  return "directions differ: axes grow to " + a.orientation_xyz() + " and " + b.orientation_xyz() +
         by;
}

}  // namespace vireo
