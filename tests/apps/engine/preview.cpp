#include "apps/engine/preview.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;

TEST(TellingSlices, CoverTheLabelledExtentAndTheFullestSlice) {
  EXPECT_THAT(telling_slices({0, 0, 0, 0, 0, 0, 0, 0}, 4), ElementsAre(1, 3, 5, 7));
  const auto slices = telling_slices({0, 0, 1, 1, 9, 1, 1, 1, 1, 1, 0, 0}, 4);
  EXPECT_EQ(slices.size(), 4u);
  EXPECT_THAT(slices, Contains(4));
  EXPECT_GE(slices.front(), 2);
  EXPECT_LE(slices.back(), 9);
  EXPECT_THAT(telling_slices({5}, 4), ElementsAre(0));
  EXPECT_THAT(telling_slices({0, 3, 0}, 4), ElementsAre(1));
}

TEST(Preview, ShowsARowPerCaseAndSaysHowManyItLeavesOut) {
  Preparation preparation;
  preparation.channels = {{"MR", ChannelNormalization::Kind::kZScore}};
  preparation.labels = {{"background", 0, {}}, {"tumour", 1, {}}};
  Volume volume{at::randn({1, 10, 30, 30}), {}};
  volume.geometry.size_zyx = {10, 30, 30};
  const at::Tensor classes = at::zeros({10, 30, 30}, at::kByte);
  classes.narrow(0, 3, 4).narrow(1, 5, 10).narrow(2, 5, 10).fill_(1);
  Preview two(preparation, 2);
  two.add("a", volume, classes, 0);
  const int64_t one_row = two.picture().height();
  two.add("b", volume, classes, 0);
  EXPECT_FALSE(two.has_room());
  const int64_t two_rows = two.picture().height();
  EXPECT_GT(two_rows, one_row + 200);
  two.add("c", volume, classes, 0);
  EXPECT_GT(two.picture().height(), two_rows) << "the line that counts the others";
  EXPECT_LT(two.picture().height(), two_rows + 40);
}

TEST(Preview, OfNothingIsStillAPicture) {
  Preparation preparation;
  preparation.labels = {{"background", 0, {}}};
  EXPECT_GT(Preview(preparation).picture().width(), 0);
}

}  // namespace
}  // namespace vireo
