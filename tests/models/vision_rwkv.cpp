#include "models/vision_rwkv.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/cost.h"
#include "models/weights/state_dict.h"
#include "tests/support/deviation.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/blocks/recompute.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using test::deviation;
using test::message_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::shared_ptr<VisionRwkv> model_of(const std::string& toml, const ModelShape& shape = {3, 5}) {
  auto table = ConfigTable::from_text(toml, "model.toml");
  return std::dynamic_pointer_cast<VisionRwkv>(create_model(table, shape));
}

std::shared_ptr<VisionRwkv> small_model(const std::string& more = "",
                                        const ModelShape& shape = {3, 5},
                                        const std::string& name = "vision_rwkv") {
  return model_of(
      "name = \"" + name + "\"\nchannels = 16\ndepth = 3\nimage_size = 16\npatch_size = 4\n" + more,
      shape);
}

std::shared_ptr<VisionRwkv> small_model6(const std::string& more = "") {
  return small_model("heads = 2\n" + more, {3, 5}, "vision_rwkv6");
}

int64_t numbers_of(const VisionRwkv& model) {
  int64_t numbers = 0;
  for (const auto& parameter : model.parameters()) numbers += parameter.numel();
  return numbers;
}

TEST(VisionRwkv, HoldsAsManyParametersAsItsPublishedLayers) {
  const ModelShape imagenet{3, 1000};
  EXPECT_EQ(numbers_of(*model_of("name = \"vision_rwkv_t\"", imagenet)), 6'155'176);
  EXPECT_NEAR(numbers_of(*model_of("name = \"vision_rwkv_s\"", imagenet)) / 1e6, 23.81, 0.005);
  EXPECT_NEAR(numbers_of(*model_of("name = \"vision_rwkv_b\"", imagenet)) / 1e6, 93.63, 0.005);
  // Published as 334.9 M; the layers that the paper describes add up to this.
  EXPECT_NEAR(numbers_of(*model_of("name = \"vision_rwkv_l\"", imagenet)) / 1e6, 330.1, 0.05);
  EXPECT_NEAR(numbers_of(*model_of("name = \"vision_rwkv6_t\"", imagenet)) / 1e6, 7.64, 0.005);
  EXPECT_NEAR(numbers_of(*model_of("name = \"vision_rwkv6_s\"", imagenet)) / 1e6, 27.67, 0.005);
  EXPECT_NEAR(numbers_of(*model_of("name = \"vision_rwkv6_b\"", imagenet)) / 1e6, 104.88, 0.005);
}

TEST(VisionRwkv, HasThePublishedNames) {
  for (const char* name : {"vrwkv_mini.safetensors",
                           "vrwkv_mini_postnorm.safetensors",
                           "vrwkv6_mini.safetensors",
                           "vrwkv6_mini_postnorm.safetensors"}) {
    VIREO_REQUIRE_GOLDEN(path, name);
    const auto file = SafetensorsFile::open(path);
    const auto golden = nlohmann::json::parse(file.metadata().at("golden"));
    const auto& config = golden["config"];
    const bool six = std::string(name).starts_with("vrwkv6");
    const auto model =
        model_of(std::string("name = \"vision_rwkv") + (six ? "6" : "") +
                 "\"\nchannels = 64\ndepth = " + config["depth"].dump() + "\n" +
                 (config.value("post_norm", false) ? "key_norm = true\nlayer_scale = 1e-5\n" : ""));
    std::set<std::string> published, ours;
    for (const auto& entry : golden["state_dict_names"]) published.insert(entry);
    for (const auto& [entry, tensor] : state_of(*model)) ours.insert(entry);
    EXPECT_EQ(ours, published) << name;
  }
}

TEST(VisionRwkv, ClassifiesImagesOfAnySize) {
  for (const auto& model : {small_model(), small_model6()}) {
    EXPECT_TRUE(model->classifies());
    model->eval();
    for (const auto& [height, width] :
         std::vector<std::pair<int64_t, int64_t>>{{16, 16}, {1, 1}, {5, 40}, {64, 12}}) {
      const at::Tensor y = model->forward(at::randn({2, 3, height, width}));
      EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 5}));
      EXPECT_TRUE(y.isfinite().all().item<bool>());
    }
  }
}

TEST(VisionRwkv, PadsWithZerosToWholePatches) {
  const auto model = small_model();
  const at::Tensor image = at::randn({1, 3, 14, 9});
  EXPECT_TRUE(
      at::equal(model->forward(image), model->forward(at::constant_pad_nd(image, {0, 3, 0, 2}))));
}

