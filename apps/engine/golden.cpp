#include "apps/engine/golden.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/scalar_tensor.h>
#include <c10/util/StringUtil.h>
#include <nlohmann/json.hpp>

#include "apps/engine/golden_files.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double largest(const at::Tensor& x) {
  return x.numel() == 0 ? 0 : x.abs().max().item<double>();
}

nlohmann::json parse(const std::filesystem::path& path, const std::string& text) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    throw DataError(path, std::string("is not valid JSON: ") + error.what());
  }
}

GoldenReport verify_json(const std::filesystem::path& path) {
  const auto golden = parse(path, read_text(path, size_t{256} << 20));
  if (golden.contains("poly")) return verify_schedules(golden);
  if (golden.contains("pairs")) {
    auto tensors = path;
    return verify_scores(SafetensorsFile::open(tensors.replace_extension(".safetensors")), golden);
  }
  throw DataError(path, "is no golden file: it has neither \"poly\" nor \"pairs\"");
}

GoldenReport verify_safetensors(const std::filesystem::path& path, Precision precision) {
  const auto file = SafetensorsFile::open(path);
  const auto found = file.metadata().find("golden");
  if (found == file.metadata().end())
    throw DataError(path, "is no golden file: its metadata has no field \"golden\"");
  const auto golden = parse(path, found->second);
  if (golden.contains("config")) return verify_network(file, golden, precision);
  if (golden.contains("cases")) return verify_operators(file, golden);
  if (golden.contains("pairs")) return verify_scores(file, golden);
  throw DataError(path,
                  "is of an unknown kind of golden file: its metadata has neither \"config\" nor "
                  "\"cases\" nor \"pairs\"");
}

}  // namespace

Comparison compare(const std::string& group,
                   const std::string& name,
                   const at::Tensor& found,
                   const at::Tensor& expected,
                   double tolerance) {
  Comparison result{.group = group, .name = name, .tolerance = tolerance};
  if (!found.defined()) {
    result.problem = "was not computed";
  } else if (found.sizes() != expected.sizes()) {
    result.problem = c10::str("found ", found.sizes(), ", expected ", expected.sizes());
  } else {
    const at::Tensor ours = found.detach().to(at::kDouble);
    const at::Tensor theirs = expected.detach().to(at::kDouble);
    const bool finite = at::isfinite(ours).all().item<bool>();
    result.absolute = finite ? largest(ours - theirs) : kInfinity;
    const double scale = largest(theirs);
    result.relative = scale > 0 ? result.absolute / scale : result.absolute;
  }
  return result;
}

Comparison compare_absolute(const std::string& group,
                            const std::string& name,
                            const at::Tensor& found,
                            const at::Tensor& expected,
                            double tolerance) {
  Comparison result = compare(group, name, found, expected, tolerance);
  result.is_absolute = true;
  return result;
}

Comparison compare_number(const std::string& group,
                          const std::string& name,
                          double found,
                          double expected,
                          double tolerance) {
  if (std::isnan(found) && std::isnan(expected))
    return {.group = group, .name = name, .tolerance = tolerance};
  return compare(group,
                 name,
                 at::scalar_tensor(found, at::kDouble),
                 at::scalar_tensor(expected, at::kDouble),
                 tolerance);
}

bool GoldenReport::passed() const {
  return std::all_of(comparisons.begin(), comparisons.end(), [](const Comparison& comparison) {
    return comparison.passed();
  });
}

GoldenReport verify_golden_file(const std::filesystem::path& path, Precision precision) {
  try {
    return path.extension() == ".json" ? verify_json(path) : verify_safetensors(path, precision);
  } catch (const nlohmann::json::exception& error) {
    throw DataError(
        path, std::string("has a golden description that is not as expected: ") + error.what());
  }
}

}  // namespace vireo
