#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

// Golden files: reference inputs, weights, outputs and gradients in a safetensors file whose
// metadata field `golden` describes them (or a JSON file of learning rates or scores), computed by
// the published code in float64.
namespace vireo {

enum class Precision { kFloat32, kFloat64 };

/// One tensor or number held against its reference.
struct Comparison {
  std::string group;  ///< "output", "activations", "gradients", ...
  std::string name;
  double absolute = 0;  ///< largest |found - expected|
  double relative = 0;  ///< the same over the largest |expected| (or what `tolerance` refers to)
  double tolerance = 0;
  bool is_absolute = false;  ///< the tolerance bounds `absolute`, not `relative`
  std::string problem{};     ///< why nothing could be compared, if so

  bool passed() const {
    return problem.empty() && (is_absolute ? absolute : relative) <= tolerance;
  }
};

/// Compares tensors of any types in float64; NaN and infinity never pass. Where the reference is
/// zero everywhere, `relative` is the absolute deviation.
Comparison compare(const std::string& group,
                   const std::string& name,
                   const at::Tensor& found,
                   const at::Tensor& expected,
                   double tolerance);
Comparison compare_absolute(const std::string& group,
                            const std::string& name,
                            const at::Tensor& found,
                            const at::Tensor& expected,
                            double tolerance);
Comparison compare_number(const std::string& group,
                          const std::string& name,
                          double found,
                          double expected,
                          double tolerance);

struct GoldenReport {
  std::string subject;                  ///< what was run, for example "rwkv_unet_t, eval, float32"
  std::vector<Comparison> comparisons;  ///< those that decide
  std::vector<std::string> notes;       ///< for the reader; first of all what was not compared

  bool passed() const;
};

/// Runs what the file describes through Vireo. Throws UsageError "unknown model NAME" for systems
/// that Vireo does not have, and DataError for a file that is no golden file.
/// kFloat32 repeats a network in float64 when only gradients are beyond their tolerance, and lets
/// that decide: a ReLU whose input is within rounding of zero may switch sides.
GoldenReport verify_golden_file(const std::filesystem::path& path, Precision precision);

}  // namespace vireo