TEST(VisionRwkv, GivesTheMapsBehindChosenLayers) {
  const auto model = small_model();
  const at::Tensor image = at::randn({2, 3, 12, 20});
  const auto maps = model->backbone()->features(image, {0, 2});
  ASSERT_EQ(maps.size(), 2);
  for (const auto& map : maps) EXPECT_EQ(map.sizes(), (std::vector<int64_t>{2, 16, 3, 5}));
  const at::Tensor last = model->backbone()->forward(image);  // [B, T, C]
  EXPECT_TRUE(at::equal(maps[1].flatten(2).transpose(1, 2), last));
  EXPECT_THAT(message_of([&] {
                model->backbone()->features(image, {1, 3});
              }),
              AllOf(HasSubstr("from 0 to 2"), HasSubstr("[1, 3]")));
  EXPECT_THAT(message_of([&] {
                model->backbone()->features(image, {1, 0});
              }),
              HasSubstr("increase"));
}

TEST(VisionRwkv, StartsAsPublished) {
  const auto block = [](const std::string& start, size_t layer) {
    return small_model("start = \"" + start + "\"\n")->backbone()->layers[layer];
  };
  const auto number = [](const at::Tensor& x, int64_t h) { return x.flatten()[h].item<double>(); };
  {
    const auto second = block("fancy", 1);  // of three: r01 = 1/2, r10 = 2/3
    auto& att = *second->att;
    for (const int64_t h : {0, 1, 7, 15}) {
      const double ratio = static_cast<double>(h) / 16;
      EXPECT_NEAR(number(att.spatial_decay, h), -5 + 8 * std::pow(h / 15.0, 1.35), 1e-5);
      EXPECT_NEAR(number(att.spatial_first, h),
                  std::log(0.3) + 0.5 * static_cast<double>((h + 1) % 3 - 1),
                  1e-6);
      EXPECT_NEAR(number(att.spatial_mix_k, h), std::pow(ratio, 2.0 / 3), 1e-6);
      EXPECT_NEAR(number(att.spatial_mix_v, h), std::pow(ratio, 2.0 / 3) + 0.15, 1e-6);
      EXPECT_NEAR(number(att.spatial_mix_r, h), std::pow(ratio, 1.0 / 3), 1e-6);
      EXPECT_NEAR(number(second->ffn->spatial_mix_r, h), std::pow(ratio, 2.0 / 3), 1e-6);
    }
  }
  EXPECT_EQ(number(block("local", 0)->att->spatial_decay, 3), 1);
  EXPECT_EQ(number(block("local", 0)->ffn->spatial_mix_k, 3), 1);
  EXPECT_EQ(number(block("global", 2)->att->spatial_first, 3), 0);
  EXPECT_EQ(number(block("global", 2)->att->spatial_mix_v, 3), 0.5);
  const auto one = model_of(
      "name = \"vision_rwkv\"\nchannels = 1\ndepth = 1\nimage_size = 4\npatch_size = 4\n"
      "shift_gamma = 0.25\n");
  for (const auto& parameter : one->parameters())
    EXPECT_TRUE(parameter.isfinite().all().item<bool>());
}

TEST(VisionRwkv6, StartsAsPublished) {
  const auto number = [](const at::Tensor& x, int64_t h) { return x.flatten()[h].item<double>(); };
  const auto second = small_model6()->backbone()->layers[1];  // of three: r01 = 1/2, r10 = 2/3
  auto& att = *second->att6;
  for (const int64_t h : {0, 1, 7, 15}) {
    const double mix = std::pow(static_cast<double>(h) / 16, 2.0 / 3);
    EXPECT_NEAR(number(att.time_maa_x, h), 1 - mix, 1e-6);
    EXPECT_NEAR(number(att.time_maa_w, h), 1 - mix, 1e-6);
    EXPECT_NEAR(number(att.time_maa_k, h), 1 - mix, 1e-6);
    EXPECT_NEAR(number(att.time_maa_v, h), 1 - mix - 0.15, 1e-6);
    EXPECT_NEAR(number(att.time_maa_r, h), 1 - std::sqrt(mix), 1e-6);
    EXPECT_NEAR(number(att.time_maa_g, h), 1 - std::sqrt(mix), 1e-6);
    EXPECT_NEAR(number(att.time_decay, h), -6 + 5 * std::pow(h / 15.0, 1.35), 1e-5);
    EXPECT_NEAR(number(att.time_faaaa, h),
                0.5 * (1 - h / 15.0) + 0.1 * static_cast<double>((h + 1) % 3 - 1),
                1e-6);
    EXPECT_NEAR(number(second->ffn->spatial_mix_k, h), mix, 1e-6);
  }
  EXPECT_EQ(att.time_faaaa.sizes(), (std::vector<int64_t>{2, 8}));
  for (const auto* factor :
       {&att.time_maa_w1, &att.time_maa_w2, &att.time_decay_w1, &att.time_decay_w2}) {
    EXPECT_LE(factor->abs().max().item<double>(), 1e-4);
    EXPECT_GT(factor->abs().max().item<double>(), 5e-5);
  }
}

TEST(VisionRwkv, RepeatsAGreyImageForAStemOfThree) {
  const auto grey = small_model("stem_channels = 3\n", {1, 5}), colour = small_model();
  load_state(*colour, state_of(*grey), "grey");
  const at::Tensor image = at::randn({2, 1, 16, 16});
  EXPECT_TRUE(at::equal(grey->forward(image), colour->forward(image.repeat({1, 3, 1, 1}))));
  EXPECT_EQ(small_model("", {1, 5})->backbone()->projection->weight.size(1), 1);
}

