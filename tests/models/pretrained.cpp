#include "models/weights/pretrained.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/vision_rwkv.h"
#include "models/weights/state_dict.h"
#include "tests/support/test_data.h"
#include "vision/blocks/observe.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using State = std::map<std::string, at::Tensor>;

std::shared_ptr<Model> model_of(const std::string& toml, const ModelShape& shape = {3, 4}) {
  auto table = ConfigTable::from_text(toml, "model.toml");
  return create_model(table, shape);
}

std::shared_ptr<VisionRwkv> vision_rwkv(int64_t image_size) {
  return std::dynamic_pointer_cast<VisionRwkv>(
      model_of("name = \"vision_rwkv\"\nchannels = 8\ndepth = 2\npatch_size = 4\nimage_size = " +
               std::to_string(image_size)));
}

std::shared_ptr<Model> rwkv_unet(const std::string& kind,
                                 const ModelShape& shape,
                                 const std::string& dims = "[8, 8, 12, 16]") {
  return model_of("name = \"rwkv_unet" + kind + "\"\ndepths = [1, 1, 2, 2]\ndims = " + dims +
                      "\nexpansions = [1, 1.5, 2, 2]\n",
                  shape);
}

State copy_of(const Model& model) {
  State state = state_of(model);
  for (auto& [name, tensor] : state) tensor = tensor.clone();
  return state;
}

/// A network whose running statistics and weights are not those of a start.
std::shared_ptr<Model> trained(const std::shared_ptr<Model>& model) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : model->parameters()) parameter.add_(at::randn_like(parameter) * 0.2);
  for (auto& buffer : model->buffers())
    if (buffer.is_floating_point()) buffer.add_(at::rand_like(buffer));
  return model;
}

State renamed(const State& state, const std::string& prefix) {
  State result;
  for (const auto& [name, tensor] : state) result[prefix + name] = tensor;
  return result;
}

/// What the first block of a network makes of an image.
at::Tensor stem_output(Model& model, const std::string& name, const at::Tensor& image) {
  class Watch : public ModuleObserver {
   public:
    void on_output(const torch::nn::Module& module, size_t, const at::Tensor& output) override {
      if (&module == wanted) seen = output.detach().clone();
    }
    const torch::nn::Module* wanted = nullptr;
    at::Tensor seen;
  } watch;
  for (const auto& item : model.named_modules("", /*include_self=*/false))
    if (item.key() == name) watch.wanted = item.value().get();
  model.eval();
  const ObserverScope scope(watch);
  model.forward(image);
  return watch.seen;
}

double deviation(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).abs().max() / expected.abs().max()).item<double>();
}

TEST(Pretrained, AnEncoderThatClassifiedStartsANetworkThatSegments) {
  const auto encoder = trained(rwkv_unet("_encoder", {3, 7}));
  for (const std::string prefix : {"", "encoder.", "module.", "backbone.", "_orig_mod.module."}) {
    const auto network = rwkv_unet("", {3, 2});
    const State start = copy_of(*network), source = state_of(*encoder);
    const auto report = load_pretrained(*network, renamed(source, prefix), "file");
    for (const auto& [name, tensor] : state_of(*network)) {
      const bool inside = name.starts_with("encoder.");
      const at::Tensor& expected = inside ? source.at(name.substr(8)) : start.at(name);
      EXPECT_TRUE(tensor.equal(expected)) << prefix << " " << name;
    }
    EXPECT_EQ(report.loaded.size() + report.at_start.size(), start.size());
    EXPECT_EQ(report.loaded.size() + 4, source.size());
    EXPECT_EQ(report.left_out,
              (std::vector<std::string>{"encoder.head.bias",
                                        "encoder.head.weight",
                                        "encoder.norm.norm.bias",
                                        "encoder.norm.norm.weight"}));
    EXPECT_THAT(
        report.text(),
        AllOf(HasSubstr(std::to_string(source.size() - 4) + " tensors loaded; "),
              HasSubstr("left at their start (ccm.*, decoder1.*, decoder2.*, decoder3.*, "
                        "decoder4.*, final_conv.*)"),
              HasSubstr("4 of the file's head left out (encoder.head.bias, encoder.head.weight, "
                        "encoder.norm.norm.bias, encoder.norm.norm.weight)"),
              Not(HasSubstr("adapted")),
              Not(HasSubstr("\n"))));
  }
}

TEST(Pretrained, PublishedEntriesThatNoNetworkUsesAreCounted) {
  VIREO_REQUIRE_GOLDEN(path, "rwkv_unet_t.safetensors");
  const auto network = model_of("name = \"rwkv_unet_t\"", {3, 2});
  State state;
  for (const auto& [name, tensor] : SafetensorsFile::open(path).tensors())
    if (name.starts_with("param/encoder.")) state[name.substr(14)] = tensor;  // bare, as net_T.pth
  const size_t used = state.size();
  state["stage0.0.att.key.weight"] = at::zeros({3, 3});
  state["head.weight"] = at::zeros({1000, 160});
  const auto report = load_pretrained(*network, state, "file");
  EXPECT_EQ(report.loaded.size(), used);
  EXPECT_EQ(report.unused, std::vector<std::string>{"encoder.stage0.0.att.key.weight"});
  EXPECT_EQ(report.left_out, std::vector<std::string>{"encoder.head.weight"});
  EXPECT_THAT(report.text(), HasSubstr("; 1 of the file are of no use to this network"));
}

