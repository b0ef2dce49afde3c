#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/engine/checkpoint.h"
#include "datasets/preparation.h"
#include "models/registry.h"
#include "models/weights/state_dict.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/io/image_file.h"

// The program's own predict and info, with a checkpoint of a network that was never trained.
namespace vireo {
namespace {

namespace fs = std::filesystem;
using test::run_command;
using ::testing::HasSubstr;

Preparation picture_preparation() {
  Preparation preparation;
  preparation.dataset_name = "made";
  preparation.channels = {{"grey", ChannelNormalization::Kind::kRgb, 0, 0, 0.5, 0.25}};
  preparation.labels = {{"background", 0, {}}, {"cell", 255, {}}};
  return preparation;
}

void write_untrained(const fs::path& path, std::array<int64_t, 2> window) {
  const std::string table_text = "name = \"rwkv_unet_t\"";
  ConfigTable table = ConfigTable::from_text(table_text, "test");
  const auto model = create_model(table, {1, 2});
  Checkpoint checkpoint;
  checkpoint.model = state_of(*model);
  checkpoint.metadata = {{"model", table_text},
                         {"model_shape", R"({"input_channels": 1, "class_count": 2})"},
                         {"config", "# none"},
                         {"preparation", picture_preparation().to_json().dump()},
                         {"window_yx", nlohmann::json(window).dump()},
                         {"neighbours", "0"},
                         {"mirrored_yx", "[true, true]"}};
  write_checkpoint(path, checkpoint);
}

class PredictCommand : public ::testing::Test {
 protected:
  test::CommandResult vireo(const std::string& arguments) const {
    return run_command(test::program().string() + " " + arguments);
  }
  void put_picture(const std::string& name, int64_t side) const {
    const at::Tensor values = (at::rand({1, 1, side, side}) * 255).to(at::kByte);
    write_image(folder_ / name, values, {{1, side, side}});
  }

  fs::path folder_ = test::scratch_folder();
  fs::path model_ = folder_ / "checkpoint_best.safetensors";
};

TEST_F(PredictCommand, HelpsWithAnExample) {
  for (const char* verb : {"predict", "info"}) {
    const test::CommandResult help = vireo(std::string(verb) + " --help");
    EXPECT_EQ(help.exit_code, 0);
    EXPECT_THAT(help.output, HasSubstr("Example"));
    EXPECT_THAT(help.output, HasSubstr(std::string("vireo ") + verb));
  }
}

TEST_F(PredictCommand, TellsUsageFromFailure) {
  EXPECT_EQ(vireo("predict").exit_code, 2);
  EXPECT_EQ(vireo("predict --model a b c --device tpu").exit_code, 2);
  EXPECT_EQ(vireo("predict --model a b c --tta --no-tta").exit_code, 2);
  const std::string gone = (folder_ / "gone.safetensors").string();
  const test::CommandResult missing = vireo("predict --model " + gone + " in out");
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.errors, HasSubstr(gone));
}

TEST_F(PredictCommand, SegmentsPicturesAndGoesOnAfterABrokenOne) {
  write_untrained(model_, {32, 32});
  fs::create_directories(folder_ / "in");
  put_picture("in/a.png", 40);
  write_text_atomically(folder_ / "in/b.png", "no picture");
  put_picture("in/c.png", 24);
  const test::CommandResult result =
      vireo("predict --model " + model_.string() + " --model " + model_.string() + " " +
            (folder_ / "in").string() + " " + (folder_ / "out").string());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("1 case(s) failed"));
  EXPECT_THAT(result.errors, HasSubstr("b.png"));
  EXPECT_THAT(result.errors, HasSubstr("network"));
  EXPECT_THAT(result.output, HasSubstr("2 case(s) segmented"));
  EXPECT_EQ(read_image_header(folder_ / "out/a.png").geometry.size_zyx[1], 40);
  for (const char* name : {"c.png", "preview.png", "statistics.json", "manifest.json"})
    EXPECT_TRUE(fs::exists(folder_ / "out" / name)) << name;
  const auto manifest = nlohmann::json::parse(read_text(folder_ / "out/manifest.json"));
  EXPECT_EQ(manifest["models"].size(), 2u);
  EXPECT_EQ(manifest["command"][1], "predict");
}

TEST_F(PredictCommand, TakesAWholeLargePictureInTwoGigabytes) {
  write_untrained(model_, {1024, 1024});
  put_picture("large.png", 1024);
  const test::CommandResult result =
      vireo("predict --no-tta --batch 1 --model " + model_.string() + " " +
            (folder_ / "large.png").string() + " " + (folder_ / "out").string());
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  const auto manifest = nlohmann::json::parse(read_text(folder_ / "out/manifest.json"));
  EXPECT_LE(manifest["peak_memory_bytes"], int64_t{2} << 30);
}

TEST_F(PredictCommand, InfoTellsWhatACheckpointHolds) {
  write_untrained(model_, {32, 32});
  const test::CommandResult text = vireo("info " + model_.string());
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.output, HasSubstr("checkpoint"));
  EXPECT_THAT(text.output, HasSubstr("rwkv_unet_t"));
  const test::CommandResult json = vireo("info --json " + model_.string());
  EXPECT_EQ(nlohmann::json::parse(json.output)["metadata"]["preparation"]["labels"].size(), 2u);
}

TEST_F(PredictCommand, InfoTellsAboutProgramAndModels) {
  EXPECT_THAT(vireo("info").output, HasSubstr("LibTorch"));
  const test::CommandResult model =
      vireo("info rwkv_unet_t --size 64 64 --channels 1 --classes 3 --json");
  EXPECT_EQ(model.exit_code, 0);
  EXPECT_GT(nlohmann::json::parse(model.output)["parameters"], 3000000);
  const test::CommandResult unknown = vireo("info no_such_thing");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.errors,
              HasSubstr("no_such_thing: no such file, folder or model; known models are"));
  write_text_atomically(folder_ / "table.csv", "a,b");
  const test::CommandResult table = vireo("info " + (folder_ / "table.csv").string());
  EXPECT_EQ(table.exit_code, 1);
  EXPECT_THAT(table.errors, HasSubstr("is neither an image"));
}

}  // namespace
}  // namespace vireo
