#include "models/rwkv_unet.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/nn/functional/padding.h>
#include <torch/nn/options/padding.h>

#include "models/cost.h"
#include "models/weights/state_dict.h"
#include "tests/support/deviation.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using test::deviation;
using test::message_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::shared_ptr<Model> model_of(const std::string& toml, const ModelShape& shape = {1, 3}) {
  auto table = ConfigTable::from_text(toml, "model.toml");
  return create_model(table, shape);
}

std::shared_ptr<Model> small_model(int64_t in_channels = 1, const std::string& more = "") {
  return model_of(
      "name = \"rwkv_unet\"\ndepths = [1, 1, 2, 2]\ndims = [8, 8, 12, 16]\n"
      "expansions = [1, 1.5, 2, 2]\n" +
          more,
      {in_channels, 3});
}

TEST(RwkvUnet, HoldsThePublishedNumberOfUsedParameters) {
  const auto used = [](const std::string& name) {
    int64_t numbers = 0;
    for (const auto& parameter : model_of("name = \"" + name + "\"", {1, 9})->parameters())
      numbers += parameter.numel();
    return numbers;
  };
  EXPECT_EQ(used("rwkv_unet_t"), 3'145'961);
  EXPECT_NEAR(static_cast<double>(used("rwkv_unet_s")), 9.702e6, 500);
  EXPECT_NEAR(static_cast<double>(used("rwkv_unet_b")), 17.126e6, 500);
}

TEST(RwkvUnet, HasThePublishedNamesAndKnowsTheUnusedOnes) {
  VIREO_REQUIRE_GOLDEN(path, "rwkv_unet_t.safetensors");
  const auto file = SafetensorsFile::open(path);
  const auto golden = nlohmann::json::parse(file.metadata().at("golden"));
  const auto model = model_of("name = \"rwkv_unet_t\"", {3, 9});
  const auto state = state_of(*model);

  std::set<std::string> published, ours, unused;
  for (const auto& name : golden["state_dict_names"]) published.insert(name.get<std::string>());
  for (const auto& item : golden["unused_parameters"].items()) unused.insert(item.key());
  for (const auto& [name, tensor] : state) ours.insert(name);
  for (const auto& name : published) {
    EXPECT_NE(ours.contains(name), unused.contains(name)) << name;
    EXPECT_EQ(model->is_known_unused(name), unused.contains(name)) << name;
  }
  EXPECT_EQ(ours.size() + unused.size(), published.size());
}

TEST(RwkvUnet, ComputesThePublishedOutput) {
  VIREO_REQUIRE_GOLDEN(path, "rwkv_unet_t.safetensors");
  const auto file = SafetensorsFile::open(path);
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, tensor] : file.tensors())
    if (name.starts_with("param/")) state[name.substr(6)] = tensor;
  const auto model = model_of("name = \"rwkv_unet_t\"", {3, 9});
  EXPECT_TRUE(load_state(*model, state, path.string()).accepted_unused.empty());
  model->eval();
  EXPECT_LE(deviation(model->forward(file.tensor("input")), file.tensor("output")), 2e-5);
  const at::NoGradGuard folds_the_norms;
  EXPECT_LE(deviation(model->forward(file.tensor("input")), file.tensor("output")), 2e-5);
}

TEST(RwkvUnet, AcceptsAnyHeightAndWidth) {
  const auto model = small_model();
  EXPECT_FALSE(model->classifies());
  model->eval();
  for (const auto& [height, width] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {5, 40}, {16, 16}, {33, 7}, {64, 48}}) {
    const at::Tensor y = model->forward(at::randn({2, 1, height, width}));
    EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 3, height, width}));
    EXPECT_TRUE(y.isfinite().all().item<bool>());
  }
}

TEST(RwkvUnet, PadsByReflectionAndCropsBack) {
  const auto model = small_model();
  model->eval();
  const at::Tensor image = at::randn({1, 1, 20, 25});
  const auto wide = torch::nn::functional::PadFuncOptions({0, 7, 0, 12}).mode(torch::kReflect);
  const at::Tensor padded = torch::nn::functional::pad(image, wide);
  const at::Tensor expected = model->forward(padded).slice(2, 0, 20).slice(3, 0, 25);
  EXPECT_LE(deviation(model->forward(image), expected), 1e-6);
}

TEST(RwkvUnet, RepeatsASingleChannel) {
  const auto grey = small_model(1), colour = small_model(3);
  load_state(*colour, state_of(*grey), "grey");
  grey->eval();
  colour->eval();
  const at::Tensor image = at::randn({1, 1, 32, 16});
  EXPECT_TRUE(at::equal(grey->forward(image), colour->forward(image.repeat({1, 3, 1, 1}))));
}

TEST(RwkvUnet, TakesAnyNumberOfChannelsAndRefusesAnother) {
  const auto model = small_model(5);
  EXPECT_EQ(model->forward(at::randn({2, 5, 16, 32})).size(1), 3);
  EXPECT_THAT(message_of([&] {
                model->forward(at::randn({1, 3, 16, 16}));
              }),
              AllOf(HasSubstr("[1, 3, 16, 16]"), HasSubstr("[batch, 5, height, width]")));
  EXPECT_THAT(message_of([&] { model->forward(at::randn({5, 16, 16})); }), HasSubstr("batch"));
}

TEST(RwkvUnet, EvaluationWithoutGradientsGivesTheSame) {
  const auto model = small_model(
      1, "kernels = [3, 5, 7, 3]\nnorms = [\"batch\", \"layer\", \"none\", \"batch\"]\n");
  model->train();
  for (int i = 0; i < 3; ++i) model->forward(at::randn({4, 1, 32, 32}) * 2 + 1);  // statistics
  model->eval();
  model->to(at::kDouble);
  const at::Tensor image = at::randn({2, 1, 32, 48}, at::kDouble);
  const at::Tensor expected = model->forward(image).detach();
  const at::NoGradGuard no_grad;
  EXPECT_LE(deviation(model->forward(image), expected), 1e-12);
}

