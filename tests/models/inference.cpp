#include "models/inference.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/rwkv_unet.h"
#include "models/vision_rwkv.h"
#include "models/weights/state_dict.h"
#include "tests/support/deviation.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_model.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using test::deviation;
using test::message_of;
using ::testing::HasSubstr;

constexpr const char* kSmallUnet =
    "name = \"rwkv_unet\"\ndepths = [1, 1, 2, 2]\ndims = [8, 8, 12, 20]\n"
    "expansions = [1, 1.5, 2, 2]\n";
constexpr const char* kSmallEncoder =
    "name = \"rwkv_unet_encoder\"\ndepths = [1, 1, 2, 2]\ndims = [8, 8, 12, 20]\n"
    "expansions = [1, 1.5, 2, 2]\n";
constexpr const char* kSmallClassifier =
    "name = \"vision_rwkv\"\nchannels = 20\ndepth = 3\nimage_size = 16\npatch_size = 4\n";
constexpr const char* kSmallClassifier6 =
    "name = \"vision_rwkv6\"\nchannels = 32\nheads = 2\ndepth = 3\nimage_size = 16\n"
    "patch_size = 4\n";

/// Weights and running statistics far from those a network starts with.
void disturb(Model& model) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : model.parameters()) parameter.add_(at::randn_like(parameter) * 0.2);
  for (auto& buffer : model.buffers())
    if (buffer.is_floating_point()) buffer.mul_(at::rand_like(buffer) + 0.5).add_(0.3);
}

std::shared_ptr<Model> model_of(const std::string& toml, int64_t channels = 3) {
  auto table = ConfigTable::from_text(toml, "model.toml");
  const auto model = create_model(table, {channels, 5});
  disturb(*model);
  model->eval();
  return model;
}

at::Tensor answer(Model& model, const at::Tensor& image) {
  const at::NoGradGuard no_grad;
  return model.forward(image);
}

/// How far the inference form is from the network in double precision, over the answer's spread.
double loss_of(const std::shared_ptr<Model>& model, const at::Tensor& image, Arithmetic precision) {
  const at::Tensor found = answer(*prepare_for_inference(model, precision), image);
  model->to(at::kDouble);
  const at::Tensor expected = answer(*model, image.to(at::kDouble));
  model->to(at::kFloat);
  EXPECT_EQ(found.sizes(), expected.sizes());
  EXPECT_EQ(found.scalar_type(), at::kFloat);
  return deviation(found, expected);
}

const std::vector<std::string>& networks() {
  static const std::vector<std::string> tables = {
      kSmallUnet,
      std::string(kSmallUnet) + "kernels = [3, 5, 7, 3]\ndecoder_kernel = 11\n" +
          "norms = [\"layer\", \"none\", \"batch\", \"none\"]\nattention_stages = [1, 2, 4]\n",
      std::string(kSmallUnet) + "wkv_form = \"published\"\n",
      kSmallEncoder,
      std::string(kSmallEncoder) + "norms = [\"none\", \"layer\", \"none\", \"batch\"]\n",
      kSmallClassifier,
      std::string(kSmallClassifier) + "key_norm = true\nlayer_scale = 0.5\n",
      std::string(kSmallClassifier) + "post_norm = true\nlayer_scale = 0.5\n",
      kSmallClassifier6,
      std::string(kSmallClassifier6) + "key_norm = true\npost_norm = true\nlayer_scale = 0.5\n",
  };
  return tables;
}

TEST(Inference, FoldedNetworksAnswerAsTheTrainedOnes) {
  for (const auto& table : networks())
    for (const auto& [height, width] :
         std::vector<std::pair<int64_t, int64_t>>{{32, 48}, {37, 21}, {16, 16}})
      EXPECT_LE(loss_of(model_of(table), at::randn({2, 3, height, width}), Arithmetic::kFloat32),
                1e-5)
          << table << height << " x " << width;
}

TEST(Inference, RoundingToSixteenOrEightBitsCostsLittle) {
  for (const auto& table : networks()) {
    const auto model = model_of(table);
    const at::Tensor image = at::randn({2, 3, 32, 48});
    EXPECT_LE(loss_of(model, image, Arithmetic::kBfloat16), 0.05) << table;
    EXPECT_LE(loss_of(model, image, Arithmetic::kInt8), 0.08) << table;
  }
}

TEST(Inference, TakesBatchesOfLargeImages) {
  EXPECT_LE(loss_of(model_of(kSmallUnet), at::randn({5, 3, 160, 208}), Arithmetic::kFloat32), 1e-5);
}

TEST(Inference, RepeatsAGreyImage) {
  EXPECT_LE(loss_of(model_of(kSmallUnet, 1), at::randn({1, 1, 32, 32}), Arithmetic::kFloat32),
            1e-5);
}

