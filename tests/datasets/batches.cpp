#include "datasets/batches.h"

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "datasets/slice_batches.h"
#include "tests/support/made_cases.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

SliceBatchSettings settings(int64_t batch_size = 4) {
  SliceBatchSettings s;
  s.window_yx = {16, 16};
  s.neighbours = 1;
  s.batch_size = batch_size;
  s.seed = 9;
  return s;
}

Augmentation some_augmentation() {
  Augmentation a;
  a.mirror_x = 0.5;
  a.rotation_degrees = {0.5, -30, 30};
  a.noise_sd = {0.5, 0, 0.2};
  return a;
}

TEST(SliceSampler, TakesEverySliceOnceBeforeAnyAgain) {
  const auto cases = test::made_cases(5);
  const SliceSampler sampler(cases, {24, 20}, 0, 3);
  ASSERT_EQ(sampler.slice_count(), 30);
  std::vector<std::vector<std::pair<size_t, int64_t>>> passes(2);
  for (int64_t sample = 0; sample < 60; ++sample) {
    Random random{static_cast<uint64_t>(sample)};
    const SliceChoice choice = sampler.choose(sample, random);
    passes[static_cast<size_t>(sample / 30)].emplace_back(choice.case_index, choice.slice);
  }
  EXPECT_NE(passes[0], passes[1]);
  for (const auto& pass : passes) EXPECT_EQ(std::set(pass.begin(), pass.end()).size(), 30u);
}

TEST(SliceSampler, ForegroundSamplesHoldTheirClass) {
  auto cases = test::made_cases(3);
  const SliceSampler sampler(cases, {8, 8}, 1, 3);
  for (int64_t sample = 0; sample < 300; ++sample) {
    Random random{static_cast<uint64_t>(sample)};
    const SliceChoice choice = sampler.choose(sample, random);
    ASSERT_GE(choice.top, 0);
    ASSERT_LE(choice.top, 24 - 8);
    ASSERT_GE(choice.left, 0);
    ASSERT_LE(choice.left, 20 - 8);
    const at::Tensor window = cases[choice.case_index]
                                  .labels[choice.slice]
                                  .slice(0, choice.top, choice.top + 8)
                                  .slice(1, choice.left, choice.left + 8);
    ASSERT_GT(window.gt(0).sum().item<int64_t>(), 0);
  }
}

TEST(SliceSampler, ClassesComeEquallyOften) {
  // Class 2 is left in one slice of one case.
  auto cases = test::made_cases(3);
  for (auto& c : cases) c.slices_of_class[1].clear();
  cases[0].slices_of_class[1] = {2};
  const SliceSampler sampler(cases, {24, 20}, 1, 3);
  int64_t rare = 0;
  for (int64_t sample = 0; sample < 1000; ++sample) {
    Random random{static_cast<uint64_t>(sample)};
    const SliceChoice choice = sampler.choose(sample, random);
    rare += choice.case_index == 0 && choice.slice == 2;
  }
  EXPECT_NEAR(static_cast<double>(rare), 500 + 500 / 15.0, 60);
}

TEST(SliceSampler, RefusesAnEmptyList) {
  const std::vector<CachedCase> none;
  EXPECT_THAT(
      [&] {
        SliceSampler(none, {8, 8}, 0, 1);
      },
      ::testing::ThrowsMessage<Error>(::testing::HasSubstr("no slice")));
}

TEST(SliceBatches, NeighboursComeInTheOrderOfTheirPositionAndEndsRepeat) {
  auto cases = test::made_cases(1);
  cases[0].image.copy_(at::arange(6).view({1, 6, 1, 1}).expand_as(cases[0].image));
  SliceBatchSettings s = settings(64);
  s.window_yx = {24, 20};
  const Batch batch = SliceBatches(cases, s, {}).make(0);
  ASSERT_EQ(batch.image.sizes(), (at::IntArrayRef{64, 3, 24, 20}));
  std::set<int64_t> seen;
  for (int64_t b = 0; b < 64; ++b) {
    const auto at = [&](int64_t channel) { return batch.image[b][channel][5][5].item<int64_t>(); };
    seen.insert(at(1));
    EXPECT_EQ(at(0), std::max<int64_t>(at(1) - 1, 0));
    EXPECT_EQ(at(2), std::min<int64_t>(at(1) + 1, 5));
  }
  EXPECT_EQ(seen.size(), 6u);
}

