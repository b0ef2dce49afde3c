#include "vision/io/segmentation/slice_pictures.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/made_segments.h"
#include "tests/support/test_data.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

TEST(SlicePictures, MasksHoldTheLabelValues) {
  const fs::path folder = test::scratch_folder();
  const at::Tensor labels = test::made_labels(3, 12, 14);
  write_mask_pictures(folder, labels);
  for (int64_t z = 0; z < 3; ++z) {
    const fs::path path = folder / ("mask_000" + std::to_string(z) + ".png");
    EXPECT_TRUE(at::equal(read_labels(path).values[0][0].to(at::kInt), labels[z])) << path;
  }
  write_mask_pictures(folder, labels.slice(0, 0, 1));
  EXPECT_TRUE(fs::exists(folder / "mask.png"));
}

TEST(SlicePictures, OverlaysShowTheColoursOfTheDescriptions) {
  const fs::path folder = test::scratch_folder();
  std::vector<SegmentDescription> segments = {describe_segment(2, "liver")};
  segments[0].color = {0, 255, 0};
  at::Tensor labels = at::zeros({2, 30, 30}, at::kInt);
  labels[1].slice(0, 5, 25).slice(1, 5, 25).fill_(2);
  write_overlay_pictures(folder, at::zeros({1, 2, 30, 30}), labels, segments, {0, 1});
  EXPECT_FALSE(fs::exists(folder / "overlay_0000.png")) << "nothing is labelled there";
  const at::Tensor picture = read_image(folder / "overlay_0001.png").values.select(1, 0);
  EXPECT_GT(picture[1][15][15].item<float>(), 30);
  EXPECT_EQ(picture[0][15][15].item<float>(), 0);
  EXPECT_EQ(picture.slice(1, 0, 3).max().item<float>(), 0);
}

}  // namespace
}  // namespace vireo
