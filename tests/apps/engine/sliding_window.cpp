#include "apps/engine/sliding_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_model.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using test::fake_model;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

at::Tensor probabilities_of(const std::vector<TrainedModel>& models,
                            const at::Tensor& image,
                            const InferenceOptions& options = {}) {
  std::vector<at::Tensor> slabs;
  predict_probabilities(
      models, slices_of(image), options, [&](int64_t first, const at::Tensor& slab) {
        EXPECT_EQ(first, slabs.empty() ? 0 : at::cat(slabs).size(0));
        slabs.push_back(slab.clone());
      });
  return at::cat(slabs);
}

TrainedModel pointwise_model() {
  return fake_model(1, 3, [](const at::Tensor& image) {
    return at::cat({image.sin() * 3, image * image, 1 - image}, 1);
  });
}

// Logits that depend on a pixel's neighbours on one side only: not equivariant to mirroring.
TrainedModel left_looking_model() {
  return fake_model(1, 2, [](const at::Tensor& image) {
    return at::cat({image, image.roll(1, 3) * 2 + image.roll(2, 2)}, 1);
  });
}

TEST(WindowStarts, CoverTheWholeAndOverlapEnough) {
  EXPECT_THAT(window_starts(10, 10, 0.5), ElementsAre(0));
  EXPECT_THAT(window_starts(7, 10, 0.5), ElementsAre(0));
  EXPECT_THAT(window_starts(11, 10, 0.5), ElementsAre(0, 1));
  EXPECT_THAT(window_starts(20, 10, 0.5), ElementsAre(0, 5, 10));
  EXPECT_THAT(window_starts(20, 10, 0), ElementsAre(0, 10));
  for (int64_t size = 33; size < 200; size += 7) {
    const auto starts = window_starts(size, 32, 0.5);
    EXPECT_EQ(starts.front(), 0);
    EXPECT_EQ(starts.back(), size - 32);
    for (size_t i = 1; i < starts.size(); ++i) {
      EXPECT_GT(starts[i], starts[i - 1]);
      EXPECT_LE(starts[i] - starts[i - 1], 16);
    }
  }
}

TEST(GaussianImportance, IsPositiveSymmetricAndLargestInTheMiddle) {
  const at::Tensor map = gaussian_importance(32, 48);
  EXPECT_EQ(map.max().item<float>(), 1.0f);
  EXPECT_GT(map.min().item<float>(), 0.0f);
  EXPECT_TRUE(at::equal(map, map.flip({0, 1})));
  // One standard deviation (48 / 8) from the middle, between the samples around it.
  EXPECT_NEAR(
      (map[15][23 - 6] / map[15][23]).item<double>(), std::exp(-(6.5 * 6.5 - 0.25) / 72), 1e-6);
  EXPECT_GT(gaussian_importance(4096, 4096).min().item<float>(), 0.0f);
}

TEST(SlidingWindow, EqualsTheWholeSliceForAPointwiseModel) {
  const at::Tensor image = at::randn({1, 3, 50, 71});
  TrainedModel whole = pointwise_model(), windows = pointwise_model();
  windows.window_yx = {24, 32};
  for (const double overlap : {0.0, 0.5, 0.8}) {
    InferenceOptions options;
    options.overlap = overlap;
    const at::Tensor expected = probabilities_of({whole}, image);
    const at::Tensor given = probabilities_of({windows}, image, options);
    ASSERT_EQ(given.sizes(), at::IntArrayRef({3, 3, 50, 71}));
    EXPECT_LT((given - expected).abs().max().item<float>(), 1e-6);
  }
}

TEST(SlidingWindow, BlendsAConstantExactly) {
  TrainedModel constant = fake_model(1, 3, [](const at::Tensor& image) {
    return at::tensor({0.5f, -1.0f, 2.0f})
        .view({1, 3, 1, 1})
        .expand({image.size(0), 3, image.size(2), image.size(3)});
  });
  constant.window_yx = {16, 16};
  const at::Tensor given = probabilities_of({constant}, at::zeros({1, 2, 61, 45}));
  const at::Tensor expected = at::softmax(at::tensor({0.5f, -1.0f, 2.0f}), 0).view({1, 3, 1, 1});
  EXPECT_LT((given - expected).abs().max().item<float>(), 1e-6);
}

