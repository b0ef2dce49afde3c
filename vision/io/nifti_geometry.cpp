#include <algorithm>
#include <cmath>
#include <cstdio>

#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"
#include "vision/io/nifti_header.h"

// Where a NIfTI grid lies: sform and qform to Geometry and back, RAS to LPS.
namespace vireo::io {
namespace {

namespace fs = std::filesystem;

// The nearest rotation by the polar decomposition's Newton iteration: R <- (R + R^-T) / 2.
Matrix3 nearest_rotation(Matrix3 m) {
  for (int step = 0; step < 50; ++step) {
    Matrix3 cofactor;
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        const int i1 = (i + 1) % 3, i2 = (i + 2) % 3, j1 = (j + 1) % 3, j2 = (j + 2) % 3;
        cofactor[i][j] = m[i1][j1] * m[i2][j2] - m[i1][j2] * m[i2][j1];
      }
    const double determinant =
        m[0][0] * cofactor[0][0] + m[0][1] * cofactor[0][1] + m[0][2] * cofactor[0][2];
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) m[i][j] = (m[i][j] + cofactor[i][j] / determinant) / 2;
  }
  return m;
}

// Below this, what is left of a rotation after rounding to float; above, worth a word.
constexpr double kRoundingDegrees = 0.01;

void check_shear(const fs::path& path, const std::string& form, double degrees) {
  if (degrees <= kRoundingDegrees) return;
  char text[64];
  std::snprintf(text, sizeof text, "%.3f degrees", degrees);
  if (degrees > kMaxShearDegrees)
    throw DataError(path,
                    "the " + form + " is sheared: an axis is " + text +
                        " off the nearest rotation, and at most " +
                        std::to_string(static_cast<int>(kMaxShearDegrees)) +
                        " degree is repaired. Resample the image onto a rectangular grid");
  log_warning(path.string() + ": the " + form + " is sheared; the nearest rotation is used, " +
              text + " off");
}

double millimetres(const NiftiHeader& header) {
  switch (header.xyzt_units & 7) {
    case 1:
      return 1000;
    case 3:
      return 0.001;
    default:
      return 1;
  }
}

// Index to world (RAS) as the qform says: nifti1.h, method 2.
std::array<std::array<double, 4>, 3> affine_of_qform(const fs::path& path,
                                                     const NiftiHeader& header) {
  auto [b, c, d] = header.quatern_bcd;
  double a = 1 - (b * b + c * c + d * d);
  if (!(a > -1e-3))
    throw DataError(path, "header fields quatern_b, c, d are no rotation; the qform is broken");
  if (a < 1e-7) {
    const double scale = 1 / std::sqrt(b * b + c * c + d * d);
    b *= scale, c *= scale, d *= scale, a = 0;
  } else {
    a = std::sqrt(a);
  }
  const double rotation[3][3] = {
      {a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)},
      {2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)},
      {2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c}};
  std::array<std::array<double, 4>, 3> affine;
  for (int j = 0; j < 3; ++j) {
    const double spacing = std::abs(header.pixdim[j + 1]);
    const double sign = j == 2 && header.pixdim[0] < 0 ? -1 : 1;
    for (int i = 0; i < 3; ++i) affine[i][j] = rotation[i][j] * sign * (spacing > 0 ? spacing : 1);
  }
  for (int i = 0; i < 3; ++i) affine[i][3] = header.qoffset_xyz[i];
  return affine;
}

// A plane's affine may leave the third axis out: the normal then, one pixdim long.
void complete_plane(const NiftiHeader& header, std::array<std::array<double, 4>, 3>& affine) {
  if (header.size(3) > 1 || std::hypot(affine[0][2], affine[1][2], affine[2][2]) > 0) return;
  double normal[3];
  for (int i = 0; i < 3; ++i) {
    const int j = (i + 1) % 3, k = (i + 2) % 3;
    normal[i] = affine[j][0] * affine[k][1] - affine[k][0] * affine[j][1];
  }
  const double length = std::hypot(normal[0], normal[1], normal[2]);
  const double spacing = std::abs(header.pixdim[3]) > 0 ? std::abs(header.pixdim[3]) : 1;
  for (int i = 0; i < 3; ++i) affine[i][2] = length > 0 ? normal[i] / length * spacing : 0;
}

}  // namespace

