#include "apps/engine/label_statistics.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace vireo {
namespace {

std::vector<Label> labels() {
  return {{"background", 0, {}}, {"liver", 6, {}}, {"spleen", 300, {}}};
}

TEST(LabelStatistics, MeasureVolumeAndIntensityPerClassAndChannel) {
  const at::Tensor classes = at::zeros({4, 5, 6}, at::kByte);
  classes.narrow(0, 1, 2).narrow(2, 3, 2).fill_(1);  // 2 x 5 x 2 = 20 voxels
  at::Tensor image = at::randn({2, 4, 5, 6}) * 30 + 1000;
  const auto given = label_statistics(classes, image, 1.5 * 2 * 3, 3);
  ASSERT_EQ(given.size(), 3u);
  EXPECT_EQ(given[0].voxels, 100);
  EXPECT_EQ(given[1].voxels, 20);
  EXPECT_DOUBLE_EQ(given[1].volume_ml, 20 * 9 / 1000.0);
  for (int64_t channel = 0; channel < 2; ++channel) {
    const at::Tensor inside = image[channel].masked_select(classes == 1).to(at::kDouble);
    EXPECT_NEAR(given[1].mean[channel], inside.mean().item<double>(), 1e-9);
    EXPECT_NEAR(given[1].sd[channel], inside.std(false).item<double>(), 1e-9);
  }
  EXPECT_EQ(given[2].voxels, 0);
  EXPECT_TRUE(std::isnan(given[2].mean[0]));
}

TEST(LabelStatistics, AreWrittenByLabelName) {
  const at::Tensor classes = at::ones({1, 2, 2}, at::kByte);
  const nlohmann::json json =
      to_json(label_statistics(classes, at::full({1, 1, 2, 2}, 7.0f), 1000, 3), labels());
  EXPECT_EQ(json.size(), 2u);
  EXPECT_EQ(json["liver"]["value"], 6);
  EXPECT_EQ(json["liver"]["voxels"], 4);
  EXPECT_EQ(json["liver"]["volume_ml"], 4.0);
  EXPECT_EQ(json["liver"]["mean_intensity"], 7.0);
  EXPECT_EQ(json["liver"]["sd_intensity"], 0.0);
  EXPECT_TRUE(json["spleen"]["mean_intensity"].is_null());
}

}  // namespace
}  // namespace vireo
