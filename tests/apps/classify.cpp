// `vireo prepare`, `train`, `evaluate` and `predict` for classification, as commands.
#include <algorithm>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "apps/engine/checkpoint.h"
#include "models/registry.h"
#include "tests/support/made_pictures.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

void write_pictures(const fs::path& folder, const std::string& part, int64_t count, uint64_t seed) {
  const PictureSet set = test::made_pictures(count, seed);
  Geometry grid;
  grid.size_zyx = {1, 12, 12};
  for (int64_t i = 0; i < count; ++i) {
    const PictureItem& item = set.items[static_cast<size_t>(i)];
    write_image(
        folder / part / set.class_names[static_cast<size_t>(item.label)] / (item.name + ".png"),
        set.picture(i).permute({2, 0, 1}).unsqueeze(1).contiguous(),
        grid);
  }
}

constexpr const char* kModel =
    "name = \"vision_rwkv\"\nchannels = 32\ndepth = 2\npatch_size = 3\nimage_size = 12\n";

fs::path make_project(const fs::path& folder, const std::string& model = kModel) {
  write_pictures(folder / "data", "train", 150, 1);
  write_pictures(folder / "data", "val", 45, 2);
  write_pictures(folder / "data", "test", 45, 3);
  write_text_atomically(folder / "data" / "train" / "none" / "broken.png", "PNG?");
  write_text_atomically(folder / "bars.toml",
                        "task = \"classification\"\n[data]\nfolder = \"" +
                            (folder / "data").string() + "\"\ncache = \"" +
                            (folder / "cache").string() + "\"\n[model]\n" + model +
                            "[picture]\nsize = [12, 12]\n[batches]\nbatch_size = 25\n"
                            "[train]\nepochs = 25\nlearning_rate = 5e-3\nema_decay = 0.9\n"
                            "device = \"cpu\"\nthreads = 1\n");
  return folder / "bars.toml";
}

std::string run(const std::string& arguments, int expected = 0) {
  const auto result = test::run_command(test::program().string() + " " + arguments);
  EXPECT_EQ(result.exit_code, expected) << arguments << "\n" << result.errors;
  return result.output + result.errors;
}

TEST(Classify, RefusesNetworksOfPixelsBeforeReadingData) {
  const fs::path folder = test::scratch_folder();
  const fs::path config = make_project(folder, "name = \"rwkv_unet_t\"\n");
  EXPECT_THAT(
      run("train " + config.string() + " --quiet --output " + (folder / "run").string(), 1),
      HasSubstr(
          "model.name: \"rwkv_unet_t\" is a segmentation network (an answer for every pixel), "
          "and task = \"classification\" needs a classifier"));
  EXPECT_FALSE(fs::exists(folder / "cache"));
  EXPECT_FALSE(fs::exists(folder / "run"));
  const std::string prepared = run("prepare " + config.string());
  EXPECT_THAT(prepared, HasSubstr("broken.png"));
  EXPECT_THAT(prepared, HasSubstr("240 cases"));
}

TEST(Classify, TrainsEvaluatesPredictsAndFineTunes) {
  const auto& models = known_models();
  if (std::none_of(models.begin(), models.end(), [](const ModelEntry& m) {
        return m.name == "vision_rwkv";
      }))
    VIREO_SKIP("this build has no vision_rwkv");
  const fs::path folder = test::scratch_folder();
  const fs::path config = make_project(folder), results = folder / "results";
  const std::string best = (folder / "run" / "checkpoint_best.safetensors").string();
  run("train " + config.string() + " --quiet --output " + (folder / "run").string());
  const std::string said =
      run("evaluate " + best + " " + config.string() + " --output " + results.string());
  EXPECT_THAT(said, HasSubstr("Top-1 accuracy"));
  const json scores = json::parse(read_text(results / "results.json"));
  EXPECT_EQ(scores.at("part"), "test");
  EXPECT_EQ(scores.at("pictures"), 45);
  EXPECT_GT(scores.at("overall").at("top1").at("value").get<double>(), 0.6);
  EXPECT_GT(scores.at("temperature").at("value").get<double>(), 0);
  EXPECT_GT(scores.at("pictures_per_second").get<double>(), 0);
  EXPECT_THAT(read_text(results / "results.csv"),
              StartsWith("model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,"
                         "interpolation,balanced_accuracy"));
  EXPECT_THAT(read_text(results / "predictions.csv"),
              StartsWith("name,truth,predicted,across,down,none\n"));
  const std::string page = read_text(results / "report.html");
  EXPECT_THAT(page, HasSubstr("Reliability"));
  EXPECT_EQ(page.find("http"), std::string::npos) << "the page needs nothing but itself";

  const fs::path test_part = folder / "data" / "test";
  run("predict --model " + best + " --evidence " + test_part.string() + " " +
      (folder / "out").string());
  const json predictions = json::parse(read_text(folder / "out" / "predictions.json"));
  ASSERT_EQ(predictions.at("pictures").size(), 45u);
  EXPECT_TRUE(fs::exists(folder / "out" / "preview.png"));
  const json& first = predictions.at("pictures")[0];
  double sum = 0;
  for (const auto& [name, value] : first.at("probabilities").items()) sum += value.get<double>();
  EXPECT_NEAR(sum, 1, 1e-9);
  EXPECT_TRUE(
      fs::exists(folder / "out" / "evidence" / (first.at("name").get<std::string>() + ".png")));

  for (const char* part : {"train", "val", "test"}) fs::remove_all(folder / "data" / part / "none");
  const std::string tuned =
      run("train " + config.string() + " --output " + (folder / "tuned").string() +
          " --epochs 1 --set data.cache=" + (folder / "cache2").string() + " --pretrained " + best +
          " --set train.layer_decay=0.7 --set data.broken=refuse");
  EXPECT_THAT(tuned, HasSubstr("starting from " + best));
  EXPECT_THAT(tuned, HasSubstr("2 left at their start (head.fc.bias, head.fc.weight)"));
}

TEST(Classify, TheEncoderOfRwkvUnetIsAClassifierLikeAnyOther) {
  const fs::path folder = test::scratch_folder();
  const fs::path config = make_project(folder,
                                       "name = \"rwkv_unet_encoder\"\ndepths = [1, 1, 2, 2]\n"
                                       "dims = [8, 8, 12, 16]\nexpansions = [1, 1, 1, 2]\n");
  const std::string best = (folder / "run" / "checkpoint_best.safetensors").string();
  run("train " + config.string() + " --quiet --epochs 2 --output " + (folder / "run").string());
  run("evaluate " + best + " " + config.string() + " --output " + (folder / "results").string());
  const json scores = json::parse(read_text(folder / "results" / "results.json"));
  EXPECT_EQ(scores.at("pictures"), 45);
  run("predict --model " + best + " --evidence " + (folder / "data" / "test" / "down").string() +
      " " + (folder / "out").string());
  EXPECT_TRUE(fs::exists(folder / "out" / "evidence"));
  EXPECT_THAT(run("info " + best), HasSubstr("stage4.1.att.key.weight"));
}

}  // namespace
}  // namespace vireo