TEST(SliceBatches, DoNotDependOnTheNumberOfThreads) {
  const SliceBatches batches(test::made_cases(4), settings(), some_augmentation());
  const auto make = [&](int64_t i) { return batches.make(i); };
  BatchLoader alone(make, 3, 23, 0, 1), crowd(make, 3, 23, 4, 6);
  for (int64_t i = 3; i < 23; ++i) {
    const Batch a = alone.next(), b = crowd.next();
    ASSERT_TRUE(a.image.equal(b.image));
    ASSERT_TRUE(a.target.equal(b.target));
    ASSERT_TRUE(a.image.equal(batches.make(i).image));
  }
}

TEST(SliceBatches, RefuseCasesOfDifferentChannels) {
  auto cases = test::made_cases(1);
  cases.push_back(test::made_case("odd_one", 4, 6, 24, 20, 2));
  EXPECT_THAT([&] { SliceBatches(cases, settings(), {}); },
              ::testing::ThrowsMessage<DataError>(::testing::AllOf(
                  ::testing::HasSubstr("odd_one"), ::testing::HasSubstr("2 channel(s)"))));
}

TEST(SliceTiles, CoverEveryPixelOnce) {
  for (const auto& window :
       {std::array<int64_t, 2>{16, 16}, {10, 7}, {24, 20}, {32, 16}, {40, 40}}) {
    SliceBatchSettings s = settings(5);
    s.window_yx = window;
    s.neighbours = 0;
    auto cases = test::made_cases(2);
    cases[1] = test::made_case("b", 8, 3, 31, 13);
    // Every pixel's value is its own number.
    int64_t pixels = 0;
    for (auto& c : cases) {
      c.image.copy_((at::arange(c.image.numel()) + pixels + 1).view_as(c.image));
      pixels += c.image.numel();
    }
    const SliceTiles tiles(cases, s, 0);
    at::Tensor hits = at::zeros({pixels + 1}, at::kLong);
    for (int64_t i = 0; i < tiles.batch_count(); ++i) {
      const Batch batch = tiles.make(i);
      const at::Tensor counted = batch.image.squeeze(1).masked_select(batch.target.ne(255));
      hits.index_add_(0, counted.to(at::kLong), at::ones_like(counted, at::kLong));
    }
    EXPECT_EQ(hits[0].item<int64_t>(), 0);
    EXPECT_TRUE(hits.slice(0, 1).eq(1).all().item<bool>());
  }
}

TEST(SliceTiles, SpreadTheSlicesThatAreTaken) {
  const SliceTiles tiles(test::made_cases(3), settings(1), 2);
  EXPECT_EQ(tiles.batch_count(), 3 * 2 * 2 * 2);
}

TEST(BatchLoader, SurfacesWhatAWorkerThrows) {
  BatchLoader loader(
      [](int64_t i) -> Batch {
        if (i == 2) throw DataError("case_2", "is broken");
        return {at::full({1}, i), {}};
      },
      0,
      10,
      3,
      4);
  EXPECT_EQ(loader.next().image.item<int64_t>(), 0);
  EXPECT_EQ(loader.next().image.item<int64_t>(), 1);
  EXPECT_THAT([&] { loader.next(); },
              ::testing::ThrowsMessage<DataError>(::testing::HasSubstr("case_2: is broken")));
}

TEST(BatchLoader, NeverRunsFurtherAheadThanAllowed) {
  std::atomic<int64_t> made{0};
  const auto make = [&](int64_t i) -> Batch {
    ++made;
    return {at::full({1}, i), {}};
  };
  BatchLoader loader(make, 0, 1000, 4, 5);
  for (int64_t i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_LE(made.load(), i + 5);
    EXPECT_EQ(loader.next().image.item<int64_t>(), i);
  }
}

TEST(BatchLoader, StopsWithBatchesLeftAndMeasuresWaiting) {
  BatchLoader loader(
      [](int64_t i) -> Batch {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return {at::full({1}, i), {}};
      },
      0,
      1000000,
      2,
      8);
  loader.next();
  EXPECT_GE(loader.seconds_waited(), 0.01);
}

}  // namespace
}  // namespace vireo
