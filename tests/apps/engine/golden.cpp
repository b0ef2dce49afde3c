#include "apps/engine/golden.h"

#include <sstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/registry.h"
#include "models/weights/state_dict.h"
#include "tests/support/test_data.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A golden file in every respect, made by our own network in float64: what it tests is the reading
/// and the comparing.
std::string failures(const GoldenReport& report) {
  std::ostringstream text;
  for (const Comparison& one : report.comparisons)
    if (!one.passed())
      text << one.group << " " << one.name << ": " << one.absolute << ", relative " << one.relative
           << ", tolerance " << one.tolerance << " " << one.problem << "\n";
  return text.str();
}

class GoldenMaker {
 public:
  GoldenMaker(const std::string& published, const std::string& ours, bool training) {
    const bool encoder = ours.starts_with("rwkv_unet_encoder");
    auto table = ConfigTable::from_text(
        "name = \"" + ours + "\"\ndrop_path = 0\n" + (encoder ? "" : "ccm_drop_path = 0\n"),
        "test");
    model_ = create_model(table, {.input_channels = 1, .class_count = 2});
    model_->train(training);
    for (auto& parameter : model_->parameters())
      parameter.set_data((at::randn_like(parameter, at::kDouble) * 64).round() / 256);
    for (auto& buffer : model_->buffers())
      if (buffer.is_floating_point()) buffer.set_data(at::rand_like(buffer, at::kDouble) + 0.5);
    golden_ = {{"config",
                {{"class", published},
                 {"in_channels", 1},
                 {"num_classes", 2},
                 {"img_size", 16},
                 {"input_shape", {2, 1, 16, 16}}}},
               {"mode", training ? "train" : "eval"},
               {"grads", "summary"},
               {"cases", nullptr}};
    golden_.erase("cases");
  }

  std::filesystem::path write() {
    store_parameters();
    const at::Tensor input = at::randn({2, 1, 16, 16}).to(at::kDouble).requires_grad_();
    const at::Tensor output = model_->forward(input);
    const at::Tensor weight = at::randn(output.sizes()).to(at::kDouble);
    (output * weight).sum().backward();
    tensors_["input"] = input.detach().to(at::kFloat);
    tensors_["output"] = output.detach().to(at::kFloat);
    tensors_["output_weight"] = weight.to(at::kFloat);
    tensors_["grad_input"] = input.grad().to(at::kFloat);
    for (const auto& item : model_->named_parameters()) {
      const at::Tensor g = item.value().grad().contiguous().flatten();
      // Rounding alone: what stands before a batch normalisation, a softmax over one token.
      if (g.abs().max().item<double>() < 1e-10)
        golden_["analytically_zero_grads"].push_back(item.key());
      if (g.numel() <= 64) {
        tensors_["grad/" + item.key()] = item.value().grad().to(at::kFloat);
        continue;
      }
      const int64_t step = std::max<int64_t>(1, g.numel() / 512);
      tensors_["grad_sample/" + item.key()] =
          g.slice(0, 0, c10::nullopt, step).slice(0, 0, 512).to(at::kFloat).clone();
      tensors_["grad_stat/" + item.key()] =
          at::stack({g.sum(), g.abs().sum(), g.norm(), g.abs().max()});
    }
    for (const auto& item : model_->named_buffers())
      if (model_->is_training()) tensors_["after/" + item.key()] = item.value();
    const auto path = test::scratch_folder() / "golden.safetensors";
    write_safetensors(path, tensors_, {{"golden", golden_.dump()}});
    return path;
  }

  std::map<std::string, at::Tensor>& changes() { return changes_; }

 private:
  void store_parameters() {
    bool whole = true;
    for (const auto& [name, tensor] : state_of(*model_)) {
      const at::Tensor stored = changes_.contains(name) ? changes_.at(name) : tensor;
      if (!stored.is_floating_point() || stored.abs().max().item<double>() > 0.49 ||
          name.find("running") != std::string::npos) {
        tensors_["param/" + name] = stored.to(whole ? stored.scalar_type() : at::kFloat).clone();
      } else {
        tensors_["param_q8/" + name] = (stored * 256).to(at::kChar);
        tensors_["param_scale/" + name] = at::tensor(1.0F / 256);
      }
    }
  }

  std::shared_ptr<Model> model_;
  json golden_;
  std::map<std::string, at::Tensor> tensors_, changes_;
};

