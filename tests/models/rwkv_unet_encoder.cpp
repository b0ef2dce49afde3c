#include "models/rwkv_unet_encoder.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/rwkv_unet.h"
#include "models/weights/state_dict.h"
#include "tests/support/test_data.h"
#include "vision/blocks/observe.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using State = std::map<std::string, at::Tensor>;

constexpr const char* kSmall =
    "depths = [1, 1, 2, 2]\ndims = [8, 8, 12, 16]\nexpansions = [1, 1.5, 2, 2]\n";

std::shared_ptr<Model> model_of(const std::string& toml, const ModelShape& shape = {3, 5}) {
  auto table = ConfigTable::from_text(toml, "model.toml");
  return create_model(table, shape);
}

std::shared_ptr<Model> small_encoder(const std::string& more = "",
                                     const ModelShape& shape = {3, 5}) {
  return model_of(std::string("name = \"rwkv_unet_encoder\"\n") + kSmall + more, shape);
}

template <typename Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "(no error)";
}

double deviation(const at::Tensor& found, const at::Tensor& expected) {
  return ((found.to(at::kDouble) - expected.to(at::kDouble)).abs().max() /
          expected.to(at::kDouble).abs().max())
      .item<double>();
}

/// The output of one module while a network runs.
class Watch : public ModuleObserver {
 public:
  Watch(const Model& model, const std::string& name) {
    for (const auto& item : model.named_modules("", /*include_self=*/false))
      if (item.key() == name) module_ = item.value().get();
  }
  void on_output(const torch::nn::Module& module, size_t, const at::Tensor& output) override {
    if (&module == module_) seen = output.detach().clone();
  }
  at::Tensor seen;

 private:
  const torch::nn::Module* module_ = nullptr;
};

/// Running statistics and affine weights that are not one and zero.
void disturb(Model& model) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : model.parameters()) parameter.add_(at::randn_like(parameter) * 0.05);
  for (auto& buffer : model.buffers())
    if (buffer.is_floating_point()) buffer.add_(at::rand_like(buffer));
}

TEST(RwkvUnetEncoder, HoldsTheNetworksEncoderAndTheClassifier) {
  const auto numbers = [](const std::string& name) {
    int64_t count = 0;
    for (const auto& parameter : model_of("name = \"" + name + "\"", {3, 1000})->parameters())
      count += parameter.numel();
    return count;
  };
  EXPECT_EQ(numbers("rwkv_unet_encoder_t"), 2'938'472 + 2 * 160 + 1000 * 161);
  EXPECT_EQ(numbers("rwkv_unet_encoder_s"), 9'416'048 + 2 * 192 + 1000 * 193);
  EXPECT_EQ(numbers("rwkv_unet_encoder_b"), 16'694'040 + 2 * 240 + 1000 * 241);
}

TEST(RwkvUnetEncoder, HasThePublishedNamesAndKnowsTheUnusedOnes) {
  VIREO_REQUIRE_GOLDEN(path, "rwkv_unet_t.safetensors");
  const auto file = SafetensorsFile::open(path);
  const auto golden = nlohmann::json::parse(file.metadata().at("golden"));
  const auto model = model_of("name = \"rwkv_unet_encoder_t\"", {3, 1000});
  const State state = state_of(*model);
  size_t published = 0;
  const std::string prefix = "encoder.";
  for (const auto& entry : golden["state_dict_names"]) {
    if (!entry.get<std::string>().starts_with(prefix)) continue;
    const std::string name = entry.get<std::string>().substr(prefix.size());
    const bool classifier = name.starts_with("head.") || name.starts_with("norm.");
    const bool unused = golden["unused_parameters"].contains(entry) && !classifier;
    EXPECT_EQ(model->is_known_unused(name), unused) << name;
    EXPECT_EQ(state.contains(name), !unused) << name;
    if (classifier) {
      EXPECT_EQ(state.at(name).sizes().vec(),
                golden["unused_parameters"][entry].get<std::vector<int64_t>>());
    }
    published += unused ? 0 : 1;
  }
  EXPECT_EQ(state.size(), published);
}

