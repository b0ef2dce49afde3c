#include "apps/engine/benchmark.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/engine/checkpoint.h"
#include "apps/engine/scaling.h"
#include "kernels/bench/aten_forms.h"
#include "kernels/bench/operator_in_use.h"
#include "models/inference.h"
#include "models/weights/state_dict.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_classifier.h"
#include "vision/core/atomic_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kTiny =
    "name = \"rwkv_unet\"\ndepths = [1, 1, 2, 2]\ndims = [8, 8, 12, 16]\n"
    "expansions = [1, 1, 1, 2]\nstem_width = 8\n";

BenchNetwork tiny() {
  ConfigTable table = ConfigTable::from_text(kTiny, "test");
  return {"tiny", create_model(table, {1, 3}), {32, 48}};
}

TEST(BenchNetwork, KnownModelsHaveTheirUsualChannelsAndClasses) {
  const BenchNetwork unet = open_bench_network("rwkv_unet_t", 0, 0);
  EXPECT_EQ(unet.model->input_channels(), 3);
  EXPECT_EQ(unet.model->class_count(), 9);
  EXPECT_THAT(unet.size_yx, ElementsAre(224, 224));
  EXPECT_EQ(open_bench_network("vision_rwkv_t", 0, 0).model->class_count(), 1000);
  const BenchNetwork asked = open_bench_network("vision_rwkv_t", 1, 7);
  EXPECT_EQ(asked.model->input_channels(), 1);
  EXPECT_EQ(asked.model->class_count(), 7);
}

TEST(BenchNetwork, ConfigurationsTellModelAndWindow) {
  const fs::path config = test::scratch_folder() / "tiny.toml";
  write_text_atomically(
      config, std::string("[model]\n") + kTiny + "[batches]\nwindow = [24, 20]\nbatch_size = 6\n");
  const BenchNetwork network = open_bench_network(config.string(), 2, 5);
  EXPECT_EQ(network.model->input_channels(), 2);
  EXPECT_EQ(network.model->class_count(), 5);
  EXPECT_THAT(network.size_yx, ElementsAre(24, 20));
}

TEST(BenchNetwork, CheckpointsTellEverything) {
  const fs::path path = test::scratch_folder() / "checkpoint.safetensors";
  Checkpoint checkpoint;
  checkpoint.model = state_of(*tiny().model);
  checkpoint.metadata = {{"model", kTiny},
                         {"model_shape", R"({"input_channels": 1, "class_count": 3})"},
                         {"window_yx", "[40, 56]"}};
  write_checkpoint(path, checkpoint);
  const BenchNetwork network = open_bench_network(path.string(), 0, 0);
  EXPECT_EQ(network.model->class_count(), 3);
  EXPECT_THAT(network.size_yx, ElementsAre(40, 56));
  EXPECT_THAT(test::message_of([&] { open_bench_network(path.string(), 0, 4); }),
              HasSubstr("a checkpoint's channels and classes are fixed; leave out --classes"));
}

TEST(BenchNetwork, OthersAreRefusedWithWhatIsKnown) {
  EXPECT_THAT(test::message_of([] { open_bench_network("resnet50", 0, 0); }),
              AllOf(HasSubstr("resnet50: expected a known model"), HasSubstr("vision_rwkv6_t")));
  EXPECT_THROW(open_bench_network("no/such.toml", 0, 0), Error);
  EXPECT_THROW(open_bench_network("no/such.safetensors", 0, 0), DataError);
}

TEST(BenchNetworks, EverySettingHasItsNumbers) {
  BenchQuestion question;
  question.networks = {tiny()};
  question.batches = {1, 2};
  question.precisions = {"fp32", "bf16", "int8"};
  question.seconds = 0.02;
  const auto report = bench_networks(question);
  EXPECT_EQ(report["pass"], "inference");
  const auto& network = report["networks"][0];
  EXPECT_EQ(network["image"], (std::vector<int64_t>{1, 32, 48}));
  EXPECT_GT(network["multiply_adds"].get<int64_t>(), 0);
  ASSERT_EQ(network["settings"].size(), 6u);
  for (const auto& setting : network["settings"]) {
    const auto& seconds = setting["seconds"];
    EXPECT_GE(seconds["runs"].get<int64_t>(), 3);
    EXPECT_LE(seconds["min"], seconds["low_quartile"]);
    EXPECT_LE(seconds["low_quartile"], seconds["median"]);
    EXPECT_LE(seconds["median"], seconds["high_quartile"]);
    EXPECT_LE(seconds["high_quartile"], seconds["max"]);
    const double per_image = setting["ms_per_image"].get<double>() / 1e3;
    EXPECT_NEAR(per_image * setting["images_per_second"].get<double>(), 1, 1e-9);
  }
  EXPECT_EQ(network["settings"][4]["batch"], 2);
  EXPECT_EQ(network["settings"][4]["precision"], "bf16");
}