TEST(RwkvUnet, LeavesItsInputAlone) {
  const auto model = small_model(3);
  const at::Tensor image = at::randn({2, 3, 16, 16}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor copy = image.clone();
  model->forward(image);
  model->eval();
  const at::NoGradGuard no_grad;
  model->forward(image);
  EXPECT_TRUE(at::equal(image, copy));
}

TEST(RwkvUnet, GivesEveryParameterAGradient) {
  const auto model = small_model();
  model->forward(at::randn({2, 1, 32, 32})).square().sum().backward();
  for (const auto& parameter : model->named_parameters()) {
    ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }
}

TEST(RwkvUnet, RunsInBfloat16Autocast) {
  const auto model = small_model();
  const at::Tensor image = at::randn({2, 1, 32, 32});
  const auto autocast = [&] {
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const at::Tensor logits = model->forward(image);
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    return logits;
  };
  autocast().to(at::kFloat).sum().backward();
  for (const auto& parameter : model->named_parameters())
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  model->eval();
  EXPECT_LE(deviation(autocast(), model->forward(image)), 0.05);
}

TEST(RwkvUnet, ConfigurationsAreStrict) {
  const auto refusal = [](const std::string& toml, const ModelShape& shape = {1, 2}) {
    return message_of([&] { model_of(toml, shape); });
  };
  EXPECT_THAT(refusal("name = \"rwkv_unet_x\""),
              AllOf(HasSubstr("unknown model rwkv_unet_x"), HasSubstr("rwkv_unet_t")));
  EXPECT_THAT(refusal("name = \"rwkv_unet\""), HasSubstr("depths: is missing"));
  EXPECT_THAT(refusal("name = \"rwkv_unet_t\"\ndim = [1]"), HasSubstr("did you mean \"dims\""));
  EXPECT_THAT(refusal("name = \"rwkv_unet_t\"\ndims = [0, 8, 8, 8]"), HasSubstr("from 1 to"));
  EXPECT_THAT(refusal("name = \"rwkv_unet_t\"\nkernels = [5, 4, 5, 5]"), HasSubstr("must be odd"));
  EXPECT_THAT(refusal("name = \"rwkv_unet_t\"\nnorms = [\"batch\"]"), HasSubstr("four names"));
  EXPECT_THAT(refusal("name = \"rwkv_unet_t\"\nattention_stages = [5]"), HasSubstr("1 to 4"));
  EXPECT_THAT(refusal("name = \"rwkv_unet_t\"", {0, 2}), HasSubstr("in_channels: must be given"));
  EXPECT_EQ(model_of("name = \"rwkv_unet_t\"\nin_channels = 4\nclasses = 7")->class_count(), 7);
}

TEST(RwkvUnet, TheResolvedConfigurationBuildsTheSameModel) {
  auto table = ConfigTable::from_text("name = \"rwkv_unet_s\"\nkernels = [3, 5, 5, 7]", "m.toml");
  const auto first = create_model(table, {2, 4});
  auto again = ConfigTable::from_text(table.resolved_text(), "resolved");
  const auto second = create_model(again, {});
  EXPECT_EQ(state_of(*first).size(), state_of(*second).size());
  EXPECT_NO_THROW(load_state(*second, state_of(*first), "first"));
}

TEST(RwkvUnet, WeightsThatDoNotFitAreListedTogether) {
  const auto model = small_model();
  auto state = state_of(*model);
  state["stranger.weight"] = at::zeros({2});
  state["encoder.stage1.0.ln1.weight"] = at::zeros({2});
  EXPECT_EQ(model->is_known_unused("encoder.stage1.0.ln1.weight"), true);
  state.erase("final_conv.bias");
  state["ccm.ln1.weight"] = at::zeros({3});
  state["ccm.ln1.bias"] = at::zeros({24}, at::kLong);
  const std::string message = message_of([&] { load_state(*model, state, "file.safetensors"); });
  EXPECT_THAT(message,
              AllOf(HasSubstr("file.safetensors: "),
                    HasSubstr("unknown, in the file alone (1):\n    stranger.weight [2]"),
                    HasSubstr("missing, in the model alone (1):\n    final_conv.bias [3]"),
                    HasSubstr("ccm.ln1.weight: found [3], expected [24]"),
                    HasSubstr("ccm.ln1.bias: found Long, expected Float")));
}

TEST(RwkvUnet, AcceptsAndReportsUnusedPublishedNames) {
  const auto model = small_model();
  auto state = state_of(*model);
  state["encoder.head.weight"] = at::zeros({1000, 16});
  const auto report = load_state(*model, state, "file");
  EXPECT_EQ(report.accepted_unused, std::vector<std::string>{"encoder.head.weight"});
}

TEST(ModelCost, CountsConvolutionsAndProducts) {
  const auto model = small_model(1, "attention_stages = []\n");
  const auto cost = measure_cost(*model, {1, 1, 32, 32}, true);
  const auto four = measure_cost(*model, {2, 1, 64, 32}, false);
  // The squeeze and excitation of the stem alone does not grow with the area: 2 x 3 x 3 per image.
  EXPECT_EQ(four.multiply_adds - 2 * 18, 4 * (cost.multiply_adds - 18));
  EXPECT_GT(cost.training_peak_bytes, cost.inference_peak_bytes);
  EXPECT_FALSE(model->parameters().front().grad().defined());
  EXPECT_TRUE(model->is_training());
}

}  // namespace
}  // namespace vireo