TEST(Pretrained, MoreInputChannelsAnswerToEqualOnesAsBefore) {
  const auto encoder = trained(rwkv_unet("_encoder", {3, 7}));
  const at::Tensor grey = at::randn({2, 1, 16, 32});
  const at::Tensor expected = stem_output(*encoder, "stage0.0", grey.repeat({1, 3, 1, 1}));
  const auto network = rwkv_unet("", {5, 2});
  const auto report = load_pretrained(*network, state_of(*encoder), "file");
  EXPECT_LE(
      deviation(stem_output(*network, "encoder.stage0.0", grey.repeat({1, 5, 1, 1})), expected),
      1e-5);
  EXPECT_THAT(report.text(), HasSubstr("adapted to other input channels (encoder.stage0.0.*)"));
  // What is new gets a gradient, so that it can learn.
  network->train();
  network->forward(at::randn({2, 5, 32, 32})).square().sum().backward();
  const auto parameters = network->named_parameters();
  const at::Tensor gradient = parameters["encoder.stage0.0.proj.conv.weight"].grad();
  EXPECT_GT(gradient.narrow(1, 3, 2).abs().max().item<double>(), 0);
}

TEST(Pretrained, FewerInputChannelsTakeTheMeanOfTheFirstWeights) {
  const auto encoder = trained(rwkv_unet("_encoder", {3, 7}));
  const auto network = rwkv_unet("", {2, 2});
  load_pretrained(*network, state_of(*encoder), "file");
  const State from = state_of(*encoder), to = state_of(*network);
  const std::string stem = "stage0.0.";
  const at::Tensor first = from.at(stem + "conv.conv.weight").narrow(0, 0, 2);
  EXPECT_LE(deviation(to.at("encoder." + stem + "conv.conv.weight"),
                      first.mean(1, true).expand({2, 2, 1, 1}) * 3 / 2),
            1e-6);
  EXPECT_TRUE(to.at("encoder." + stem + "proj.conv.weight")
                  .equal(from.at(stem + "proj.conv.weight").narrow(1, 0, 2)));
  // A grey image is repeated for the stem of three that the file holds.
  const auto report = load_pretrained(*rwkv_unet("", {1, 2}), state_of(*encoder), "file");
  EXPECT_TRUE(report.adapted.empty());
}

TEST(Pretrained, PatchesOfOtherChannelsTakeTheMeanToo) {
  const std::string toml =
      "name = \"vision_rwkv\"\nchannels = 8\ndepth = 2\npatch_size = 4\nimage_size = 16";
  const auto colour = model_of(toml, {3, 4}), four = model_of(toml, {4, 4});
  const auto report = load_pretrained(*four, state_of(*colour), "file");
  EXPECT_EQ(report.adapted, std::vector<std::string>{"backbone.patch_embed.projection.weight"});
  const at::Tensor grey = at::randn({2, 1, 16, 16});
  EXPECT_LE(deviation(four->forward(grey.repeat({1, 4, 1, 1})),
                      colour->forward(grey.repeat({1, 3, 1, 1}))),
            1e-5);
}

TEST(Pretrained, AWrongFileIsRefusedWithWhatItHoldsAndChangesNothing) {
  const auto network = rwkv_unet("", {3, 2});
  const State start = copy_of(*network);
  const auto refusal = [&](const State& state) -> std::string {
    try {
      load_pretrained(*network, state, "file.safetensors");
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  };
  EXPECT_THAT(refusal(state_of(*vision_rwkv(16))),
              AllOf(HasSubstr("file.safetensors: none of its"),
                    HasSubstr("found backbone.layers.0.att.key.weight"),
                    HasSubstr("expected ccm.")));
  EXPECT_THAT(refusal({}), HasSubstr("none of its 0 tensors belongs to this model: found nothing"));
  const auto wider = rwkv_unet("_encoder", {3, 7}, "[8, 8, 12, 20]");
  EXPECT_THAT(refusal(state_of(*wider)), HasSubstr("encoder.stage4.0.proj.conv.weight: found [20"));
  State incomplete = state_of(*rwkv_unet("_encoder", {3, 7}));
  incomplete.erase("stage2.0.proj.conv.weight");
  EXPECT_THAT(refusal(incomplete),
              HasSubstr("missing, in the model alone (1):\n    encoder.stage2.0.proj.conv.weight"));
  for (const auto& [name, tensor] : state_of(*network))
    EXPECT_TRUE(tensor.equal(start.at(name))) << name;
}

TEST(Pretrained, ResizesPositionsAsTheNetworkDoes) {
  const auto old = vision_rwkv(16), fresh = vision_rwkv(24);
  auto state = state_of(*old);
  for (auto& [name, tensor] : state) tensor = tensor.to(at::kDouble);
  const PretrainedReport report = load_pretrained(*fresh, state, "old");
  EXPECT_EQ(report.resized, std::vector<std::string>{"backbone.pos_embed"});
  EXPECT_TRUE(at::equal(fresh->backbone()->pos_embed, old->backbone()->positions(6, 6)));
}

}  // namespace
}  // namespace vireo
