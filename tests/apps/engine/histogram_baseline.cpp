#include "apps/engine/histogram_baseline.h"

#include <numeric>

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "datasets/phantom_pictures.h"
#include "datasets/random.h"
#include "tests/support/made_pictures.h"
#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {
namespace {

std::vector<int64_t> first_items(int64_t count, int64_t begin = 0) {
  std::vector<int64_t> items(static_cast<size_t>(count));
  std::iota(items.begin(), items.end(), begin);
  return items;
}

PictureSet set_of(const std::vector<at::Tensor>& pictures, const std::vector<int64_t>& labels) {
  PictureSet set;
  set.class_names = {"a", "b", "c", "d"};
  set.channels = pictures[0].size(2);
  for (size_t i = 0; i < labels.size(); ++i)
    set.items.push_back({"picture " + std::to_string(i), labels[i]});
  set.picture = [pictures](int64_t item) { return pictures[static_cast<size_t>(item)]; };
  return set;
}

double accuracy(const HistogramBaseline& baseline,
                const PictureSet& set,
                const std::vector<int64_t>& items) {
  const at::Tensor predicted = baseline.logits(colour_histograms(set, items)).argmax(1);
  int64_t right = 0;
  for (size_t i = 0; i < items.size(); ++i)
    right += set.holds(items[i], predicted[static_cast<int64_t>(i)].item<int64_t>());
  return static_cast<double>(right) / static_cast<double>(items.size());
}

TEST(ColourHistograms, CountSharesOfPixelsByColour) {
  set_log_quiet(true);
  at::Tensor colour = at::zeros({2, 4, 3}, at::kByte);
  colour[0][0] = at::tensor({255, 0, 31}, at::kByte);
  colour[0][1] = at::tensor({224, 32, 64}, at::kByte);
  const at::Tensor shares = colour_histograms(set_of({colour}, {0}), {0});
  ASSERT_EQ(shares.sizes(), (at::IntArrayRef{1, 512}));
  EXPECT_DOUBLE_EQ(shares[0][0].item<double>(), 6.0 / 8);
  EXPECT_DOUBLE_EQ(shares[0][7 * 64].item<double>(), 1.0 / 8);
  EXPECT_DOUBLE_EQ(shares[0][7 * 64 + 1 * 8 + 2].item<double>(), 1.0 / 8);

  const at::Tensor grey = at::full({3, 3, 1}, 255, at::kByte);
  const at::Tensor levels = colour_histograms(set_of({grey}, {0}), {0});
  ASSERT_EQ(levels.sizes(), (at::IntArrayRef{1, 64}));
  EXPECT_DOUBLE_EQ(levels[0][63].item<double>(), 1);
}

TEST(HistogramBaseline, LearnsWhatColoursTell) {
  set_log_quiet(true);
  std::vector<at::Tensor> pictures;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 120; ++i) {
    Random random{1, static_cast<uint64_t>(i)};
    at::Tensor picture = at::empty({6, 6, 3}, at::kByte);
    for (int64_t p = 0; p < picture.numel(); ++p)
      picture.view(-1)[p] =
          static_cast<int64_t>(random.uniform(0, 160)) + (p % 3 == i % 3 ? 90 : 0);
    pictures.push_back(picture);
    labels.push_back(i % 3);
  }
  const PictureSet set = set_of(pictures, labels);
  const std::vector<int64_t> training = first_items(80), held_out = first_items(40, 80);
  const HistogramBaseline baseline =
      fit_histogram_baseline(set, training, colour_histograms(set, training));
  EXPECT_GT(accuracy(baseline, set, held_out), 0.95);
  EXPECT_EQ(baseline.choosing, 16);
}

TEST(HistogramBaseline, EndsWhereTheGradientIsZero) {
  set_log_quiet(true);
  for (const bool multi_label : {false, true}) {
    PictureSet set = test::made_pictures(150);
    set.multi_label = multi_label;
    for (int64_t i = 0; i < 150 && multi_label; ++i)
      for (int64_t k = 0; k < 3; ++k) set.labels.push_back(i % 3 == k || i % 5 == k);
    const std::vector<int64_t> items = first_items(150);
    const at::Tensor histograms = colour_histograms(set, items);
    const HistogramBaseline baseline = fit_histogram_baseline(set, items, histograms);
    // By hand: the mean over pictures of (probability - truth) times input, and the penalty's.
    const at::Tensor logits = baseline.logits(histograms);
    at::Tensor excess = multi_label ? logits.sigmoid() : logits.softmax(1);
    for (int64_t i = 0; i < 150; ++i)
      for (int64_t k = 0; k < 3; ++k) excess[i][k] -= set.holds(i, k) ? 1 : 0;
    excess = excess / (multi_label ? 450 : 150);
    const at::Tensor inputs = (histograms - baseline.mean) / baseline.sd;
    const at::Tensor gradient = excess.t().matmul(inputs) + baseline.l2 * baseline.weight;
    EXPECT_LT(gradient.abs().max().item<double>(), 1e-6);
    EXPECT_LT(excess.sum(0).abs().max().item<double>(), 1e-6);
  }
}

TEST(HistogramBaseline, CannotTellThePhantomPicturesApart) {
  set_log_quiet(true);
  std::vector<at::Tensor> pictures;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < 900; ++i) {
    const PhantomPicture made = make_phantom_picture(i, 5);
    pictures.push_back(made.pixels);
    labels.push_back(made.label);
  }
  const PictureSet set = set_of(pictures, labels);
  const std::vector<int64_t> training = first_items(600), held_out = first_items(300, 600);
  const HistogramBaseline baseline =
      fit_histogram_baseline(set, training, colour_histograms(set, training));
  EXPECT_LT(accuracy(baseline, set, held_out), 0.4) << "four classes: 0.25 is guessing";
}

TEST(HistogramBaseline, RefusesASinglePicture) {
  const PictureSet set = test::made_pictures(3);
  EXPECT_THAT(
      [&] {
        fit_histogram_baseline(set, {0}, at::zeros({1, 64}, at::kDouble));
      },
      ::testing::ThrowsMessage<Error>(::testing::HasSubstr("at least two")));
}

}  // namespace
}  // namespace vireo