TEST(SlidingWindow, WeighsWindowsByTheirImportance) {
  // Each window answers with its own first pixel: the blend is the weighted mean of those.
  TrainedModel first_pixel = fake_model(1, 2, [](const at::Tensor& image) {
    const at::Tensor p = image.narrow(2, 0, 1).narrow(3, 0, 1).expand_as(image);
    return at::cat({p.log(), (1 - p).log()}, 1);
  });
  first_pixel.window_yx = {8, 8};
  at::Tensor image = at::full({1, 1, 8, 12}, 0.5);
  image[0][0][0][0] = 0.2;
  image[0][0][0][4] = 0.9;
  const at::Tensor given = probabilities_of({first_pixel}, image)[0][0];
  const at::Tensor importance = gaussian_importance(8, 8);
  EXPECT_NEAR(given[3][1].item<double>(), 0.2, 1e-6);
  EXPECT_NEAR(given[3][10].item<double>(), 0.9, 1e-6);
  const double a = importance[3][6].item<double>(), b = importance[3][2].item<double>();
  EXPECT_NEAR(given[3][6].item<double>(), (a * 0.2 + b * 0.9) / (a + b), 1e-6);
}

TEST(SlidingWindow, PadsSmallSlicesToTheWindowAndCropsBack) {
  std::vector<int64_t> seen;
  TrainedModel model = fake_model(1, 2, [&seen](const at::Tensor& image) {
    seen = image.sizes().vec();
    return at::cat({image, -image}, 1);
  });
  model.window_yx = {32, 48};
  const at::Tensor image = at::randn({1, 2, 21, 40});
  const at::Tensor given = probabilities_of({model}, image);
  EXPECT_THAT(seen, ElementsAre(2, 1, 32, 48));
  const at::Tensor slices = image.transpose(0, 1);
  EXPECT_LT((given - at::softmax(at::cat({slices, -slices}, 1), 1)).abs().max().item<float>(),
            1e-6);
}

TEST(SlidingWindow, BatchesDoNotChangeTheResult) {
  const at::Tensor image = at::randn({1, 7, 20, 20});
  InferenceOptions one, three;
  one.batch = 1;
  three.batch = 3;
  EXPECT_TRUE(at::allclose(probabilities_of({left_looking_model()}, image, one),
                           probabilities_of({left_looking_model()}, image, three),
                           1e-5,
                           1e-7));
}

TEST(SlidingWindow, RepeatsTheEndSlicesAsNeighbours) {
  // The slice's own channel is the middle one of three.
  TrainedModel model =
      fake_model(3, 3, [](const at::Tensor& image) { return image.contiguous() * 1.0; });
  model.neighbours = 1;
  at::Tensor image = at::arange(4, at::kFloat).view({1, 4, 1, 1}).expand({1, 4, 8, 8}).contiguous();
  const at::Tensor given = probabilities_of({model}, image);
  const auto expected = [](std::vector<float> slices) {
    return at::softmax(at::tensor(slices), 0);
  };
  EXPECT_TRUE(at::allclose(given[0].select(1, 0).select(1, 0), expected({0, 0, 1})));
  EXPECT_TRUE(at::allclose(given[2].select(1, 0).select(1, 0), expected({1, 2, 3})));
  EXPECT_TRUE(at::allclose(given[3].select(1, 0).select(1, 0), expected({2, 3, 3})));
}

TEST(Mirroring, ChangesNothingForAnEquivariantModel) {
  const at::Tensor image = at::randn({1, 2, 30, 20});
  TrainedModel model = pointwise_model();
  model.mirrored_yx = {true, true};
  InferenceOptions off;
  off.mirroring = false;
  EXPECT_LT((probabilities_of({model}, image) - probabilities_of({model}, image, off))
                .abs()
                .max()
                .item<float>(),
            1e-6);
}

