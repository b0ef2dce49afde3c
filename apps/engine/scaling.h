#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/engine/benchmark.h"

namespace vireo {

struct ScalingQuestion {
  std::vector<BenchNetwork> networks;
  std::vector<int64_t> sides{256, 512, 1024, 2048, 4096};  ///< of square images, increasing
  std::string precision = "fp32";
  double seconds = 1;        ///< for each point
  double longest_pass = 60;  ///< points whose pass would take longer, in seconds, are left out
  int64_t most_memory = 0;   ///< so are those that would need more bytes; 0: 0.9 of what is free
  at::Device device = at::kCPU;
};

/// How the forward pass of one image grows with its area, beside the same network with attention in
/// place of WKV (see attention_for_bi_wkv):
/// {"machine": {...}, "precision", "longest_pass", "most_memory", "series": [{"name", "form": "wkv"
///  or "attention", "time_exponent", "memory_exponent", "points": [{"side", "pixels", "seconds":
///  {...}, "ns_per_pixel", "peak_bytes"}], "left_out": [{"side", "why"}]}]}
/// "ns_per_pixel" is that of the fastest run, and so are the exponents, since other programs only
/// add time. An exponent e: time or memory grows as area^e, by least squares over all points but
/// the first; null where these are fewer than two. What is left out is foretold from the points
/// before. Can be interrupted.
nlohmann::ordered_json bench_scaling(const ScalingQuestion& question);

/// The same for a person.
std::string scaling_text(const nlohmann::ordered_json& report);

/// The exponent e of y = a x^e by least squares over logarithms; NaN for fewer than two points.
double growth_exponent(const std::vector<double>& x, const std::vector<double>& y);

}  // namespace vireo
