#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "datasets/phantom_random.h"
#include "vision/image/geometry.h"

// What the phantom's organs are made of. Points are (L, P, S) in mm; a shape's level is about the
// distance to its surface in mm, negative inside.
namespace vireo {

inline Vector3 operator+(const Vector3& a, const Vector3& b) {
  return {a[0] + b[0], a[1] + b[1], a[2] + b[2]};
}
inline Vector3 operator-(const Vector3& a, const Vector3& b) {
  return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}
inline double norm(const Vector3& a) {
  return std::sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]);
}

inline constexpr double kFarOutside = 1e3;

/// A smooth random function of about unit standard deviation: plane waves of random directions,
/// with lengths around `wavelength_mm`.
class SmoothField {
 public:
  SmoothField() = default;
  SmoothField(PhantomRandom& random, double wavelength_mm, int waves = 5) {
    for (int i = 0; i < waves; ++i) {
      const double height = random.between(-1, 1), turn = random.between(0, 2 * std::numbers::pi);
      const double flat = std::sqrt(1 - height * height);
      const double rate = 2 * std::numbers::pi / (wavelength_mm * random.between(0.75, 1.35));
      waves_.push_back({{rate * flat * std::cos(turn), rate * flat * std::sin(turn), rate * height},
                        random.between(0, 2 * std::numbers::pi)});
    }
  }
  double operator()(const Vector3& p) const {
    double sum = 0;
    for (const Wave& wave : waves_)
      sum += std::cos(wave.rate[0] * p[0] + wave.rate[1] * p[1] + wave.rate[2] * p[2] + wave.phase);
    return sum * std::sqrt(2.0 / static_cast<double>(waves_.size()));
  }

 private:
  struct Wave {
    Vector3 rate;
    double phase;
  };
  std::vector<Wave> waves_;
};

/// An ellipsoid, turned about the S axis and then tilted about the P axis, with a rough surface.
struct Ellipsoid {
  Vector3 center{};
  Vector3 radii{1, 1, 1};
  double turn = 0, tilt = 0;  ///< radians
  double roughness_mm = 0;
  SmoothField surface;

  double level(const Vector3& p) const {
    const Vector3 offset = p - center;
    const double reach = std::max({radii[0], radii[1], radii[2]}) + 3 * roughness_mm + 8;
    if (std::abs(offset[0]) > reach || std::abs(offset[1]) > reach || std::abs(offset[2]) > reach)
      return kFarOutside;
    const double c = std::cos(turn), s = std::sin(turn), ct = std::cos(tilt), st = std::sin(tilt);
    const double x1 = c * offset[0] + s * offset[1], y1 = -s * offset[0] + c * offset[1];
    const Vector3 q{ct * x1 - st * offset[2], y1, st * x1 + ct * offset[2]};
    const Vector3 scaled{q[0] / radii[0], q[1] / radii[1], q[2] / radii[2]};
    const double length = norm(scaled);
    if (length < 1e-9) return -std::min({radii[0], radii[1], radii[2]});
    // First-order distance: (|s| - 1) / |gradient|.
    const Vector3 gradient{scaled[0] / radii[0], scaled[1] / radii[1], scaled[2] / radii[2]};
    double level = (length - 1) * length / norm(gradient);
    if (roughness_mm > 0 && std::abs(level) < 4 * roughness_mm + 4)
      level += roughness_mm * surface(p);
    return level;
  }
};

/// A tube of varying radius along a chain of points.
struct Tube {
  struct Node {
    Vector3 center;
    double radius_mm;
  };
  std::vector<Node> nodes;

  double level(const Vector3& p) const {
    double nearest = kFarOutside;
    for (size_t i = 0; i + 1 < nodes.size(); ++i) {
      const Vector3 axis = nodes[i + 1].center - nodes[i].center, offset = p - nodes[i].center;
      const double squared = axis[0] * axis[0] + axis[1] * axis[1] + axis[2] * axis[2];
      const double dot = offset[0] * axis[0] + offset[1] * axis[1] + offset[2] * axis[2];
      const double t = std::clamp(dot / squared, 0.0, 1.0);
      const Vector3 away{offset[0] - t * axis[0], offset[1] - t * axis[1], offset[2] - t * axis[2]};
      const double radius = nodes[i].radius_mm + t * (nodes[i + 1].radius_mm - nodes[i].radius_mm);
      nearest = std::min(nearest, norm(away) - radius);
    }
    return nearest;
  }
};

/// The union of two shapes with their seam rounded over about `width_mm`.
inline double rounded_union(double a, double b, double width_mm) {
  const double overlap = std::max(0.0, width_mm - std::abs(a - b));
  return std::min(a, b) - overlap * overlap / (4 * width_mm);
}

}  // namespace vireo
