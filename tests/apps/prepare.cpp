#include <chrono>
#include <csignal>
#include <map>
#include <random>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "datasets/prepared_cache.h"
#include "tests/datasets/small_sets.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A configuration beside a set; its cache is the folder "cache" beside both.
fs::path write_config(const fs::path& root, const std::string& cache = "cache") {
  const fs::path path = root / (cache + ".toml");
  test::write_text(path,
                   "[data]\nfolder = \"" + (root / "set").string() + "\"\ncache = \"" +
                       (root / cache).string() + "\"\n[model]\nname = \"unused here\"\n");
  return path;
}

std::string command(const fs::path& config) {
  return test::program().string() + " prepare " + config.string();
}

// Every file of a cache with its bytes.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      files[entry.path().lexically_relative(folder).string()] = read_text(entry.path());
  return files;
}

pid_t start(const fs::path& config, const fs::path& log) {
  const std::string program = test::program().string(), path = config.string();
  const pid_t child = ::fork();
  if (child == 0) {
    const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(file, STDOUT_FILENO);
    ::dup2(file, STDERR_FILENO);
    ::execl(program.c_str(), "vireo", "prepare", path.c_str(), nullptr);
    ::_exit(127);
  }
  return child;
}

TEST(PrepareVerb, SaysWhereTheCacheIsAndThatItIsDone) {
  const fs::path root = test::scratch_folder();
  test::make_msd_set(root / "set", 3);
  const fs::path config = write_config(root);
  const auto first = test::run_command(command(config));
  EXPECT_EQ(first.exit_code, 0) << first.errors;
  EXPECT_EQ(first.output, (root / "cache").string() + ": 3 cases, 3 folds\n");
  EXPECT_THAT(first.errors, HasSubstr("prepared 3 cases in"));
  const auto second = test::run_command(command(config));
  EXPECT_EQ(second.exit_code, 0);
  EXPECT_EQ(second.output, first.output);
  EXPECT_THAT(second.errors, HasSubstr("already prepared"));
}

TEST(PrepareVerb, PutsTheCacheInTheRunsFolder) {
  const fs::path root = test::scratch_folder();
  test::make_msd_set(root / "set", 2);
  test::write_text(root / "configs/task/set/model.toml", "[data]\nfolder = \"set\"\n");
  const auto result =
      test::run_command("cd " + root.string() + " && " + command("configs/task/set/model.toml"));
  EXPECT_THAT(result.output, StartsWith("runs/task/set/model/prepared: 2 cases"));
}

TEST(PrepareVerb, OverridesKeysAndReportsMistakes) {
  const fs::path root = test::scratch_folder();
  test::make_msd_set(root / "set", 3);
  const fs::path config = write_config(root);
  EXPECT_THAT(test::run_command(command(config) + " --set data.folds=2").output,
              HasSubstr("3 cases, 2 folds"));
  const auto unknown = test::run_command(command(config) + " --set data.foldz=2");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.errors, HasSubstr("did you mean \"folds\"?"));
  fs::remove(root / "set/labelsTr/scan_1.nii.gz");
  const auto broken = test::run_command(command(config));
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_THAT(broken.errors, HasSubstr("labelsTr/scan_1.nii.gz: does not exist"));
  EXPECT_EQ(test::run_command(test::program().string() + " prepare").exit_code, 2);
}

TEST(PrepareVerb, HelpShowsAnExample) {
  const auto help = test::run_command(test::program().string() + " prepare --help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("Example:\n  vireo prepare configs/"));
}

TEST(PrepareVerb, StopsOnRequestAndContinues) {
  const fs::path root = test::scratch_folder();
  test::make_msd_set(root / "set", 60);
  const fs::path config = write_config(root);
  const pid_t child = start(config, root / "log");
  while (!fs::exists(root / "cache/cases") || fs::is_empty(root / "cache/cases"))
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ::kill(child, SIGINT);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WEXITSTATUS(status) == 0) VIREO_SKIP("all cases were prepared before the signal came");
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(read_text(root / "log"), HasSubstr("stopped as asked; run the same command again"));
  EXPECT_THROW(PreparedCache::open(root / "cache"), DataError);
  const auto again = test::run_command(command(config));
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_THAT(again.errors, HasSubstr("of them were there"));
}

TEST(PrepareVerb, SurvivesKillsAtAnyMoment) {
  const fs::path root = test::scratch_folder();
  test::make_msd_set(root / "set", 40);
  const fs::path calm = write_config(root, "calm"), config = write_config(root, "killed");
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(test::run_command(command(calm)).exit_code, 0);
  const auto whole = std::chrono::steady_clock::now() - begin;

  std::mt19937 random(20240701);
  int killed = 0;
  for (int i = 0; i < 10; ++i) {
    const pid_t child = start(config, root / "log");
    std::this_thread::sleep_for(whole * static_cast<double>(random() % 1000) / 1000.0);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) ++killed;
    // Whatever is there is a whole cache or none.
    if (fs::exists(root / "killed/cache.json")) {
      EXPECT_EQ(PreparedCache::open(root / "killed", true).case_names().size(), 40U);
    } else {
      EXPECT_THROW(PreparedCache::open(root / "killed"), DataError);
    }
  }
  EXPECT_GT(killed, 0);
  ASSERT_EQ(test::run_command(command(config)).exit_code, 0) << read_text(root / "log");
  const auto expected = files_of(root / "calm"), found = files_of(root / "killed");
  ASSERT_EQ(expected.size(), found.size());
  for (const auto& [name, bytes] : expected) {
    ASSERT_TRUE(found.contains(name)) << name;
    EXPECT_TRUE(found.at(name) == bytes) << name << " differs";
  }
}

TEST(PrepareVerb, LetsOneProcessWorkOnACache) {
  const fs::path root = test::scratch_folder();
  test::make_msd_set(root / "set", 2);
  const fs::path config = write_config(root);
  fs::create_directories(root / "cache");
  const auto result =
      test::run_command("flock " + (root / "cache").string() + " " + command(config));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("another `vireo prepare` is at work on this cache"));
}

}  // namespace
}  // namespace vireo
