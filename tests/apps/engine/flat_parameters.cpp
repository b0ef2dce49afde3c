#include "apps/engine/flat_parameters.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/optim/adamw.h>

#include "models/weights/state_dict.h"
#include "tests/support/tiny_model.h"

namespace vireo {
namespace {

TEST(FlatParameters, TheModelLooksIntoTheVectors) {
  test::TinyModel model(1, 3);
  const at::Tensor image = at::randn({2, 1, 8, 8});
  model.eval();
  const at::Tensor before = model.forward(image);
  const auto state = state_of(model);
  std::map<std::string, at::Tensor> copies;
  for (const auto& [name, tensor] : state) copies[name] = tensor.clone();

  FlatParameters flat(model);
  EXPECT_TRUE(model.forward(image).equal(before));
  for (const auto& [name, tensor] : flat.named(flat.values, flat.buffers))
    EXPECT_TRUE(tensor.equal(copies.at(name))) << name;
  EXPECT_EQ(flat.named(flat.values, flat.buffers).size(), copies.size());

  model.forward(image).sum().backward();
  double squares = 0;
  for (const auto& p : model.parameters()) squares += p.grad().square().sum().item<double>();
  EXPECT_GT(squares, 0);
  EXPECT_NEAR(flat.gradients.norm().item<double>(), std::sqrt(squares), 1e-4 * std::sqrt(squares));

  at::NoGradGuard no_grad;
  flat.values.zero_();
  EXPECT_EQ(model.parameters()[0].abs().sum().item<float>(), 0);
}

TEST(FlatParameters, GatherIsTheReverseOfNamed) {
  test::TinyModel model(1, 3);
  FlatParameters flat(model);
  at::Tensor values = at::empty_like(flat.values), buffers = at::empty_like(flat.buffers);
  flat.gather(flat.named(flat.values, flat.buffers), values, buffers);
  EXPECT_TRUE(values.equal(flat.values));
  EXPECT_TRUE(buffers.equal(flat.buffers));
}

TEST(AdamW, TakesTheStepsOfTorchsAdamW) {
  test::TinyModel ours(1, 3), theirs(1, 3);
  load_state(theirs, state_of(ours), "ours");
  ours.eval();  // no dropout
  theirs.eval();
  FlatParameters flat(ours);
  AdamW optimizer(flat, {0.9, 0.99, 1e-8, 0.1});
  std::vector<at::Tensor> with_decay, without;
  for (auto& p : theirs.parameters()) (p.dim() >= 2 ? with_decay : without).push_back(p);
  const auto options = torch::optim::AdamWOptions(1e-2).betas({0.9, 0.99}).eps(1e-8);
  torch::optim::AdamW a(with_decay, torch::optim::AdamWOptions(options).weight_decay(0.1));
  torch::optim::AdamW b(without, torch::optim::AdamWOptions(options).weight_decay(0));
  for (int i = 0; i < 5; ++i) {
    const at::Tensor image = at::randn({2, 1, 8, 8});
    flat.gradients.zero_();
    a.zero_grad();
    b.zero_grad();
    ours.forward(image).square().mean().backward();
    theirs.forward(image).square().mean().backward();
    optimizer.step(flat, 1e-2, 1);
    a.step();
    b.step();
  }
  for (size_t i = 0; i < ours.parameters().size(); ++i)
    EXPECT_TRUE(at::allclose(ours.parameters()[i], theirs.parameters()[i], 1e-4, 1e-6)) << i;
}

TEST(AdamW, ScalingTheGradientIsClippingIt) {
  test::TinyModel a(1, 3), b(1, 3);
  load_state(b, state_of(a), "a");
  FlatParameters flat_a(a), flat_b(b);
  AdamW optimizer_a(flat_a, {}), optimizer_b(flat_b, {});
  const at::Tensor gradient = at::randn_like(flat_a.gradients);
  flat_a.gradients.copy_(gradient);
  flat_b.gradients.copy_(gradient * 0.25);
  optimizer_a.step(flat_a, 0.1, 0.25);
  optimizer_b.step(flat_b, 0.1, 1);
  EXPECT_TRUE(flat_a.values.equal(flat_b.values));
}

TEST(AdamW, TakesTheSameStepsFused) {
  test::TinyModel a(1, 3), b(1, 3);
  load_state(b, state_of(a), "a");
  FlatParameters flat_a(a), flat_b(b);
  const AdamW::Settings settings{0.9, 0.99, 1e-8, 0.1};
  AdamW optimizer_a(flat_a, settings), optimizer_b(flat_b, settings);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor gradient = at::randn_like(flat_a.gradients);
    flat_a.gradients.copy_(gradient);
    flat_b.gradients.copy_(gradient);
    optimizer_a.step(flat_a, 1e-2, 0.25);
    optimizer_b.step_fused(flat_b, 1e-2, 0.25);
  }
  EXPECT_TRUE(at::allclose(flat_a.values, flat_b.values, 1e-5, 1e-7));
  EXPECT_TRUE(at::allclose(optimizer_a.second_moment, optimizer_b.second_moment, 1e-5, 1e-9));
  EXPECT_EQ(optimizer_a.steps, optimizer_b.steps);
}

TEST(WeightAverage, FollowsItsFormula) {
  test::TinyModel model(1, 3);
  FlatParameters flat(model);
  WeightAverage average(flat, 0.5);
  const double first = flat.values[0].item<double>();
  at::NoGradGuard no_grad;
  flat.values.add_(1);
  average.update(flat);  // n = 1: decay (1 + 1) / (10 + 1)
  EXPECT_NEAR(average.values[0].item<double>(), first + (1 - 2.0 / 11), 1e-5);
  for (int i = 0; i < 100; ++i) average.update(flat);
  const double before = average.values[0].item<double>();
  flat.values.add_(1);
  average.update(flat);  // the decay has reached 0.5
  EXPECT_NEAR(average.values[0].item<double>(), before + 0.5 * (first + 2 - before), 1e-5);
}

TEST(WeightAverage, StandsInForTheWeightsWhileItIsInPlace) {
  test::TinyModel model(1, 3);
  FlatParameters flat(model);
  WeightAverage average(flat, 0.9);
  const at::Tensor current = flat.values.clone();
  average.values.fill_(2);
  {
    const AverageInPlace in_place(flat, average);
    EXPECT_EQ(model.parameters()[0].mean().item<float>(), 2);
  }
  EXPECT_TRUE(flat.values.equal(current));
}

}  // namespace
}  // namespace vireo
