#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "kernels/bench/machine.h"
#include "kernels/bench/timing.h"

// What the benchmark programs of all rooms share: `./dev bench`.
namespace vireo {

/// One line of the table, and what stands beneath it.
struct BenchCase {
  std::string name;         ///< "bi_wkv forward, 64x196x192, float32"
  int64_t elements = 0;     ///< whose number divides the time; 0: not told
  int64_t images = 0;       ///< that one pass handles; 0: not told
  int64_t least_bytes = 0;  ///< that must at least be read and written; 0: no copy stands beside it
  Contender ours;           ///< its name is set
  std::vector<Contender> others = {};
};

/// Measures cases and keeps their numbers.
class Bench {
 public:
  struct Options {
    std::string only;  ///< cases whose names hold this text
    double seconds = 0.5;
    at::Device device = at::kCPU;
    bool list = false;  ///< print names instead of measuring
  };
  explicit Bench(const Options& options) : options_(options) {}

  at::Device device() const { return options_.device; }
  /// Whether a case of this name was asked for: to be called before its tensors are made.
  bool wants(const std::string& name) const;
  void measure(const BenchCase& bench_case);
  const nlohmann::ordered_json& cases() const { return cases_; }

 private:
  Options options_;
  nlohmann::ordered_json cases_ = nlohmann::ordered_json::array();
};

/// The table of a results file: {"programs": {NAME: {"machine": {...}, "cases": [...]}}}; of the
/// programs whose names hold `only`.
std::string bench_table(const nlohmann::ordered_json& results, const std::string& only = "");

/// As they stand in files of results.
nlohmann::ordered_json json_of(const Spread& seconds);
nlohmann::ordered_json json_of(const Machine& machine);

/// A table's cell, right-aligned behind a space; "-" for NaN.
std::string number_cell(double value, int width, int digits);
std::string text_cell(const std::string& text, int width);

/// "64x196x192".
std::string shape_text(const std::vector<int64_t>& sizes);

/// Throws unless both forms of an operator compute the same.
void check_same(const char* what, const at::Tensor& one, const at::Tensor& other);

/// A function of leaves and its backward pass alone: forward was run once, and each call makes the
/// gradients of all leaves anew.
std::function<void()> backward_pass(const std::vector<at::Tensor>& outputs,
                                    const std::vector<at::Tensor>& leaves,
                                    const std::vector<at::Tensor>& gradients);

/// main() of a benchmark program: options (--help lists them), measurement, table, JSON. `name` is
/// the program's in the results.
int bench_main(int argc, char** argv, const char* name, void (*measure_all)(Bench&));

}  // namespace vireo