Geometry nifti_geometry(const fs::path& path, const NiftiHeader& header) {
  Geometry geometry;
  geometry.size_zyx = {header.size(3), header.size(2), header.size(1)};
  const double unit = millimetres(header);
  if (header.sform_code <= 0 && header.qform_code <= 0) {
    // The file says nothing about the patient: pixel axes, as for a picture.
    for (int j = 0; j < 3; ++j) {
      const double spacing = std::abs(header.pixdim[3 - j]) * unit;
      geometry.spacing_mm_zyx[j] = spacing > 0 && std::isfinite(spacing) ? spacing : 1;
    }
    return geometry;
  }

  const std::string form = header.sform_code > 0 ? "sform" : "qform";
  auto affine = header.sform_code > 0 ? header.srow : affine_of_qform(path, header);
  complete_plane(header, affine);

  Matrix3 axes;  // unit columns x, y, z in LPS
  Vector3 spacing;
  for (int j = 0; j < 3; ++j) {
    spacing[j] = std::hypot(affine[0][j], affine[1][j], affine[2][j]);
    if (!std::isfinite(spacing[j]) || !(spacing[j] > 0) || !std::isfinite(affine[j][3]))
      throw DataError(path,
                      "the " + form +
                          " is singular or not finite; correct it with a NIfTI tool, "
                          "or set its code to 0");
    for (int i = 0; i < 3; ++i) axes[i][j] = (i < 2 ? -1 : 1) * affine[i][j] / spacing[j];
  }
  const Matrix3 rotation = nearest_rotation(axes);
  double shear = 0;
  for (int j = 0; j < 3; ++j) {
    // The angle by the chord: exact where the cosine is 1 to the last digit.
    const double chord = std::hypot(
        axes[0][j] - rotation[0][j], axes[1][j] - rotation[1][j], axes[2][j] - rotation[2][j]);
    const double degrees = 2 * std::asin(std::min(1.0, chord / 2)) * 180 / M_PI;
    shear = std::isnan(degrees) ? 90 : std::max(shear, degrees);
  }
  check_shear(path, form, shear);

  for (int j = 0; j < 3; ++j) {
    geometry.spacing_mm_zyx[2 - j] = spacing[j] * unit;
    geometry.origin_lps_mm[j] = (j < 2 ? -1 : 1) * affine[j][3] * unit;
    for (int i = 0; i < 3; ++i) geometry.direction_lps_from_zyx[i][2 - j] = rotation[i][j];
  }
  return geometry;
}

void set_nifti_geometry(NiftiHeader& header, const Geometry& geometry) {
  header.xyzt_units = 2;
  header.sform_code = header.qform_code = 1;
  double r[3][3];  // rotation, RAS from x, y, z
  for (int j = 0; j < 3; ++j) {
    const double spacing = geometry.spacing_mm_zyx[2 - j];
    header.pixdim[j + 1] = spacing;
    const double origin = (j < 2 ? -1 : 1) * geometry.origin_lps_mm[j];
    header.qoffset_xyz[j] = header.srow[j][3] = origin;
    for (int i = 0; i < 3; ++i) {
      r[i][j] = (i < 2 ? -1 : 1) * geometry.direction_lps_from_zyx[i][2 - j];
      header.srow[i][j] = r[i][j] * spacing;
    }
  }
  const double determinant = r[0][0] * (r[1][1] * r[2][2] - r[1][2] * r[2][1]) -
                             r[0][1] * (r[1][0] * r[2][2] - r[1][2] * r[2][0]) +
                             r[0][2] * (r[1][0] * r[2][1] - r[1][1] * r[2][0]);
  header.pixdim[0] = determinant < 0 ? -1 : 1;
  if (determinant < 0)
    for (auto& row : r) row[2] = -row[2];

  // Quaternion of a rotation, from its largest component for accuracy.
  const double squares[4] = {1 + r[0][0] + r[1][1] + r[2][2],
                             1 + r[0][0] - r[1][1] - r[2][2],
                             1 - r[0][0] + r[1][1] - r[2][2],
                             1 - r[0][0] - r[1][1] + r[2][2]};
  const auto largest = std::max_element(squares, squares + 4) - squares;
  const double f = 2 * std::sqrt(squares[largest]);
  double q[4];
  switch (largest) {
    case 0:
      q[0] = f / 4, q[1] = (r[2][1] - r[1][2]) / f, q[2] = (r[0][2] - r[2][0]) / f,
      q[3] = (r[1][0] - r[0][1]) / f;
      break;
    case 1:
      q[1] = f / 4, q[0] = (r[2][1] - r[1][2]) / f, q[2] = (r[0][1] + r[1][0]) / f,
      q[3] = (r[0][2] + r[2][0]) / f;
      break;
    case 2:
      q[2] = f / 4, q[0] = (r[0][2] - r[2][0]) / f, q[1] = (r[0][1] + r[1][0]) / f,
      q[3] = (r[1][2] + r[2][1]) / f;
      break;
    default:
      q[3] = f / 4, q[0] = (r[1][0] - r[0][1]) / f, q[1] = (r[0][2] + r[2][0]) / f,
      q[2] = (r[1][2] + r[2][1]) / f;
  }
  const double sign = q[0] < 0 ? -1 : 1;  // the header keeps b, c, d; a is their complement, >= 0
  for (int i = 0; i < 3; ++i) header.quatern_bcd[i] = sign * q[i + 1];
}

}  // namespace vireo::io