TEST(Mirroring, AveragesOverTheAxesThatTrainingFlipped) {
  const at::Tensor image = at::randn({1, 2, 30, 20});
  TrainedModel model = left_looking_model();
  InferenceOptions off;
  off.mirroring = false;
  const auto mirrored = [&](std::vector<int64_t> axes) {
    return probabilities_of({model}, image.flip(axes), off).flip(axes);
  };
  const at::Tensor plain = probabilities_of({model}, image, off);
  EXPECT_TRUE(at::equal(probabilities_of({model}, image), plain)) << "training flipped nothing";

  model.mirrored_yx = {false, true};
  EXPECT_TRUE(
      at::allclose(probabilities_of({model}, image), (plain + mirrored({3})) / 2, 1e-5, 1e-6));
  EXPECT_TRUE(at::equal(probabilities_of({model}, image, off), plain));

  model.mirrored_yx = {true, true};
  EXPECT_TRUE(at::allclose(probabilities_of({model}, image),
                           (plain + mirrored({2}) + mirrored({3}) + mirrored({2, 3})) / 4,
                           1e-5,
                           1e-6));
}

TEST(Averaging, IsOfProbabilitiesNotOfLogits) {
  const at::Tensor image = at::randn({1, 2, 9, 9});
  TrainedModel a = pointwise_model(), b = pointwise_model();
  b.model = fake_model(1, 3, [](const at::Tensor& x) {
              return at::cat({x * 5, x * 0, -x}, 1);
            }).model;
  b.window_yx = {6, 6};
  EXPECT_TRUE(at::allclose(probabilities_of({a, b}, image),
                           (probabilities_of({a}, image) + probabilities_of({b}, image)) / 2,
                           1e-5,
                           1e-6));
}

TEST(PredictLabels, GivesTheMostProbableClass) {
  at::Tensor image = at::zeros({1, 3, 10, 12});
  image[0][1].narrow(0, 2, 3).narrow(1, 4, 5).fill_(1);
  const at::Tensor labels = predict_labels({test::threshold_model(0.5)}, image, {});
  EXPECT_EQ(labels.scalar_type(), at::kByte);
  EXPECT_TRUE(at::equal(labels, image[0].to(at::kByte)));
  EXPECT_FALSE(labels.is_inference());
}

TEST(PredictLabels, ReportsProgressToTheEnd) {
  std::vector<int64_t> done;
  InferenceOptions options;
  options.batch = 2;
  options.progress = [&](int64_t slices, int64_t total) {
    EXPECT_EQ(total, 5);
    done.push_back(slices);
  };
  predict_labels({test::threshold_model(0.5)}, at::zeros({1, 5, 8, 8}), options);
  EXPECT_THAT(done, ElementsAre(2, 4, 5));
}

TEST(BatchSize, FollowsTheMemoryBound) {
  const std::vector<TrainedModel> models{test::threshold_model(0.5)};
  const std::array<int64_t, 3> size{40, 64, 64};
  InferenceOptions options;
  const int64_t one = slice_memory_bytes(models, 64, 64);
  options.memory_bytes = 10 * one;
  EXPECT_EQ(batch_size(models, size, options), 10);
  options.memory_bytes = 1;
  EXPECT_EQ(batch_size(models, size, options), 1);
  options.memory_bytes = 1000 * one;
  EXPECT_EQ(batch_size(models, size, options), 40);
  options.batch = 3;
  EXPECT_EQ(batch_size(models, size, options), 3);
}

TEST(BatchSize, LetsProgressBeSeenWhereMemoryIsPlentiful) {
  const std::vector<TrainedModel> models{test::threshold_model(0.5)};
  InferenceOptions options;
  options.memory_bytes = int64_t{1} << 50;
  EXPECT_EQ(batch_size(models, {1000, 512, 512}, options), 16);
  EXPECT_EQ(batch_size(models, {1000, 8192, 8192}, options), 1);
  options.batch = 40;
  EXPECT_EQ(batch_size(models, {1000, 512, 512}, options), 40);
}

TEST(Refusals, SayWhatDoesNotFit) {
  const auto message = [](const std::vector<TrainedModel>& models, const at::Tensor& image) {
    try {
      predict_labels(models, image, {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(message({}, at::zeros({1, 1, 8, 8})), HasSubstr("at least one model"));
  EXPECT_THAT(
      message({test::threshold_model(0.5)}, at::zeros({2, 1, 8, 8})),
      HasSubstr("the image has 2 channel(s), 2 with neighbouring slices; the model takes 1"));
  EXPECT_THAT(message({test::threshold_model(0.5), pointwise_model()}, at::zeros({1, 1, 8, 8})),
              HasSubstr("2 and 3 classes"));
}

}  // namespace
}  // namespace vireo
