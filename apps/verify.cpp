#include <cstdio>
#include <iostream>
#include <map>

#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>

#include "apps/engine/golden.h"
#include "apps/verbs.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

struct VerifyOptions {
  std::vector<std::string> files;
  bool float64 = false;
  bool brief = false;
};

void print_row(const char* state, const Comparison& row, const std::string& name) {
  if (!row.problem.empty()) {
    std::printf("  %-4s %-24s %s: %s\n", state, "", name.c_str(), row.problem.c_str());
    return;
  }
  std::printf("  %-4s %11.2e %11.2e  %s %-8.0e %s\n",
              state,
              row.absolute,
              row.relative,
              row.is_absolute ? "abs" : "rel",
              row.tolerance,
              name.c_str());
}

/// For each group the row with the largest deviation in terms of its tolerance.
void print_worst(const GoldenReport& report) {
  std::vector<std::string> order;
  std::map<std::string, std::vector<const Comparison*>> groups;
  for (const auto& row : report.comparisons) {
    if (!groups.contains(row.group)) order.push_back(row.group);
    groups[row.group].push_back(&row);
  }
  const auto measure = [](const Comparison& row) {
    return row.is_absolute ? row.absolute : row.relative;
  };
  std::printf("  worst of each kind:\n");
  for (const auto& group : order) {
    const Comparison* worst = groups[group].front();
    size_t failed = 0;
    for (const auto* row : groups[group]) {
      failed += row->passed() ? 0 : 1;
      const bool worse =
          row->passed() == worst->passed() ? measure(*row) > measure(*worst) : !row->passed();
      if (worse) worst = row;
    }
    print_row(failed ? "FAIL" : "ok",
              *worst,
              group + " (" + std::to_string(groups[group].size()) +
                  (failed ? ", " + std::to_string(failed) + " beyond" : "") + "): " + worst->name);
  }
}

void print_report(const std::string& file, const GoldenReport& report, bool brief) {
  std::printf("%s: %s\n", file.c_str(), report.subject.c_str());
  std::printf("  %-4s %11s %11s  %-12s %s\n", "", "absolute", "relative", "tolerance", "of");
  for (const auto& row : report.comparisons)
    if (!brief || !row.passed()) print_row(row.passed() ? "ok" : "FAIL", row, row.name);
  print_worst(report);
  for (const auto& note : report.notes) std::printf("  NOTE %s\n", note.c_str());
  std::printf("%s: %s\n\n", file.c_str(), report.passed() ? "passed" : "FAILED");
  std::fflush(stdout);
}

/// Every file is run, whatever the ones before it gave.
void verify(const VerifyOptions& options) {
  const auto precision = options.float64 ? Precision::kFloat64 : Precision::kFloat32;
  size_t failed = 0;
  std::string unknown;
  for (const auto& file : options.files) {
    try {
      const auto report = verify_golden_file(file, precision);
      print_report(file, report, options.brief);
      failed += report.passed() ? 0 : 1;
    } catch (const UsageError& error) {
      std::cerr << "vireo: " << file << ": " << error.what() << "\n";
      unknown = error.what();
    } catch (const c10::Error& error) {
      std::cerr << "vireo: " << file << ": LibTorch: " << error.what_without_backtrace() << "\n";
      ++failed;
    } catch (const std::exception& error) {
      std::cerr << "vireo: " << error.what() << "\n";
      ++failed;
    }
  }
  if (failed > 0)
    throw Error("verify: " + std::to_string(failed) + " of " +
                std::to_string(options.files.size()) + " files failed");
  if (!unknown.empty()) throw UsageError("verify: " + unknown);
}

}  // namespace

void add_verify(CLI::App& app) {
  auto* verb = app.add_subcommand(
      "verify", "Run golden files (reference inputs, outputs, gradients) through Vireo");
  const auto options = std::make_shared<VerifyOptions>();
  verb->add_option("FILE", options->files, "Golden files: .safetensors or .json")
      ->required()
      ->type_name("");
  verb->add_flag("--float64", options->float64, "Compute networks in float64 from the start");
  verb->add_flag("--brief", options->brief, "Print the worst of each kind and failures only");
  verb->footer(
      "Prints, for the output and every gradient, activation and statistic, the largest absolute\n"
      "deviation from the reference and the same relative to the reference's largest value.\n"
      "Gradients beyond their tolerance in float32 are repeated in float64, which then decides.\n"
      "Exit code 0: all within the tolerances; 1: not, or a broken file; 2: an unknown model.\n\n"
      "Example:\n  vireo verify --brief shared/golden/rwkv_unet_t.safetensors");
  verb->callback([options] { verify(*options); });
}

}  // namespace vireo
