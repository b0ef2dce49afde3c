#include "vision/losses/cross_entropy_dice.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

double largest(const at::Tensor& t) {
  return t.abs().max().item<double>();
}

TEST(CrossEntropyDice, EqualsThePublishedLossAndItsGradient) {
  VIREO_REQUIRE_GOLDEN(path, "metrics.safetensors");
  const auto file = SafetensorsFile::open(path);
  const auto golden = nlohmann::json::parse(file.metadata().at("golden"));
  ASSERT_FALSE(golden.at("loss").empty());
  for (const auto& entry : golden.at("loss")) {
    const std::string prefix = "loss/" + entry.at("id").get<std::string>() + "/";
    CrossEntropyDice settings;
    settings.cross_entropy_weight = entry.at("w_ce");
    settings.dice_weight = entry.at("w_dice");
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      const double tolerance = dtype == at::kDouble ? 1e-12 : 1e-6;
      const at::Tensor logits =
          file.tensor(prefix + "logits").to(dtype).detach().clone().requires_grad_();
      const auto loss = cross_entropy_dice(logits, file.tensor(prefix + "target"), settings);
      EXPECT_NEAR(loss.total.item<double>(), entry.at("value").get<double>(), tolerance * 4);
      EXPECT_NEAR(loss.cross_entropy.item<double>(), entry.at("ce").get<double>(), tolerance * 4);
      EXPECT_NEAR(loss.dice.item<double>(), entry.at("dice").get<double>(), tolerance * 4);
      loss.total.backward();
      const at::Tensor expected = file.tensor(prefix + "grad").to(at::kDouble);
      EXPECT_LE(largest(logits.grad().to(at::kDouble) - expected), 1e-5 * largest(expected));
    }
  }
}

TEST(CrossEntropyDice, IgnoredPixelsAreAsIfTheyWereNotThere) {
  const at::Tensor logits = at::randn({1, 3, 4, 6}, at::kDouble).requires_grad_();
  at::Tensor target = at::randint(0, 3, {1, 4, 6}, at::kByte);
  target.slice(2, 4, 6).fill_(255);
  const auto masked = cross_entropy_dice(logits, target);
  const auto cut = cross_entropy_dice(logits.slice(3, 0, 4), target.slice(2, 0, 4));
  EXPECT_NEAR(masked.total.item<double>(), cut.total.item<double>(), 1e-12);
  masked.total.backward();
  EXPECT_EQ(largest(logits.grad().slice(3, 4, 6)), 0);
  EXPECT_GT(largest(logits.grad().slice(3, 0, 4)), 0);
}

TEST(CrossEntropyDice, IsZeroWhenNothingCounts) {
  const at::Tensor logits = at::randn({2, 3, 4, 4}).requires_grad_();
  const auto loss = cross_entropy_dice(logits, at::full({2, 4, 4}, 255, at::kByte));
  EXPECT_EQ(loss.total.item<float>(), 0);
  loss.total.backward();
  EXPECT_EQ(largest(logits.grad()), 0);
}

TEST(CrossEntropyDice, PerImageDiceIsTheMeanOfSingleImages) {
  const at::Tensor logits = at::randn({3, 4, 8, 8}, at::kDouble);
  const at::Tensor target = at::randint(0, 4, {3, 8, 8}, at::kByte);
  CrossEntropyDice settings;
  settings.batch_dice = false;
  double sum = 0;
  for (int i = 0; i < 3; ++i)
    sum += cross_entropy_dice(logits.narrow(0, i, 1), target.narrow(0, i, 1)).dice.item<double>();
  EXPECT_NEAR(cross_entropy_dice(logits, target, settings).dice.item<double>(), sum / 3, 1e-12);
}

TEST(CrossEntropyDice, TakesHalfPrecisionLogits) {
  const at::Tensor logits = at::randn({1, 3, 8, 8}).to(at::kBFloat16);
  const at::Tensor target = at::randint(0, 3, {1, 8, 8}, at::kByte);
  const auto loss = cross_entropy_dice(logits, target);
  EXPECT_EQ(loss.total.scalar_type(), at::kFloat);
  EXPECT_NEAR(loss.total.item<double>(),
              cross_entropy_dice(logits.to(at::kFloat), target).total.item<double>(),
              1e-6);
}

TEST(CrossEntropyDice, RefusesATargetOfAnotherSize) {
  EXPECT_THAT(
      [] {
        cross_entropy_dice(at::zeros({1, 2, 4, 4}), at::zeros({1, 4, 5}, at::kByte));
      },
      ::testing::ThrowsMessage<c10::Error>(::testing::HasSubstr("do not belong together")));
}

}  // namespace
}  // namespace vireo