TEST(BenchNetworks, TrainingStepsChangeTheWeights) {
  BenchQuestion question;
  question.networks = {tiny(), {"classifier", std::make_shared<test::TinyClassifier>(3, 5)}};
  question.size_yx = {32, 32};
  question.trains = true;
  question.seconds = 0.02;
  std::vector<at::Tensor> before;
  for (const BenchNetwork& network : question.networks)
    before.push_back(network.model->parameters().front().clone());
  const auto report = bench_networks(question);
  EXPECT_EQ(report["pass"], "training step");
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_FALSE(at::equal(question.networks[i].model->parameters().front(), before[i]));
    EXPECT_FALSE(report["networks"][i]["settings"][0].contains("multiply_adds_per_second"));
  }
}

TEST(BenchNetworks, RefuseToTrainInEightBits) {
  const NetworkPasses passes(tiny(), at::kCPU);
  EXPECT_THAT(test::message_of([&] { passes.pass({.precision = "int8", .trains = true}); }),
              HasSubstr("int8 is for inference"));
}

TEST(Scaling, AttentionTakesThePlaceOfWkvInTheInferenceForm) {
  const at::NoGradGuard no_grad;
  const auto form = prepare_for_inference(tiny().model);
  const at::Tensor image = at::randn({1, 1, 32, 48}), wkv = form->forward(image);
  {
    const OperatorInUse in_use("bi_wkv", attention_for_bi_wkv, at::kCPU);
    EXPECT_FALSE(at::allclose(form->forward(image), wkv));
  }
  EXPECT_TRUE(at::equal(form->forward(image), wkv));
}

TEST(Scaling, ExponentIsThatOfThePower) {
  EXPECT_NEAR(growth_exponent({1, 10, 100}, {3, 3 * 31.622776601683793, 3000}), 1.5, 1e-12);
  EXPECT_TRUE(std::isnan(growth_exponent({1}, {1})));
}

TEST(Scaling, TimesEveryFormAtEverySide) {
  ScalingQuestion question;
  question.networks = {tiny()};
  question.sides = {32, 64, 128};
  question.seconds = 0.02;
  const auto report = bench_scaling(question);
  ASSERT_EQ(report["series"].size(), 2u);
  EXPECT_EQ(report["series"][0]["form"], "wkv");
  EXPECT_EQ(report["series"][1]["form"], "attention");
  for (const auto& series : report["series"]) {
    ASSERT_EQ(series["points"].size(), 3u);
    EXPECT_EQ(series["points"][2]["pixels"], 128 * 128);
    EXPECT_TRUE(series["left_out"].empty());
    EXPECT_TRUE(series["time_exponent"].is_number());
  }
  EXPECT_THAT(scaling_text(report), HasSubstr("tiny, attention in place of WKV: time grows as"));
}

TEST(Scaling, LeavesOutWhatWouldTakeTooLongOrTooMuch) {
  ScalingQuestion question;
  question.networks = {tiny()};
  question.sides = {32, 64, 128};
  question.seconds = 0.01;
  question.longest_pass = 1e-9;
  auto report = bench_scaling(question);
  for (const auto& series : report["series"]) {
    EXPECT_EQ(series["points"].size(), 1u);
    ASSERT_EQ(series["left_out"].size(), 2u);
    EXPECT_EQ(series["left_out"][1]["side"], 128);
  }
  EXPECT_THAT(scaling_text(report),
              AllOf(HasSubstr("left out: a pass would take about"), HasSubstr("--max-seconds")));
  question.longest_pass = 60;
  question.most_memory = 1;
  report = bench_scaling(question);
  if (report["series"][0]["points"][0]["peak_bytes"].is_null())
    VIREO_SKIP("this system does not tell the peak of resident memory");
  EXPECT_THAT(scaling_text(report), HasSubstr("left out: it would need about"));
}

}  // namespace
}  // namespace vireo
