#include <chrono>
#include <csignal>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

test::CommandResult bench(const std::string& arguments) {
  return test::run_command(test::program().string() + " bench " + arguments);
}

// A configuration of a very small RWKV-UNet, whose data nobody needs.
fs::path tiny_config(const fs::path& folder) {
  write_text_atomically(folder / "tiny.toml",
                        "[model]\nname = \"rwkv_unet\"\ndepths = [1, 1, 2, 2]\n"
                        "dims = [8, 8, 12, 16]\nexpansions = [1, 1, 1, 2]\nstem_width = 8\n"
                        "[batches]\nwindow = [32, 48]\n");
  return folder / "tiny.toml";
}

TEST(Bench, PrintsATableAndWritesTheSameNumbers) {
  const fs::path folder = test::scratch_folder(), out = folder / "speed.json";
  const auto result = bench(tiny_config(folder).string() +
                            " --batch 1 2 --precision fp32,int8 --seconds 0.05 --threads 1"
                            " --classes 4 --output " +
                            out.string());
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("Vireo "),
                    HasSubstr("1 of "),
                    HasSubstr("GMAC per image of 3x32x48, 4 classes"),
                    HasSubstr("batch precision      runs       min  quartile    median  quartile"),
                    HasSubstr("max  images/s    GMAC/s  peak MiB"),
                    HasSubstr("int8")));
  const json report = json::parse(read_text(out));
  EXPECT_EQ(report["machine"]["threads"], 1);
  EXPECT_FALSE(report["machine"]["date"].get<std::string>().empty());
  EXPECT_FALSE(report["version"].get<std::string>().empty());
  EXPECT_EQ(report["networks"][0]["settings"].size(), 4u);
  char median[32];
  const json& last = report["networks"][0]["settings"][3];
  std::snprintf(median, sizeof median, " %.3f ", last["ms_per_image"].get<double>());
  EXPECT_THAT(result.output, HasSubstr(median));
}

TEST(Bench, TrainsAtTheSizeThatIsAskedFor) {
  const fs::path folder = test::scratch_folder();
  const auto result =
      bench(tiny_config(folder).string() + " --training --size 32 --batch 2 --seconds 0.05");
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, AllOf(HasSubstr("training step"), HasSubstr("of 3x32x32")));
}

TEST(Bench, ShowsHowCostGrows) {
  const fs::path folder = test::scratch_folder(), out = folder / "scaling.json";
  const auto result = bench(tiny_config(folder).string() +
                            " --scaling --sides 32 64 128 --seconds 0.02 --output " + out.string());
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, AllOf(HasSubstr("time grows as area^"), HasSubstr("ns/pixel")));
  EXPECT_EQ(json::parse(read_text(out))["series"][0]["points"].size(), 3u);
}

TEST(Bench, RefusesWhatItCannotMeasure) {
  const fs::path folder = test::scratch_folder();
  const std::string tiny = tiny_config(folder).string();
  const auto refusal = [&](const std::string& arguments) {
    const auto result = bench(arguments);
    EXPECT_EQ(result.exit_code, 2) << arguments;
    EXPECT_EQ(result.output, "") << arguments;
    return result.errors;
  };
  EXPECT_THAT(refusal("resnet50"),
              AllOf(HasSubstr("resnet50: expected a known model"), HasSubstr("rwkv_unet_t")));
  EXPECT_THAT(refusal(tiny + " --precision fp64"), HasSubstr("fp64"));
  EXPECT_THAT(refusal(tiny + " --size 0"), HasSubstr("--size"));
  EXPECT_THAT(refusal(tiny + " --plot a.png"), HasSubstr("--plot draws what --scaling measures"));
  EXPECT_THAT(refusal(tiny + " --scaling --plot a.svg"), HasSubstr("ends in .png"));
  EXPECT_THAT(refusal(tiny + " --scaling --sides 64 32"), HasSubstr("found 32 behind 64"));
  EXPECT_THAT(refusal(tiny + " --scaling --precision fp32,bf16"),
              HasSubstr("one precision at a time"));
  EXPECT_THAT(refusal(tiny + " --scaling --batch 2"), HasSubstr("excludes"));
  EXPECT_THAT(refusal(""), HasSubstr("MODEL"));
  EXPECT_EQ(bench((folder / "none.toml").string()).exit_code, 1);
  EXPECT_THAT(bench("--help").output,
              AllOf(HasSubstr("Examples"), HasSubstr("--scaling --plot scaling.png")));
}

TEST(Bench, InterruptedWritesNothing) {
  const fs::path folder = test::scratch_folder(), out = folder / "speed.json";
  const std::string command = "exec " + test::program().string() + " bench " +
                              tiny_config(folder).string() + " --seconds 600 --output " +
                              out.string() + " 2> " + (folder / "errors").string();
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
  const auto measures = [&] {
    return fs::exists(folder / "errors") &&
           read_text(folder / "errors").find("measuring for") != std::string::npos;
  };
  for (int i = 0; i < 1200 && !measures(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ::kill(child, SIGINT);
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_THAT(read_text(folder / "errors"), HasSubstr("stopped as asked; nothing was written"));
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files.push_back(entry.path().filename().string());
  EXPECT_THAT(files, ::testing::UnorderedElementsAre("tiny.toml", "errors"));
}

}  // namespace
}  // namespace vireo
