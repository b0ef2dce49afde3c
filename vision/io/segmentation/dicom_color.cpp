#include "vision/io/segmentation/dicom_color.h"

#include <algorithm>
#include <cmath>

namespace vireo {
namespace {

double linear(uint8_t value) {
  const double v = value / 255.0;
  return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
}

double lab_curve(double t) {
  constexpr double kDelta = 6.0 / 29;
  return t > kDelta * kDelta * kDelta ? std::cbrt(t) : t / (3 * kDelta * kDelta) + 4.0 / 29;
}

uint16_t encoded(double value, double low, double high) {
  const double share = (value - low) / (high - low);
  return static_cast<uint16_t>(std::lround(std::clamp(share, 0.0, 1.0) * 65535));
}

}  // namespace

std::array<uint16_t, 3> dicom_lab(Color rgb) {
  // From the primaries and the white (D65) of sRGB, IEC 61966-2-1.
  constexpr double kXyzFromRgb[3][3] = {{0.43604125, 0.38511291, 0.14304584},
                                        {0.22248454, 0.71690508, 0.06061038},
                                        {0.01392019, 0.09706724, 0.71391257}};
  constexpr double kWhite[3] = {0.9642, 1.0, 0.8249};
  double f[3];
  for (int i = 0; i < 3; ++i) {
    double sum = 0;
    for (int j = 0; j < 3; ++j) sum += kXyzFromRgb[i][j] * linear(rgb[static_cast<size_t>(j)]);
    f[i] = lab_curve(sum / kWhite[i]);
  }
  return {encoded(116 * f[1] - 16, 0, 100),
          encoded(500 * (f[0] - f[1]), -128, 127),
          encoded(200 * (f[1] - f[2]), -128, 127)};
}

}  // namespace vireo