TEST(VisionRwkv, CheckpointingChangesMemoryAndNothingElse) {
  for (const char* name : {"vision_rwkv", "vision_rwkv6"}) {
    const auto build = [&](const std::string& more) {
      return model_of(std::string("name = \"") + name +
                      "\"\nchannels = 16\ndepth = 6\nimage_size = 16\npatch_size = 2\n"
                      "drop_path = 0.3\nlayer_scale = 0.5\n" +
                      more);
    };
    const auto plain = build(""), saving = build("checkpointing = true\n");
    load_state(*saving, state_of(*plain), "plain");
    const at::Tensor image = at::randn({4, 3, 16, 16});
    for (auto* model : {plain.get(), saving.get()}) {
      model->train();
      at::manual_seed(3);
      model->forward(image).square().sum().backward();
    }
    const auto expected = plain->named_parameters(), found = saving->named_parameters();
    for (const auto& item : expected)
      EXPECT_LE(deviation(found[item.key()].grad(), item.value().grad()), 1e-5) << item.key();
    const auto peak = [&](VisionRwkv& model) {
      return measure_cost(model, {4, 3, 16, 16}, true).training_peak_bytes;
    };
    EXPECT_LT(peak(*saving), peak(*plain) / 2);
  }
}

TEST(Recomputed, GoesOnWithTheRandomNumbersOfTheForwardPass) {
  const auto noisy = [](const at::Tensor& x) { return x * at::rand_like(x); };
  const at::Tensor x = at::randn({50}).requires_grad_();
  at::manual_seed(5);
  const at::Tensor y = recomputed(noisy, x);
  const at::Tensor after_forward = at::rand({3});
  y.sum().backward();
  EXPECT_LE(deviation(x.grad() * x, y), 1e-6);
  at::manual_seed(5);
  noisy(x);
  EXPECT_TRUE(at::equal(at::rand({3}), after_forward));
}

TEST(VisionRwkv, GivesEveryParameterAGradient) {
  for (const char* more : {"", "post_norm = true\nkey_norm = true\nlayer_scale = 0.1\n"})
    for (const auto& model : {small_model(more), small_model6(more)}) {
      model->forward(at::randn({2, 3, 16, 24})).square().sum().backward();
      for (const auto& parameter : model->named_parameters()) {
        ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
        EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
      }
    }
}

TEST(VisionRwkv, RunsInBfloat16Autocast) {
  for (const auto& model :
       {small_model("checkpointing = true\n"), small_model6("checkpointing = true\n")}) {
    const at::Tensor image = at::randn({2, 3, 16, 16});
    at::autocast::set_autocast_enabled(at::kCPU, true);
    const at::Tensor logits = model->forward(image);
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
    logits.to(at::kFloat).sum().backward();
    for (const auto& parameter : model->named_parameters())
      EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
    EXPECT_LE(deviation(logits, model->forward(image)), 0.05);
  }
}

TEST(VisionRwkv, ConfigurationsAreStrict) {
  const auto refusal = [](const std::string& toml) { return message_of([&] { model_of(toml); }); };
  const std::string small = "name = \"vision_rwkv\"\nchannels = 8\ndepth = 1\n";
  EXPECT_THAT(refusal("name = \"vision_rwkv\"\ndepth = 2"), HasSubstr("channels: is missing"));
  EXPECT_THAT(refusal(small + "image_size = 30"), HasSubstr("no multiple of patch_size 16"));
  EXPECT_THAT(refusal(small + "start = \"none\""), HasSubstr("global"));
  EXPECT_THAT(refusal(small + "stem_channels = 4"), HasSubstr("only one channel can be repeated"));
  EXPECT_THAT(refusal(small + "deph = 4"), HasSubstr("deph"));
  EXPECT_THAT(message_of([] { small_model6("start = \"fancy\"\n"); }), HasSubstr("start"));
  EXPECT_THAT(message_of([] {
                small_model("heads = 3\n", {3, 5}, "vision_rwkv6");
              }),
              HasSubstr("it must divide the 16 channels"));
  EXPECT_THAT(message_of([] {
                small_model()->forward(at::randn({1, 2, 16, 16}));
              }),
              AllOf(HasSubstr("[1, 2, 16, 16]"), HasSubstr("[batch, 3, height, width]")));
}

TEST(VisionRwkv, TheResolvedConfigurationBuildsTheSameModel) {
  auto table = ConfigTable::from_text(
      "name = \"vision_rwkv_t\"\ndepth = 2\nstart = \"global\"\nlayer_scale = 0.1", "m.toml");
  const auto first = create_model(table, {1, 4});
  auto again = ConfigTable::from_text(table.resolved_text(), "resolved");
  const auto second = create_model(again, {});
  EXPECT_NO_THROW(load_state(*second, state_of(*first), "first"));
}

}  // namespace
}  // namespace vireo
