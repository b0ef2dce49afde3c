#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/functional/upsampling.h>
#include <torch/nn/modules/conv.h>

#include "tests/support/deviation.h"
#include "vision/blocks/ccm.h"
#include "vision/blocks/conv_norm_act.h"
#include "vision/blocks/drop_path.h"
#include "vision/blocks/ir_rwkv.h"
#include "vision/blocks/layout.h"
#include "vision/blocks/observe.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using test::deviation;

namespace F = torch::nn::functional;

void randomise(torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  module.to(at::kDouble);
  for (auto& parameter : module.parameters()) parameter.uniform_(-1, 1);
  for (const auto& buffer : module.named_buffers())
    if (buffer.key().ends_with("running_mean"))
      buffer.value().normal_();
    else if (buffer.value().is_floating_point())
      buffer.value().uniform_(0.5, 2);
}

/// Q-Shift and Bi-WKV as their formulas say, for small tensors.
at::Tensor shifted(const at::Tensor& x, int64_t height, int64_t width) {
  at::Tensor map = x.transpose(1, 2).reshape({x.size(0), x.size(2), height, width});
  at::Tensor out = at::zeros_like(map);
  for (int64_t c = 0; c < x.size(2); ++c) {
    const int64_t quarter = std::min<int64_t>(4 * c / (x.size(2) / 4 * 4), 4);
    const int64_t dx = quarter == 0 ? -1 : quarter == 1 ? 1 : 0;
    const int64_t dy = quarter == 2 ? -1 : quarter == 3 ? 1 : 0;
    for (int64_t i = 0; i < height; ++i)
      for (int64_t j = 0; j < width; ++j)
        if (i + dy >= 0 && i + dy < height && j + dx >= 0 && j + dx < width)
          out.index_put_({at::indexing::Slice(), c, i, j},
                         map.index({at::indexing::Slice(), c, i + dy, j + dx}));
  }
  return out.flatten(2).transpose(1, 2);
}

at::Tensor quadratic_wkv(const at::Tensor& w,
                         const at::Tensor& u,
                         const at::Tensor& k,
                         const at::Tensor& v) {
  const int64_t tokens = k.size(1);
  const at::Tensor t = at::arange(tokens, k.options());
  const at::Tensor eye = at::eye(tokens, k.options());
  const at::Tensor steps = ((t.unsqueeze(1) - t.unsqueeze(0)).abs() - 1) * (1 - eye);
  const at::Tensor bias = -w.view({-1, 1, 1}) * steps + u.view({-1, 1, 1}) * eye;  // [C, T, T]
  const at::Tensor share = at::softmax(bias + k.transpose(1, 2).unsqueeze(2), -1);
  return at::matmul(share, v.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2);
}

TEST(SpatialMix, EqualsItsFormulaOnANonSquareGrid) {
  for (const bool key_norm : {false, true}) {
    SpatialMix mix(SpatialMixOptions{.channels = 8, .key_norm = key_norm});
    randomise(*mix);
    const at::Tensor x = at::randn({2, 3 * 5, 8}, at::kDouble);
    const at::Tensor s = shifted(x, 3, 5);
    const auto mixed = [&](const at::Tensor& m) { return x * m + s * (1 - m); };
    at::Tensor y = quadratic_wkv(mix->spatial_decay / 15,
                                 mix->spatial_first / 15,
                                 at::matmul(mixed(mix->spatial_mix_k), mix->key->weight.t()),
                                 at::matmul(mixed(mix->spatial_mix_v), mix->value->weight.t()));
    if (key_norm) y = mix->key_norm(y);
    y = at::matmul(mixed(mix->spatial_mix_r), mix->receptance->weight.t()).sigmoid() * y;
    y = at::matmul(y, mix->output->weight.t());
    EXPECT_LE(deviation(mix->forward(x, 3, 5), y), 1e-12);
  }
}

TEST(SpatialMix, StartsWithoutDecayAndWithEvenMixes) {
  SpatialMix mix(SpatialMixOptions{.channels = 4});
  EXPECT_EQ(mix->spatial_decay.abs().max().item<float>(), 0);
  EXPECT_EQ(mix->spatial_first.abs().max().item<float>(), 0);
  for (const auto& m : {mix->spatial_mix_k, mix->spatial_mix_v, mix->spatial_mix_r})
    EXPECT_TRUE(at::equal(m, at::full({1, 1, 4}, 0.5)));
}

