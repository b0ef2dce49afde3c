// A table with several labels per picture, from `vireo prepare` to `vireo predict`.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "datasets/random.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

std::string run(const std::string& arguments) {
  const auto result = test::run_command(test::program().string() + " " + arguments);
  EXPECT_EQ(result.exit_code, 0) << arguments << "\n" << result.errors;
  return result.output + result.errors;
}

// Bars across and down, which come together or alone; two pictures of each patient.
fs::path make_project(const fs::path& folder) {
  std::string table = "path,patient_id,split,across,down\n";
  Geometry grid;
  grid.size_zyx = {1, 12, 12};
  for (int64_t i = 0; i < 300; ++i) {
    Random random{7, static_cast<uint64_t>(i)};
    const bool across = random.chance(0.5), down = random.chance(0.5);
    at::Tensor picture = at::randint(40, 100, {1, 1, 12, 12}).to(at::kByte);
    if (across) picture.select(2, 3 + random.below(6)).fill_(220);
    if (down) picture.select(3, 3 + random.below(6)).fill_(220);
    const std::string name = "picture_" + std::to_string(i) + ".png";
    write_image(folder / "data" / name, picture, grid);
    table += name + ",p" + std::to_string(i / 2);
    table += i < 200 ? ",train," : i < 240 ? ",val," : ",test,";
    table += std::string(across ? "1," : "0,") + (down ? "1\n" : "0\n");
  }
  write_text_atomically(folder / "data" / "labels.csv", table);
  const std::string data = (folder / "data").string(), cache = (folder / "cache").string();
  write_text_atomically(
      folder / "bars.toml",
      "task = \"classification\"\n"
      "[data]\nfolder = \"" +
          data + "\"\ncache = \"" + cache +
          "\"\nmulti_label = true\n"
          "[model]\nname = \"vision_rwkv\"\nchannels = 32\ndepth = 2\npatch_size = 3\n"
          "image_size = 12\n"
          "[picture]\nsize = [12, 12]\n[batches]\nbatch_size = 20\n"
          "[train]\nepochs = 25\nlearning_rate = 5e-3\nema_decay = 0.9\ndevice = \"cpu\"\n"
          "threads = 1\n[validation]\nscore = \"auroc\"\n");
  return folder / "bars.toml";
}

TEST(MultiLabel, ATableIsPreparedLearnedScoredAndPredictedLabelByLabel) {
  const fs::path folder = test::scratch_folder();
  const std::string config = make_project(folder).string();
  EXPECT_THAT(run("prepare " + config), HasSubstr("300 cases"));
  run("train " + config + " --quiet --output " + (folder / "run").string());
  const std::string best = (folder / "run" / "checkpoint_best.safetensors").string();
  run("evaluate " + best + " " + config + " --output " + (folder / "scores").string());
  const json scores = json::parse(read_text(folder / "scores" / "results.json"));
  EXPECT_EQ(scores.at("pictures"), 60);
  EXPECT_TRUE(scores.at("by_patient").get<bool>());
  EXPECT_TRUE(scores.at("overall").contains("exact_match"));
  EXPECT_FALSE(scores.contains("confusion")) << "labels do not exclude each other";
  EXPECT_EQ(read_text(folder / "scores" / "report.html").find("<h2>Confusion"), std::string::npos);
  ASSERT_EQ(scores.at("classes").size(), 2u);
  for (const json& one : scores.at("classes"))
    EXPECT_GT(one.at("scores").at("auroc").at("value").get<double>(), 0.9) << one.at("name");

  const std::string data = (folder / "data").string(), out = (folder / "out").string();
  run("predict --model " + best + " " + data + " " + out);
  const json predictions = json::parse(read_text(folder / "out" / "predictions.json"));
  size_t both = 0, neither = 0;
  for (const json& picture : predictions.at("pictures")) {
    both += picture.at("predicted").size() == 2;
    neither += picture.at("predicted").empty();
  }
  EXPECT_GT(both, 30u) << "no softmax: both labels may be likely";
  EXPECT_GT(neither, 30u);
}

}  // namespace
}  // namespace vireo