TEST(Inference, LeavesTheTrainedNetworkAndTheImageAlone) {
  for (const auto& table : networks()) {
    const auto model = model_of(table);
    std::map<std::string, at::Tensor> before;
    for (const auto& [name, tensor] : state_of(*model)) before[name] = tensor.clone();
    const at::Tensor image = at::randn({1, 3, 32, 32}), copy = image.clone();
    answer(*prepare_for_inference(model, Arithmetic::kInt8), image);
    EXPECT_TRUE(at::equal(image, copy));
    for (const auto& [name, tensor] : state_of(*model))
      EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
    EXPECT_TRUE(model->parameters().front().requires_grad());
  }
}

TEST(Inference, KnowsWhatTheTrainedNetworkKnows) {
  for (const auto& table : networks()) {
    const auto model = model_of(table);
    const auto form = prepare_for_inference(model);
    EXPECT_NE(form, model);
    EXPECT_EQ(form->input_channels(), model->input_channels());
    EXPECT_EQ(form->class_count(), model->class_count());
    EXPECT_EQ(form->classifies(), model->classifies());
    const at::Tensor wrong = at::randn({1, 2, 16, 16});
    EXPECT_EQ(message_of([&] { form->forward(wrong); }),
              message_of([&] { model->forward(wrong); }));
  }
}

TEST(Inference, DoesNotDependOnTheNumberOfThreadsOrTheBatch) {
  const int threads = at::get_num_threads();
  for (const auto precision : {Arithmetic::kFloat32, Arithmetic::kBfloat16, Arithmetic::kInt8}) {
    const auto form = prepare_for_inference(model_of(kSmallUnet), precision);
    const at::Tensor images = at::randn({3, 3, 48, 32});
    at::set_num_threads(1);
    const at::Tensor alone = answer(*form, images.narrow(0, 1, 1));
    at::set_num_threads(3);
    EXPECT_LE(deviation(answer(*form, images).narrow(0, 1, 1), alone), 1e-6);
    at::set_num_threads(threads);
  }
}

TEST(Inference, RefusesPrecisionsWhereThereIsNoForm) {
  const auto tiny = std::make_shared<test::TinyModel>(1, 2);
  EXPECT_EQ(prepare_for_inference(tiny), tiny);
  EXPECT_THAT(message_of([&] { prepare_for_inference(tiny, Arithmetic::kBfloat16); }),
              HasSubstr("precision bf16 is not known to this network; use fp32"));
  EXPECT_THAT(message_of([] { precision_named("fp16"); }), HasSubstr("fp32, bf16, int8"));
}

std::shared_ptr<Model> golden_network(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  const auto config = nlohmann::json::parse(file.metadata().at("golden")).at("config");
  std::string table = "name = \"rwkv_unet_t\"";
  if (config.contains("depth")) {
    const bool six = config.contains("num_heads");
    table = std::string("name = \"vision_rwkv") + (six ? "6" : "") +
            "\"\nimage_size = 64\nchannels = " + config["embed_dims"].dump() +
            "\ndepth = " + config["depth"].dump() + "\n";
    if (six) table += "heads = " + config["num_heads"].dump() + "\n";
    if (config.value("key_norm", false)) table += "key_norm = true\n";
    if (config.value("post_norm", false)) table += "post_norm = true\nlayer_scale = 1e-5\n";
  }
  auto toml = ConfigTable::from_text(table, path.string());
  const auto model = create_model(toml, {3, config["num_classes"].get<int64_t>()});
  std::map<std::string, at::Tensor> state;
  for (const auto& [name, tensor] : file.tensors())
    if (name.starts_with("param/")) state[name.substr(6)] = tensor;
  load_state(*model, state, path.string());
  model->eval();
  return model;
}

TEST(Inference, ComputesThePublishedOutputs) {
  for (const char* name : {"rwkv_unet_t.safetensors",
                           "vrwkv_mini.safetensors",
                           "vrwkv_mini_postnorm.safetensors",
                           "vrwkv6_mini.safetensors",
                           "vrwkv6_mini_postnorm.safetensors"}) {
    VIREO_REQUIRE_GOLDEN(path, name);
    const auto file = SafetensorsFile::open(path);
    const auto model = golden_network(path);
    const auto lost = [&](Arithmetic precision) {
      return deviation(answer(*prepare_for_inference(model, precision), file.tensor("input")),
                       file.tensor("output"));
    };
    EXPECT_LE(lost(Arithmetic::kFloat32), 2e-5) << name;
    EXPECT_LE(lost(Arithmetic::kBfloat16), 0.05) << name;
    EXPECT_LE(lost(Arithmetic::kInt8), 0.08) << name;
  }
}

}  // namespace
}  // namespace vireo