TEST(ChannelMix, EqualsItsFormula) {
  for (const bool key_norm : {false, true}) {
    ChannelMix mix(ChannelMixOptions{.channels = 8, .hidden_rate = 3, .key_norm = key_norm});
    randomise(*mix);
    const at::Tensor x = at::randn({2, 4 * 3, 8}, at::kDouble);
    const at::Tensor s = shifted(x, 4, 3);
    const auto mixed = [&](const at::Tensor& m) { return x * m + s * (1 - m); };
    at::Tensor k = at::matmul(mixed(mix->spatial_mix_k), mix->key->weight.t()).relu().pow(2);
    if (key_norm) k = mix->key_norm(k);
    const at::Tensor r = at::matmul(mixed(mix->spatial_mix_r), mix->receptance->weight.t());
    const at::Tensor y = r.sigmoid() * at::matmul(k, mix->value->weight.t());
    EXPECT_LE(deviation(mix->forward(x, 4, 3), y), 1e-12);
  }
}

TEST(ConvNormAct, PadsSoThatStridesRoundUp) {
  for (const int64_t kernel : {1, 3, 5, 9})
    for (const int64_t stride : {1, 2}) {
      ConvNormAct block(ConvNormActOptions{.in = 2, .out = 3, .kernel = kernel, .stride = stride});
      const auto y = block->forward(at::randn({1, 2, 12, 18}));
      EXPECT_EQ(y.sizes(), (std::vector<int64_t>{1, 3, 12 / stride, 18 / stride}));
    }
}

TEST(ConvNormAct, FoldsTheNormWithoutChangingTheResult) {
  for (const auto act : {ActKind::kNone, ActKind::kRelu, ActKind::kSilu, ActKind::kGelu}) {
    ConvNormAct block(
        ConvNormActOptions{.in = 4, .out = 4, .kernel = 5, .stride = 2, .groups = 4, .act = act});
    randomise(*block);
    block->eval();
    const at::Tensor x = at::randn({2, 4, 8, 6}, at::kDouble), copy = x.clone();
    const at::Tensor expected = block->forward(x).detach();
    const at::NoGradGuard no_grad;
    EXPECT_LE(deviation(block->forward(x), expected), 1e-12);
    EXPECT_TRUE(at::equal(x, copy));
  }
}

TEST(ConvNormAct, NormalisesAsItsOptionsSay) {
  ConvNormAct batch(ConvNormActOptions{.in = 2, .out = 2});
  EXPECT_EQ(batch->batch_norm->options.eps(), 1e-6);
  EXPECT_EQ(batch->batch_norm->options.momentum(), 0.1);
  LayerNorm2d layer(6);
  const at::Tensor y = layer->forward(at::randn({2, 6, 3, 4}) * 3 + 1);
  EXPECT_LE(y.mean(1).abs().max().item<double>(), 1e-5);
  EXPECT_NEAR(y.square().mean().item<double>(), 1, 1e-3);
}

TEST(SqueezeExcite, GatesEveryChannelByItsMean) {
  SqueezeExcite se(4, 2, ActKind::kSilu);
  randomise(*se);
  const at::Tensor x = at::randn({2, 4, 3, 5}, at::kDouble);
  at::Tensor gate = F::silu(at::matmul(x.mean({2, 3}), se->conv_reduce->weight.view({2, 4}).t()) +
                            se->conv_reduce->bias);
  gate = at::sigmoid(at::matmul(gate, se->conv_expand->weight.view({4, 2}).t()) +
                     se->conv_expand->bias);
  EXPECT_LE(deviation(se->forward(x), x * gate.view({2, 4, 1, 1})), 1e-12);
}

TEST(DropPath, DropsWholeSamplesAndKeepsTheMean) {
  DropPath drop(0.25);
  const at::Tensor y = drop->forward(at::ones({4000, 3, 2}));
  EXPECT_NEAR(y.mean().item<double>(), 1, 0.03);
  const at::Tensor per_sample = y.flatten(1);
  EXPECT_TRUE(at::equal(per_sample.amin(1), per_sample.amax(1)));
  EXPECT_NEAR(y.max().item<double>(), 1 / 0.75, 1e-6);
  drop->eval();
  EXPECT_TRUE(at::equal(drop->forward(at::ones({9})), at::ones({9})));
  EXPECT_THROW(DropPath(1.0), Error);
}

