#include <cmath>
#include <fstream>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_segments.h"
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

// An NRRD of 2 x 3 x 4 bytes 0, 1, ... with the fields that are given.
fs::path made_nrrd(const std::string& fields, const std::string& sizes = "2 3 4") {
  const fs::path path = test::scratch_folder() / "made.nrrd";
  std::ofstream out(path, std::ios::binary);
  out << "NRRD0005\n# space: RAS\ntype: uint8\n"
      << "dimension: " << (sizes.size() + 1) / 2 << "\nsizes: " << sizes << "\nencoding: raw\n"
      << fields << "note:=space: LPS\n\n";
  for (char i = 0; i < 48; ++i) out << i;
  return path;
}

std::string vector_text(const Vector3& vector, const Vector3& signs, const char* more) {
  std::string text = "(";
  for (size_t i = 0; i < 3; ++i) text += std::to_string(signs[i] * vector[i]) + (i < 2 ? "," : "");
  return text + more + ")";
}

TEST(ItkFormats, NrrdLiesInItsPlaceInEverySpaceOfThePatient) {
  const Vector3 ras{-1, -1, 1}, las{1, -1, 1}, lps{1, 1, 1};
  const std::vector<std::pair<const char*, Vector3>> spaces = {{"right-anterior-superior", ras},
                                                               {"left-anterior-superior", las},
                                                               {"left-posterior-superior", lps},
                                                               {"RAS", ras},
                                                               {"LAS", las},
                                                               {"LPS", lps},
                                                               {"Left Anterior Superior\r", las}};
  for (const auto& [space, signs] : spaces)
    for (Geometry grid : test::straight_grids(4, 3, 2)) {
      grid.spacing_mm_zyx = {2.5, 0.75, 1.25};
      grid.origin_lps_mm = {-61.5, 42.25, -103.125};
      // In three dimensions, with channels first, and with two times last.
      for (const int kind : {0, 1, 2}) {
        const char* more = kind == 2 ? ",0" : "";
        std::string directions = kind == 1 ? "none" : "";
        for (size_t axis = 3; axis-- > 0;) {
          Vector3 step{};
          for (size_t i = 0; i < 3; ++i)
            step[i] = grid.direction_lps_from_zyx[i][axis] * grid.spacing_mm_zyx[axis];
          directions += " " + vector_text(step, signs, more);
        }
        const std::string name = space;
        const std::string suffix = kind != 2 ? "" : name.size() == 3 ? "T" : "-time";
        if (kind == 2 && name.ends_with('\r')) continue;
        const char* const kinds[] = {
            "domain domain domain", "vector domain domain domain", "domain domain domain time"};
        const char* const sizes[] = {"2 3 4", "2 2 3 4", "2 3 4 2"};
        const fs::path path =
            made_nrrd("space: " + name + suffix + "\nspace directions: " + directions +
                          (kind == 2 ? " (0,0,0,1)" : "") + "\nkinds: " + kinds[kind] +
                          "\nspace origin: " + vector_text(grid.origin_lps_mm, signs, more) + "\n",
                      sizes[kind]);
        EXPECT_EQ(difference(read_image_header(path).geometry, grid, 1e-5), "")
            << name << suffix << ' ' << grid.orientation_xyz();
        const Volume volume = read_image(path);
        EXPECT_EQ(difference(volume.geometry, grid, 1e-5), "") << name << suffix;
        EXPECT_EQ(volume.values.select(0, 0).max().item<float>(), kind == 1 ? 46 : 23);
      }
    }
}

TEST(ItkFormats, NrrdWithDirectionsOfOtherAxesIsRefused) {
  const std::string place = "space: LAS\nspace origin: (0,0,0)\n";
  EXPECT_EQ(refusal(made_nrrd(place + "space directions: (1,0,0) (0,1,0) (0,0,1)\n")), "accepted");
  // The first axis holds channels, but no kind says so: ITK takes it for one of the image's.
  EXPECT_NE(
      refusal(made_nrrd(place + "space directions: none (0,2,0) (1,0,0) (0,0,1)\n", "2 2 3 4")),
      "accepted");
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
  EXPECT_THAT([&] { read_image_header(folder / "huge.mha"); },
              ::testing::ThrowsMessage<DataError>(HasSubstr("which the file cannot hold")));
  std::ofstream(folder / "deep.mha", std::ios::binary)
      << "ObjectType = Image\nNDims = 01111111111111\nBinaryData = True\nCompressedData = False\n"
         "DimSize = 3 3 3\nElementType = MET_FLOAT\nElementDataFile = LOCAL\nabc";
  EXPECT_THAT(refusal(folder / "deep.mha"), HasSubstr("NDims is no number from 1 to 10"));
  std::ofstream(folder / "pattern.mhd", std::ios::binary)
      << "ObjectType = Image\nNDims = 3\nDimSize = 2 2 1\nElementType = MET_UCHAR\n"
         "ElementDataFile = slice%d.raw 1 2 0\n";
  EXPECT_THAT(refusal(folder / "pattern.mhd"), HasSubstr("by a pattern, which is not read"));
  std::ofstream(folder / "gone.mha", std::ios::binary)
      << "ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = True\n"
         "DimSize = 5 4 2\nElementType = MET_UCHAR\nElementDataFile = gone.zraw\n";
  EXPECT_THAT(refusal(folder / "gone.mha"), HasSubstr("in \"gone.zraw\" (ElementDataFile)"));
  // A field's name that no line's end cuts off.
  std::ofstream(folder / "named.mha", std::ios::binary)
      << "ObjectType = Image\nNDims = 3\nDimSize = 2 2 1\n"
      << std::string(150, 'x') << "\n"
      << std::string(150, 'y') << "ElementType = MET_UCHAR\nElementDataFile = LOCAL\nabcd";
  EXPECT_THAT(refusal(folder / "named.mha"), HasSubstr("a line that is no \"NAME = VALUE\""));
  std::ofstream(folder / "long.mha", std::ios::binary)
      << "ObjectType = Image\nNDims = 3\nDimSize = 2 2 1\nElementType = MET_UCHAR\n"
         "ElementDataFile = "
      << std::string(300, 'x') << "\n";
  EXPECT_THAT(refusal(folder / "long.mha"), HasSubstr("which is not there"));
}

}  // namespace
}  // namespace vireo