TEST(RwkvUnetEncoder, ClassifiesTheMeanOfTheNormedFeaturesOfTheSegmentationNetwork) {
  const auto encoder = small_encoder();
  const auto network = model_of(std::string("name = \"rwkv_unet\"\n") + kSmall, {3, 2});
  disturb(*network);
  disturb(*encoder);
  State state = state_of(*encoder);
  const State whole = state_of(*network);
  for (auto& [name, tensor] : state)
    if (name.starts_with("stage")) tensor = whole.at("encoder." + name);
  load_state(*encoder, state, "network");
  encoder->eval();
  network->eval();

  const at::Tensor image = at::randn({2, 3, 48, 32});  // nothing to pad in either
  Watch stage4(*network, "encoder.stage4.1");
  {
    const ObserverScope scope(stage4);
    network->forward(image);
  }
  ASSERT_EQ(stage4.seen.sizes(), (std::vector<int64_t>{2, 16, 3, 2}));
  const at::Tensor pixels = stage4.seen.permute({0, 2, 3, 1});
  const at::Tensor normed =
      at::layer_norm(pixels, {16}, state.at("norm.norm.weight"), state.at("norm.norm.bias"), 1e-6);
  const at::Tensor expected = at::linear(
      normed.mean(at::IntArrayRef{1, 2}), state.at("head.weight"), state.at("head.bias"));
  EXPECT_LE(deviation(encoder->forward(image), expected), 1e-5);
  const at::NoGradGuard folds_the_norms;
  EXPECT_LE(deviation(encoder->forward(image), expected), 1e-5);
}

TEST(RwkvUnetEncoder, NormsLikeItsLastStage) {
  const auto batch = small_encoder("norms = [\"batch\", \"batch\", \"layer\", \"batch\"]\n");
  disturb(*batch);
  batch->eval();
  const State state = state_of(*batch);
  Watch stage4(*batch, "stage4.1");
  at::Tensor found;
  const at::Tensor image = at::randn({2, 3, 32, 32});
  {
    const ObserverScope scope(stage4);
    found = batch->forward(image);
  }
  const at::Tensor normed = at::batch_norm(stage4.seen,
                                           state.at("norm.weight"),
                                           state.at("norm.bias"),
                                           state.at("norm.running_mean"),
                                           state.at("norm.running_var"),
                                           false,
                                           0,
                                           1e-6,
                                           false);
  EXPECT_LE(deviation(found,
                      at::linear(normed.mean(at::IntArrayRef{2, 3}),
                                 state.at("head.weight"),
                                 state.at("head.bias"))),
            1e-5);
  EXPECT_FALSE(state_of(*small_encoder("norms = [\"none\", \"none\", \"none\", \"none\"]\n"))
                   .contains("norm.weight"));
}

TEST(RwkvUnetEncoder, ClassifiesImagesOfAnySize) {
  const auto model = small_encoder();
  EXPECT_TRUE(model->classifies());
  model->eval();
  for (const auto& [height, width] :
       std::vector<std::pair<int64_t, int64_t>>{{16, 16}, {1, 1}, {5, 40}, {33, 28}}) {
    const at::Tensor y = model->forward(at::randn({2, 3, height, width}));
    EXPECT_EQ(y.sizes(), (std::vector<int64_t>{2, 5}));
    EXPECT_TRUE(y.isfinite().all().item<bool>());
  }
}

TEST(RwkvUnetEncoder, RepeatsASingleChannelAndRefusesAnother) {
  const auto grey = small_encoder("", {1, 5}), colour = small_encoder();
  load_state(*colour, state_of(*grey), "grey");
  grey->eval();
  colour->eval();
  const at::Tensor image = at::randn({1, 1, 32, 16});
  EXPECT_TRUE(at::equal(grey->forward(image), colour->forward(image.repeat({1, 3, 1, 1}))));
  EXPECT_THAT(message_of([&] { colour->forward(image); }),
              AllOf(HasSubstr("[1, 1, 32, 16]"), HasSubstr("[batch, 3, height, width]")));
}

TEST(RwkvUnetEncoder, GivesEveryParameterAGradient) {
  const auto model = small_encoder();
  model->forward(at::randn({2, 3, 32, 32})).square().sum().backward();
  for (const auto& parameter : model->named_parameters()) {
    ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
    EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
  }
}

TEST(RwkvUnetEncoder, StartsWithSmallLinearWeightsAndNoBias) {
  const State state = state_of(*model_of("name = \"rwkv_unet_encoder_t\"", {3, 1000}));
  EXPECT_NEAR(state.at("head.weight").std().item<double>(), 0.02, 1e-3);
  EXPECT_EQ(state.at("head.bias").abs().max().item<double>(), 0);
}

TEST(RwkvUnetEncoder, ConfigurationsAreThoseOfTheEncoderAlone) {
  EXPECT_THAT(message_of([] { model_of("name = \"rwkv_unet_encoder\""); }),
              HasSubstr("depths: is missing"));
  EXPECT_THAT(message_of([] { model_of("name = \"rwkv_unet_encoder_t\"\ndecoder_kernel = 9"); }),
              HasSubstr("decoder_kernel"));
  auto table =
      ConfigTable::from_text("name = \"rwkv_unet_encoder_s\"\nkernels = [3, 5, 5, 7]", "m");
  const auto first = create_model(table, {2, 4});
  auto again = ConfigTable::from_text(table.resolved_text(), "resolved");
  EXPECT_NO_THROW(load_state(*create_model(again, {}), state_of(*first), "first"));
}

}  // namespace
}  // namespace vireo
