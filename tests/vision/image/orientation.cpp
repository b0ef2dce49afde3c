#include "vision/image/orientation.h"

#include <cmath>

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

Volume made_volume() {
  Volume volume;
  volume.geometry.size_zyx = {2, 3, 4};
  volume.geometry.spacing_mm_zyx = {3, 1, 2};
  volume.geometry.origin_lps_mm = {-5, 7, 11};
  const double c = std::cos(0.2), s = std::sin(0.2);
  volume.geometry.direction_lps_from_zyx = {{{0, s, c}, {0, c, -s}, {1, 0, 0}}};
  volume.values = at::arange(24, at::kFloat).view({1, 2, 3, 4});
  return volume;
}

TEST(Reorientation, KeepsEveryVoxelAtItsPlaceAndComesBack) {
  const Volume volume = made_volume();
  EXPECT_EQ(volume.geometry.orientation_xyz(), "LPS");
  int codes = 0;
  for (const char* code : {"LPS", "RAS", "LPI", "SRA", "ASL", "PIR", "IAR"}) {
    SCOPED_TRACE(code);
    const Reorientation turn = reorientation(volume.geometry, code);
    const Volume turned = reoriented(volume, turn);
    EXPECT_EQ(turned.geometry.orientation_xyz(), code);
    EXPECT_EQ(turn.is_identity(), std::string(code) == "LPS");
    for (int64_t z = 0; z < 2; ++z)
      for (int64_t y = 0; y < 3; ++y)
        for (int64_t x = 0; x < 4; ++x) {
          const Vector3 at = turned.geometry.voxel_from_lps(volume.geometry.lps_from_voxel(
              {static_cast<double>(z), static_cast<double>(y), static_cast<double>(x)}));
          EXPECT_EQ(turned.values[0][std::lround(at[0])][std::lround(at[1])][std::lround(at[2])]
                        .item<float>(),
                    volume.values[0][z][y][x].item<float>());
        }
    const Volume back = reoriented(turned, turn.inverse());
    EXPECT_EQ(difference(back.geometry, volume.geometry, 1e-9), "");
    EXPECT_TRUE(at::equal(back.values, volume.values));
    ++codes;
  }
  EXPECT_EQ(codes, 7);
}

TEST(Reorientation, LeavesAloneWithoutACodeAndRefusesWhatIsNone) {
  const Geometry grid = made_volume().geometry;
  EXPECT_TRUE(reorientation(grid, "").is_identity());
  for (const char* code : {"RA", "RRS", "XYZ", "RLS"})
    EXPECT_THROW(reorientation(grid, code), Error);
}

}  // namespace
}  // namespace vireo
