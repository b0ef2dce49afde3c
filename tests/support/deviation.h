#pragma once

#include <limits>

#include <ATen/ATen.h>

namespace vireo::test {

/// max|a - b| / max|b|, in float64; infinite where a is not finite.
inline double deviation(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().to(at::kDouble), y = b.detach().to(at::kDouble);
  if (!x.isfinite().all().item<bool>()) return std::numeric_limits<double>::infinity();
  const double scale = y.abs().max().item<double>();
  return (x - y).abs().max().item<double>() / (scale > 0 ? scale : 1.0);
}

}  // namespace vireo::test