TEST(IrRwkvBlock, SkipsOnlyWhereShapesAllow) {
  EXPECT_THROW(IrRwkvBlock(IrRwkvOptions{.in = 4, .out = 8, .skip = true}), Error);
  EXPECT_THROW(IrRwkvBlock(IrRwkvOptions{.in = 4, .out = 4, .stride = 2, .skip = true}), Error);
  IrRwkvBlock block(
      IrRwkvOptions{.in = 4, .out = 4, .expansion = 2.5, .attention = true, .skip = true});
  EXPECT_EQ(block->options.hidden(), 10);
  {
    const at::NoGradGuard no_grad;  // without its branch the block is the identity
    block->proj->conv->weight.zero_();
  }
  const at::Tensor x = at::randn({2, 4, 7, 5});
  EXPECT_TRUE(at::equal(block->forward(x), x));
}

TEST(IrRwkvBlock, DifferentiatesCorrectlyThroughAttentionAndSkip) {
  IrRwkvBlock block(IrRwkvOptions{.in = 3,
                                  .out = 3,
                                  .expansion = 2,
                                  .kernel = 3,
                                  .norm = NormKind::kLayer,
                                  .se_ratio = 0.5,
                                  .attention = true,
                                  .skip = true});
  randomise(*block);
  block->eval();  // smooth but for the ReLU, which a small step does not cross
  const at::Tensor x = at::randn({1, 3, 2, 3}, at::kDouble).requires_grad_();
  const at::Tensor weight = at::randn({1, 3, 2, 3}, at::kDouble);
  (block->forward(x) * weight).sum().backward();
  const at::Tensor direction = at::randn_like(x);
  const double step = 1e-6;
  const auto value = [&](double by) {
    return (block->forward((x + direction * by).detach()) * weight).sum().item<double>();
  };
  const double expected = (value(step) - value(-step)) / (2 * step);
  const double found = (x.grad() * direction).sum().item<double>();
  EXPECT_NEAR(found, expected, 1e-6 * std::max(1.0, std::abs(expected)));
}

TEST(Ccm, EqualsResizingBeforeProjecting) {
  Ccm ccm(CcmOptions{.widths = {12, 6, 4}, .mixed_width = 4});
  randomise(*ccm);
  const std::vector<at::Tensor> skips = {at::randn({2, 12, 2, 3}, at::kDouble),
                                         at::randn({2, 6, 4, 6}, at::kDouble),
                                         at::randn({2, 4, 8, 12}, at::kDouble)};
  const auto resize = [](const at::Tensor& x, int64_t height, int64_t width) {
    return F::interpolate(x,
                          F::InterpolateFuncOptions()
                              .size(std::vector<int64_t>{height, width})
                              .mode(torch::kBilinear)
                              .align_corners(false));
  };
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < 3; ++i)
    parts.push_back(
        ccm->projections->at<torch::nn::Conv2dImpl>(i).forward(resize(skips[i], 8, 12)));
  const at::Tensor tokens = at::cat(parts, 1).flatten(2).transpose(1, 2);
  const at::Tensor mixed = tokens + ccm->ln1(ccm->channel->forward(tokens, 8, 12));
  const auto chunks = mixed.transpose(1, 2).reshape({2, 12, 8, 12}).chunk(3, 1);
  const auto found = ccm->forward(skips);
  for (size_t i = 0; i < 3; ++i) {
    const at::Tensor back = ccm->final_projections->at<torch::nn::Conv2dImpl>(i).forward(chunks[i]);
    EXPECT_LE(deviation(found[i], resize(back, skips[i].size(2), skips[i].size(3))), 1e-12);
  }
}

TEST(Layout, ChannelsLastMapsAndTokensShareMemory) {
  const at::Tensor map = at::randn({2, 3, 4, 5}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor tokens = tokens_from_map(map);
  EXPECT_EQ(tokens.const_data_ptr(), map.const_data_ptr());
  const at::Tensor back = map_from_tokens(tokens, 4, 5);
  EXPECT_EQ(back.const_data_ptr(), map.const_data_ptr());
  EXPECT_TRUE(back.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(at::equal(tokens_from_map(map.contiguous()), tokens));
}

TEST(Observers, SeeTheOutputsOfTheirScopeOnly) {
  struct Counter : ModuleObserver {
    void on_output(const torch::nn::Module&, size_t, const at::Tensor&) override { ++count; }
    int count = 0;
  } counter;
  LayerNorm2d norm(3);
  {
    const ObserverScope scope(counter);
    norm->forward(at::randn({1, 3, 2, 2}));
  }
  norm->forward(at::randn({1, 3, 2, 2}));
  EXPECT_EQ(counter.count, 1);
  EXPECT_FALSE(is_observed());
}

}  // namespace
}  // namespace vireo
