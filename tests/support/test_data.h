#pragma once

#include <filesystem>
#include <string>

// Where tests find files, and how they say that something is absent.
namespace vireo::test {

/// A file under tests/golden or tests/data of this repository.
std::filesystem::path repository_file(const std::string& relative);

/// A path below VIREO_TEST_DATA (default ../shared/data beside the repository); empty when absent.
std::filesystem::path real_data(const std::string& relative);

/// A path in the golden folder beside VIREO_TEST_DATA; empty when absent.
std::filesystem::path golden_file(const std::string& name);

/// The built `vireo` program.
std::filesystem::path program();

/// A fresh empty folder for the running test, removed when the test process ends without failure.
std::filesystem::path scratch_folder();

struct CommandResult {
  int exit_code = 0;
  std::string output;  ///< stdout
  std::string errors;  ///< stderr
};
/// Runs a shell command and returns what it printed.
CommandResult run_command(const std::string& command);

}  // namespace vireo::test

/// Skips the test, saying why; `./dev test` lists these lines at its end.
#define VIREO_SKIP(reason) GTEST_SKIP() << "SKIPPED: " << (reason)

#define VIREO_REQUIRE_REAL_DATA(variable, relative)                          \
  const std::filesystem::path variable = ::vireo::test::real_data(relative); \
  if (variable.empty())                                                      \
  VIREO_SKIP(std::string("no real data: ") + (relative) + " is not below VIREO_TEST_DATA")

#define VIREO_REQUIRE_GOLDEN(variable, name)                               \
  const std::filesystem::path variable = ::vireo::test::golden_file(name); \
  if (variable.empty())                                                    \
  VIREO_SKIP(std::string("no golden file ") + (name) + " beside VIREO_TEST_DATA")