TEST(Golden, ReadsInt8ParametersAndGradientSummariesOfTheSmallNetwork) {
  const auto path = GoldenMaker("RWKV_UNet_S", "rwkv_unet_s", false).write();
  const auto report = verify_golden_file(path, Precision::kFloat64);
  EXPECT_TRUE(report.passed()) << failures(report);
  EXPECT_GT(report.comparisons.size(), 300);
  EXPECT_EQ(report.subject, "rwkv_unet_s, eval, float64");
}

TEST(Golden, KnowsTheEncoderAsAClassifier) {
  const auto path = GoldenMaker("RWKV_UNet_encoder_T", "rwkv_unet_encoder_t", false).write();
  const auto report = verify_golden_file(path, Precision::kFloat64);
  EXPECT_TRUE(report.passed()) << failures(report);
  EXPECT_EQ(report.subject, "rwkv_unet_encoder_t, eval, float64");
}

TEST(Golden, ComparesRunningStatisticsInTraining) {
  const auto path = GoldenMaker("RWKV_UNet_T", "rwkv_unet_t", true).write();
  const auto report = verify_golden_file(path, Precision::kFloat64);
  EXPECT_TRUE(report.passed()) << failures(report);
  size_t statistics = 0;
  for (const auto& comparison : report.comparisons)
    statistics += comparison.group == "running statistics" ? 1 : 0;
  EXPECT_EQ(statistics, 114);
}

TEST(Golden, SeesOneChangedParameter) {
  GoldenMaker maker("RWKV_UNet_T", "rwkv_unet_t", false);
  maker.changes()["decoder4.proj.norm.bias"] = at::zeros({24}, at::kDouble);
  const auto report = verify_golden_file(maker.write(), Precision::kFloat32);
  EXPECT_FALSE(report.passed());
  EXPECT_FALSE(report.comparisons.front().passed());
}

TEST(Golden, MissingParametersAreListed) {
  const auto path = test::scratch_folder() / "golden.safetensors";
  const json golden = {
      {"config", {{"class", "RWKV_UNet_T"}, {"num_classes", 2}, {"input_shape", {1, 1, 16, 16}}}},
      {"mode", "eval"}};
  write_safetensors(path, {{"input", at::zeros({1})}}, {{"golden", golden.dump()}});
  try {
    verify_golden_file(path, Precision::kFloat32);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr(path.string()), HasSubstr("final_conv.weight")));
  }
}

TEST(Golden, FilesThatAreNoGoldenFilesAreRefused) {
  const auto folder = test::scratch_folder();
  const auto message = [&](const std::map<std::string, std::string>& metadata) -> std::string {
    const auto path = folder / "x.safetensors";
    write_safetensors(path, {}, metadata);
    try {
      verify_golden_file(path, Precision::kFloat32);
    } catch (const Error& error) {
      return error.what();
    }
    return "(no error)";
  };
  EXPECT_THAT(message({}), HasSubstr("no field \"golden\""));
  EXPECT_THAT(message({{"golden", "{"}}), HasSubstr("not valid JSON"));
  EXPECT_THAT(message({{"golden", "{}"}}), HasSubstr("unknown kind of golden file"));
  EXPECT_THAT(message({{"golden", R"({"config":{}})"}}), HasSubstr("not as expected"));
  EXPECT_THAT(message({{"golden", R"({"config":{"class":"Nope"},"mode":"eval"})"}}),
              HasSubstr("unknown model Nope"));
}

TEST(Comparison, NeverPassesWhatIsNotFiniteOrOfAnotherShape) {
  const at::Tensor one = at::ones({2});
  EXPECT_TRUE(compare("", "", one, one, 0).passed());
  EXPECT_FALSE(compare("", "", one / 0, one / 0, 1).passed());
  EXPECT_FALSE(compare("", "", one * NAN, one, 1).passed());
  EXPECT_FALSE(compare("", "", at::Tensor(), one, 1).passed());
  EXPECT_THAT(compare("", "", at::ones({3}), one, 1).problem, HasSubstr("found [3]"));
  EXPECT_TRUE(compare_number("", "", NAN, NAN, 0).passed());
  EXPECT_FALSE(compare_number("", "", 1, NAN, 1).passed());
  EXPECT_FALSE(compare("", "", one * 1e-3, at::zeros({2}), 1e-4).passed());
}

}  // namespace
}  // namespace vireo
