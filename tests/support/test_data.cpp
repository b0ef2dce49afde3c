#include "tests/support/test_data.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace vireo::test {
namespace {

namespace fs = std::filesystem;

fs::path data_root() {
  const char* given = std::getenv("VIREO_TEST_DATA");
  return given && *given ? fs::path(given) : fs::path(VIREO_SOURCE_DIR) / "../shared/data";
}

fs::path if_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? fs::canonical(path) : fs::path();
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace

fs::path repository_file(const std::string& relative) {
  return fs::path(VIREO_SOURCE_DIR) / "tests" / relative;
}

fs::path real_data(const std::string& relative) {
  return if_there(data_root() / relative);
}

fs::path golden_file(const std::string& name) {
  return if_there(data_root() / ".." / "golden" / name);
}

fs::path program() {
  return VIREO_PROGRAM;
}

fs::path scratch_folder() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  std::string name = "vireo-test-" + std::to_string(::getpid());
  if (info) name += std::string("-") + info->test_suite_name() + "." + info->name();
  for (char& c : name)
    if (c == '/') c = '_';
  const fs::path folder = fs::temp_directory_path() / name;
  fs::remove_all(folder);
  fs::create_directories(folder);
  return folder;
}

CommandResult run_command(const std::string& command) {
  const fs::path folder =
      fs::temp_directory_path() / ("vireo-command-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const fs::path out = folder / "out", err = folder / "err";
  const int status = std::system((command + " >" + out.string() + " 2>" + err.string()).c_str());
  CommandResult result{
      WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), content(out), content(err)};
  fs::remove_all(folder);
  return result;
}

}  // namespace vireo::test
