// The GPU's arithmetic and its decomposition into blocks, run on the CPU.
#include "kernels/bi_wkv/bi_wkv_blocks.h"

#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/kernels/reference.h"

namespace vireo {
namespace {

using test::deviation;
using namespace wkv;

struct Row {
  double w, u;
  std::vector<double> k, v, gy;

  static Row random(int64_t tokens, double w, double u, double spread) {
    const auto draw = [&](double scale) {
      const at::Tensor x =
          at::randn({tokens}, at::kDouble).mul(scale).to(at::kFloat).to(at::kDouble);
      return std::vector<double>(x.data_ptr<double>(), x.data_ptr<double>() + tokens);
    };
    return {static_cast<float>(w), static_cast<float>(u), draw(spread), draw(1), draw(1)};
  }
};

struct Result {
  std::vector<double> y, gk, gv;
  double gw = 0, gu = 0;
};

/// As the GPU does it: `groups` walkers share the blocks of a row; each combines its own, the
/// walkers' sums are combined in order, and each walks its blocks again.
template <class S>
void carry_in_groups(std::vector<Ends<S>>& ends, double w, int64_t tokens, int groups) {
  const CarryPlan<S> plan(w, tokens, groups);
  std::vector<Ends<S>> sums(groups);
  for (int g = 0; g < groups; ++g) sums[g] = sum_group(plan, g, [&](int64_t j) { return ends[j]; });
  for (int g = 0; g < groups; ++g) {
    const Ends<S> entering = entering_group(plan, g, [&](int i) { return sums[i]; });
    walk_group(
        plan,
        g,
        entering,
        [&](int64_t j) { return ends[j]; },
        [&](int64_t j, const State<S>& left) { ends[j].left = left; },
        [&](int64_t j, const State<S>& right) { ends[j].right = right; });
  }
}

template <bool kWide, class S>
Result run_blocks(const Row& row, int groups) {
  const int64_t tokens = static_cast<int64_t>(row.k.size());
  const int64_t blocks = (tokens + kBlock - 1) / kBlock;
  const Channel<S> channel = channel_of<kWide>(S(row.w), S(row.u), tokens);
  const auto block_at = [&](int64_t j) {
    Block<S> block;
    block.read(
        static_cast<int>(std::min<int64_t>(kBlock, tokens - j * kBlock)),
        [&](int i) { return S(row.k[j * kBlock + i]); },
        [&](int i) { return S(row.v[j * kBlock + i]); });
    return block;
  };
  std::vector<Ends<S>> keys(blocks), gradients(blocks);
  for (int64_t j = 0; j < blocks; ++j) keys[j] = summarise_keys<kWide>(block_at(j), channel);
  carry_in_groups(keys, row.w, tokens, groups);
  Result result;
  result.y.resize(tokens), result.gk.resize(tokens), result.gv.resize(tokens);
  for (int64_t j = 0; j < blocks; ++j) {
    const auto gy = [&](int i) { return S(row.gy[j * kBlock + i]); };
    apply_keys<kWide>(
        block_at(j), keys[j], channel, [&](int i, S y) { result.y[j * kBlock + i] = y; });
    gradients[j] = summarise_gradients<kWide>(block_at(j), keys[j], channel, gy);
  }
  carry_in_groups(gradients, row.w, tokens, groups);
  for (int64_t j = 0; j < blocks; ++j) {
    const auto gy = [&](int i) { return S(row.gy[j * kBlock + i]); };
    const Share<S> share = apply_gradients<kWide>(
        block_at(j), keys[j], gradients[j], channel, gy, [&](int i, S gk, S gv) {
          result.gk[j * kBlock + i] = gk;
          result.gv[j * kBlock + i] = gv;
        });
    result.gw += share.w;
    result.gu += share.u;
  }
  return result;
}

at::Tensor tensor(const std::vector<double>& x) {
  return at::tensor(x, at::kDouble);
}

template <bool kWide, class S>
void expect_reference(const Row& row, double bound) {
  const auto leaf = [](const at::Tensor& x) { return x.clone().requires_grad_(); };
  const at::Tensor w = leaf(tensor({row.w})), u = leaf(tensor({row.u}));
  const at::Tensor k = leaf(tensor(row.k).view({1, -1, 1})),
                   v = leaf(tensor(row.v).view({1, -1, 1}));
  const at::Tensor y = test::bi_wkv_reference(w, u, k, v);
  y.backward(tensor(row.gy).view({1, -1, 1}));
  const double size = tensor(row.gy).abs().max().item<double>() *
                      tensor(row.v).abs().max().item<double>() * static_cast<double>(row.k.size());
  for (const int groups : {1, 3, 16}) {
    const Result ours = run_blocks<kWide, S>(row, groups);
    EXPECT_LE(deviation(tensor(ours.y), y.view(-1)), bound) << "y";
    EXPECT_LE(deviation(tensor(ours.gv), v.grad().view(-1)), bound) << "gv";
    EXPECT_LE((tensor(ours.gk) - k.grad().view(-1)).abs().max().item<double>(), bound * size);
    EXPECT_LE(std::abs(ours.gw - w.grad().item<double>()),
              bound * size * static_cast<double>(row.k.size()));
    EXPECT_LE(std::abs(ours.gu - u.grad().item<double>()), bound * size);
  }
}

TEST(BiWkvBlocks, GiveABlockAloneTheStatesOfTheWalk) {
  for (const int64_t tokens : {1, 40, 300, 1000}) {
    const Row row = Row::random(tokens, 2, 0.5, 2);
    const int64_t blocks = (tokens + kBlock - 1) / kBlock;
    const Channel<float> channel = channel_of<false>(2.f, 0.5f, tokens);
    std::vector<Ends<float>> own(blocks);
    for (int64_t j = 0; j < blocks; ++j) {
      Block<float> block;
      block.read(
          static_cast<int>(std::min<int64_t>(kBlock, tokens - j * kBlock)),
          [&](int i) { return static_cast<float>(row.k[j * kBlock + i]); },
          [&](int i) { return static_cast<float>(row.v[j * kBlock + i]); });
      own[j] = summarise_keys<false>(block, channel);
    }
    for (const int groups : {1, 2, 8}) {
      std::vector<Ends<float>> walked = own;
      carry_in_groups(walked, 2, tokens, groups);
      const CarryPlan<float> plan(2, tokens, groups);
      std::vector<Ends<float>> sums(groups);
      for (int g = 0; g < groups; ++g)
        sums[g] = sum_group(plan, g, [&](int64_t j) { return own[j]; });
      for (int g = 0; g < groups; ++g) {
        const Ends<float> entering = entering_group(plan, g, [&](int i) { return sums[i]; });
        for (int64_t j = plan.begin(g); j < plan.end(g); ++j) {
          const Ends<float> alone =
              entering_block(plan, g, j, entering, [&](int64_t i) { return own[i]; });
          EXPECT_EQ(alone.left.num, walked[j].left.num);
          EXPECT_EQ(alone.left.den, walked[j].left.den);
          EXPECT_EQ(alone.left.e, walked[j].left.e);
          EXPECT_EQ(alone.right.num, walked[j].right.num);
          EXPECT_EQ(alone.right.den, walked[j].right.den);
          EXPECT_EQ(alone.right.e, walked[j].right.e);
        }
      }
    }
  }
}

TEST(BiWkvBlocks, TakeTheSmallestClusterThatHoldsARow) {
  EXPECT_EQ(cluster_for(1, 16, 16), 1);
  EXPECT_EQ(cluster_for(16, 16, 16), 1);
  EXPECT_EQ(cluster_for(17, 16, 16), 2);
  EXPECT_EQ(cluster_for(196, 16, 16), 16);
  EXPECT_EQ(cluster_for(257, 16, 16), 0);
  EXPECT_EQ(cluster_for(17, 16, 1), 0);
}

TEST(BiWkvBlocks, EqualTheQuadraticSumWithOnePowerPerBlock) {
  for (const int64_t tokens : {1, 2, 16, 17, 196, 300})
    for (const double scale : {-5.0, 0.0, 3.0, 29.0})
      for (const double spread : {1.0, 20.0}) {
        SCOPED_TRACE(::testing::Message() << tokens << " tokens, w T = " << scale);
        const Row row = Row::random(tokens, scale / static_cast<double>(tokens), 0.5, spread);
        expect_reference<false, double>(row, 1e-12);
        expect_reference<false, float>(row, 1e-5);
      }
}

TEST(BiWkvBlocks, EqualTheQuadraticSumWithAPowerPerToken) {
  for (const int64_t tokens : {1, 2, 17, 196})
    for (const double w : {-300.0, -0.2, 0.01, 2.0, 5000.0})
      for (const double u : {-70.0, 0.5, 70.0}) {
        SCOPED_TRACE(::testing::Message() << tokens << " tokens, w = " << w << ", u = " << u);
        const Row row = Row::random(tokens, w, u, 15.0);
        expect_reference<true, double>(row, 1e-12);
        expect_reference<true, float>(row, 1e-5);
      }
}

}  // namespace
}  // namespace vireo
