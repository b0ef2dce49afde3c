#include <cmath>
#include <fstream>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

Geometry oblique() {
  Geometry g;
  g.size_zyx = {3, 4, 5};
  g.spacing_mm_zyx = {2.5, 0.75, 1.25};
  g.origin_lps_mm = {-10.5, 20.25, 30.125};
  const double c = std::cos(0.3), s = std::sin(0.3);
  g.direction_lps_from_zyx = {{{0, s, c}, {0, -c, s}, {1, 0, 0}}};
  return g;
}

std::string refusal(const fs::path& path) {
  ::testing::internal::CaptureStderr();
  std::string message = "accepted";
  try {
    read_image(path);
  } catch (const DataError& error) {
    message = error.what();
    EXPECT_THAT(message, ::testing::StartsWith(path.string()));
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << "libraries must not chatter";
  return message;
}

TEST(ItkFormats, KeepGeometryValuesAndChannels) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = oblique();
  for (const char* name : {"a.nrrd", "a.mha"}) {
    for (const int64_t channels : {1, 3}) {
      const at::Tensor values = at::rand({channels, 3, 4, 5});
      write_image(folder / name, values, grid);
      const Volume back = read_image(folder / name);
      EXPECT_TRUE(at::equal(back.values, values)) << name << channels;
      EXPECT_EQ(difference(back.geometry, grid, 1e-6), "") << name;
      EXPECT_EQ(read_image_header(folder / name).channels, channels);
    }
    const at::Tensor labels = at::randint(0, 300, {3, 4, 5}, at::kLong);
    write_labels(folder / name, labels, grid);
    EXPECT_TRUE(at::equal(read_labels(folder / name).values[0].to(at::kLong), labels)) << name;
  }
}

TEST(ItkFormats, RefuseWhatIsCutOffOrLying) {
  const fs::path folder = test::scratch_folder();
  for (const char* name : {"a.nrrd", "a.mha"}) {
    const fs::path path = folder / name;
    write_image(path, at::rand({1, 3, 4, 5}), oblique());
    const std::string sound = read_text(path);
    std::ofstream(path, std::ios::binary) << sound.substr(0, sound.size() - 60);
    EXPECT_NE(refusal(path), "accepted") << name;
    std::ofstream(path, std::ios::binary) << "no image";
    EXPECT_NE(refusal(path), "accepted") << name;
    std::ofstream(path, std::ios::binary) << "";
    EXPECT_THAT(refusal(path), HasSubstr("is empty"));
  }
  // 30000^3 voxels in a file of a few hundred bytes.
  std::ofstream(folder / "huge.nrrd", std::ios::binary)
      << "NRRD0004\ntype: float\ndimension: 3\nsizes: 30000 30000 30000\nencoding: raw\n"
         "endian: little\n\nabc";
  EXPECT_THAT(refusal(folder / "huge.nrrd"), HasSubstr("which the file cannot hold"));
  std::ofstream(folder / "huge.mha", std::ios::binary)
      << "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = False\n"
         "DimSize = 30000 30000 30000\nElementType = MET_FLOAT\nElementDataFile = LOCAL\nabc";
  EXPECT_THAT(refusal(folder / "huge.mha"), HasSubstr("which the file cannot hold"));
  std::ofstream(folder / "deep.mha", std::ios::binary)
      << "ObjectType = Image\nNDims = 01111111111111\nBinaryData = True\nCompressedData = False\n"
         "DimSize = 3 3 3\nElementType = MET_FLOAT\nElementDataFile = LOCAL\nabc";
  EXPECT_THAT(refusal(folder / "deep.mha"), HasSubstr("NDims is no number from 1 to 10"));
  std::ofstream(folder / "pattern.mhd", std::ios::binary)
      << "ObjectType = Image\nNDims = 3\nDimSize = 2 2 1\nElementType = MET_UCHAR\n"
         "ElementDataFile = slice%d.raw 1 2 0\n";
  EXPECT_THAT(refusal(folder / "pattern.mhd"), HasSubstr("by a pattern, which is not read"));
}

}  // namespace
}  // namespace vireo
