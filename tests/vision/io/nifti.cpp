#include <algorithm>
#include <cmath>
#include <fstream>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <itkImageFileReader.h>
#include <itkNiftiImageIO.h>
#include <zlib.h>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"
#include "vision/io/nifti_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// The 48 grids whose axes run along the patient's, each with its own spacing per axis.
std::vector<Geometry> axis_aligned_grids() {
  std::vector<Geometry> grids;
  std::array<int, 3> world{0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs) {
      Geometry g;
      g.size_zyx = {3, 4, 5};
      g.spacing_mm_zyx = {2.5, 0.75, 1.25};
      g.origin_lps_mm = {-10.5, 20.25, 30.125};
      g.direction_lps_from_zyx = {};
      for (int j = 0; j < 3; ++j)
        g.direction_lps_from_zyx[world[j]][j] = (signs >> j & 1) != 0 ? -1 : 1;
      grids.push_back(g);
    }
  } while (std::next_permutation(world.begin(), world.end()));
  return grids;
}

Geometry oblique_grid() {
  Geometry g = axis_aligned_grids()[5];
  const double c = std::cos(0.3), s = std::sin(0.3);
  for (int j = 0; j < 3; ++j) {
    const double x = g.direction_lps_from_zyx[0][j], z = g.direction_lps_from_zyx[2][j];
    g.direction_lps_from_zyx[0][j] = c * x - s * z;
    g.direction_lps_from_zyx[2][j] = s * x + c * z;
  }
  return g;
}

at::Tensor ramp(const Geometry& g, int64_t channels = 1) {
  const auto& n = g.size_zyx;
  return at::arange(channels * g.voxel_count(), at::kFloat).reshape({channels, n[0], n[1], n[2]});
}

std::string bytes_of_gz(const fs::path& path) {
  std::string bytes(1 << 20, '\0');
  gzFile file = ::gzopen(path.c_str(), "rb");
  bytes.resize(static_cast<size_t>(::gzread(file, bytes.data(), 1 << 20)));
  ::gzclose(file);
  return bytes;
}

template <typename T>
T field(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <typename T>
void set_field(std::string& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

// A small uncompressed int16 file as bytes, for tests that break it.
std::string sound_file() {
  Geometry g = oblique_grid();
  const fs::path path = test::scratch_folder() / "sound.nii";
  write_image(path, ramp(g).to(at::kShort), g);
  return read_text(path);
}

std::string refusal(const std::string& bytes, const std::string& name = "broken.nii") {
  const fs::path path = test::scratch_folder() / name;
  std::ofstream(path, std::ios::binary) << bytes;
  try {
    read_image(path);
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), ::testing::StartsWith(path.string()));
    return error.what();
  }
  return "accepted";
}

TEST(Nifti, KeepsAll48OrientationsOnRoundTrip) {
  const fs::path folder = test::scratch_folder();
  for (const Geometry& grid : axis_aligned_grids()) {
    const std::string code = grid.orientation_xyz();
    const fs::path path = folder / (code + ".nii.gz");
    write_image(path, ramp(grid), grid);
    const Volume back = read_image(path);
    EXPECT_EQ(back.geometry.orientation_xyz(), code);
    EXPECT_EQ(difference(back.geometry, grid, 1e-5), "") << code;
    EXPECT_TRUE(at::equal(back.values, ramp(grid))) << code;
  }
}

TEST(Nifti, QformAndSformSayTheSame) {
  const fs::path folder = test::scratch_folder();
  auto grids = axis_aligned_grids();
  grids.push_back(oblique_grid());
  for (const Geometry& grid : grids) {
    const fs::path path = folder / "grid.nii";
    write_image(path, ramp(grid), grid);
    std::string bytes = read_text(path);
    set_field<int16_t>(bytes, 254, 0);  // sform_code: the qform alone remains
    std::ofstream(path, std::ios::binary) << bytes;
    EXPECT_EQ(difference(read_image(path).geometry, grid, 1e-4), "") << grid.orientation_xyz();
  }
}

TEST(Nifti, ReadsAndWritesWhatItkReadsAndWrites) {
  const fs::path folder = test::scratch_folder();
  auto grids = axis_aligned_grids();
  grids.push_back(oblique_grid());
  for (const Geometry& grid : grids) {
    const fs::path path = folder / "ours.nii.gz";
    write_image(path, ramp(grid), grid);
    auto reader = itk::ImageFileReader<itk::Image<float, 3>>::New();
    reader->SetFileName(path.string());
    reader->SetImageIO(itk::NiftiImageIO::New());
    reader->Update();
    const auto* image = reader->GetOutput();
    for (const Vector3 index : {Vector3{0, 0, 0}, {2, 3, 4}, {1, 0, 2}}) {
      const itk::Index<3> at{
          {static_cast<long>(index[2]), static_cast<long>(index[1]), static_cast<long>(index[0])}};
      itk::Point<double, 3> point;
      image->TransformIndexToPhysicalPoint(at, point);
      const Vector3 ours = grid.lps_from_voxel(index);
      for (int i = 0; i < 3; ++i) EXPECT_NEAR(point[i], ours[i], 1e-4) << grid.orientation_xyz();
      EXPECT_EQ(image->GetPixel(at), ramp(grid)[0][at[2]][at[1]][at[0]].item<float>());
    }
  }
}

TEST(Nifti, LabelsKeepTheHeaderOfTheImageToTheBit) {
  const fs::path folder = test::scratch_folder();
  // An image with two different forms, odd codes and an odd unit.
  Geometry grid = oblique_grid();
  write_image(folder / "image.nii", ramp(grid), grid);
  std::string bytes = read_text(folder / "image.nii");
  set_field<int16_t>(bytes, 252, 3);
  set_field<int16_t>(bytes, 254, 4);
  set_field<float>(bytes, 280 + 12, 17.123456F);
  set_field<float>(bytes, 76 + 16, 2.5F);
  bytes[123] = 10;  // mm and seconds
  std::ofstream(folder / "image.nii", std::ios::binary) << bytes;

  const Volume image = read_image(folder / "image.nii");
  const at::Tensor labels = at::ones({3, 4, 5}, at::kLong) * 7;
  write_labels(folder / "labels.nii.gz", labels, image.geometry, folder / "image.nii");
  const std::string written = bytes_of_gz(folder / "labels.nii.gz");
  EXPECT_EQ(written.substr(252, 76), bytes.substr(252, 76));  // codes, quaternion, offsets, srows
  EXPECT_EQ(written.substr(76, 32), bytes.substr(76, 32));    // pixdim
  EXPECT_EQ(written[123], 10);
  EXPECT_EQ(field<int16_t>(written, 70), 2);  // uint8
  EXPECT_EQ(field<int16_t>(written, 72), 8);
  EXPECT_EQ(field<float>(written, 112), 1);
  EXPECT_EQ(field<float>(written, 116), 0);
  EXPECT_EQ(written.size(), 352U + 60);
  const Volume back = read_labels(folder / "labels.nii.gz");
  EXPECT_EQ(difference(back.geometry, image.geometry, 0), "");
  EXPECT_TRUE(at::equal(back.values[0].to(at::kLong), labels));
}

TEST(Nifti, LabelsTakeTheSmallestType) {
  const fs::path path = test::scratch_folder() / "labels.nii.gz";
  Geometry grid;
  grid.size_zyx = {1, 1, 3};
  const auto stored = [&](int64_t highest) {
    write_labels(path, at::tensor({int64_t{0}, int64_t{1}, highest}).reshape({1, 1, 3}), grid);
    EXPECT_EQ(read_labels(path).values.max().item<int64_t>(), highest);
    return field<int16_t>(bytes_of_gz(path), 70);
  };
  EXPECT_EQ(stored(255), 2);
  EXPECT_EQ(stored(256), 512);
  EXPECT_EQ(stored(65535), 512);
  EXPECT_THROW(stored(65536), DataError);
  EXPECT_THROW(stored(-1), DataError);
}

TEST(Nifti, RefusesToTakeTheHeaderOfAnotherGrid) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = oblique_grid();
  write_image(folder / "image.nii", ramp(grid), grid);
  Geometry other = grid;
  other.size_zyx = {3, 4, 6};
  try {
    write_labels(
        folder / "labels.nii.gz", at::zeros({3, 4, 6}, at::kByte), other, folder / "image.nii");
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("its grid of 5x4x3 voxels is not that of"));
  }
  EXPECT_FALSE(fs::exists(folder / "labels.nii.gz"));
}

TEST(Nifti, KeepsChannelsAndTypes) {
  const fs::path path = test::scratch_folder() / "image.nii.gz";
  const Geometry grid = oblique_grid();
  for (const auto type : {at::kByte, at::kShort, at::kUInt16, at::kInt, at::kFloat, at::kDouble}) {
    write_image(path, ramp(grid, 2).to(type), grid);
    const Volume back = read_image(path);
    EXPECT_EQ(back.values.scalar_type(), at::kFloat);
    EXPECT_TRUE(at::equal(back.values, ramp(grid, 2))) << type;
    EXPECT_EQ(read_image_header(path).channels, 2);
  }
}

TEST(Nifti, AppliesTheSlopeOnceAndIgnoresTheInterceptOfAZeroSlope) {
  const fs::path path = test::scratch_folder() / "scaled.nii";
  std::string bytes = sound_file();
  set_field<float>(bytes, 112, 2);
  set_field<float>(bytes, 116, -100);
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_TRUE(at::equal(read_image(path).values, ramp(oblique_grid()) * 2 - 100));
  set_field<float>(bytes, 112, 0);
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_TRUE(at::equal(read_image(path).values, ramp(oblique_grid())));
}

TEST(Nifti, KeepsNanForTheCallerToJudge) {
  const fs::path path = test::scratch_folder() / "nan.nii.gz";
  const Geometry grid = oblique_grid();
  at::Tensor values = ramp(grid);
  values[0][1][2][3] = NAN;
  write_image(path, values, grid);
  EXPECT_TRUE(std::isnan(read_image(path).values[0][1][2][3].item<float>()));
}

TEST(Nifti, AcceptsWholeNumbersAsLabelsHoweverTheyAreStored) {
  const fs::path path = test::scratch_folder() / "labels.nii.gz";
  const Geometry grid = oblique_grid();
  write_image(path, ramp(grid).to(at::kDouble), grid);
  EXPECT_TRUE(at::equal(read_labels(path).values.to(at::kFloat), ramp(grid)));
  write_image(path, ramp(grid) + 0.5, grid);
  try {
    read_labels(path);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("holds the value 0.500000, and labels must be whole"));
  }
  // As a float, the largest int32 is one too many.
  write_image(path, at::full_like(ramp(grid), 0x1p31), grid);
  EXPECT_THROW(read_labels(path), DataError);
  write_image(path, at::full_like(ramp(grid), -0x1p31), grid);
  EXPECT_EQ(read_labels(path).values.min().item<int64_t>(), -(int64_t{1} << 31));
}

TEST(Nifti, RepairsASmallShearAndRefusesALargeOne) {
  const fs::path path = test::scratch_folder() / "sheared.nii";
  Geometry grid = axis_aligned_grids()[0];
  write_image(path, ramp(grid), grid);
  const std::string bytes = read_text(path);
  const auto sheared = [&](double degrees) {
    // The y axis leans towards x: the nearest rotation is half of it off.
    std::string changed = bytes;
    const double spacing = field<float>(bytes, 280 + 16 + 4), angle = 2 * degrees * M_PI / 180;
    const double sign = field<float>(bytes, 280) > 0 ? 1 : -1;
    set_field<float>(changed, 280 + 4, static_cast<float>(sign * spacing * std::sin(angle)));
    set_field<float>(changed, 280 + 20, static_cast<float>(spacing * std::cos(angle)));
    std::ofstream(path, std::ios::binary) << changed;
  };
  sheared(0.8);
  ::testing::internal::CaptureStderr();
  const Geometry repaired = read_image(path).geometry;
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("0.800 degrees off"));
  for (int j = 0; j < 3; ++j)
    for (int k = 0; k < 3; ++k) {
      double dot = 0;
      for (int i = 0; i < 3; ++i)
        dot += repaired.direction_lps_from_zyx[i][j] * repaired.direction_lps_from_zyx[i][k];
      EXPECT_NEAR(dot, j == k ? 1 : 0, 1e-9);
    }
  sheared(1.5);
  try {
    read_image(path);
    FAIL();
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("an axis is 1.500 degrees off the nearest rotation"));
  }
}

TEST(NiftiRefuses, FilesThatAreCutOff) {
  const std::string sound = sound_file();
  EXPECT_THAT(refusal(""), HasSubstr("is empty (0 bytes)"));
  EXPECT_THAT(refusal(sound.substr(0, 100)), HasSubstr("cut off inside its header: 100 of 348"));
  EXPECT_THAT(refusal(sound.substr(0, sound.size() - 10)),
              HasSubstr("holds 110 bytes of voxels, but its header declares 5x4x3 voxels of 16 "
                        "bits, which are 120 bytes"));
  EXPECT_THAT(refusal(sound + "x"), HasSubstr("holds 121 bytes of voxels"));
  EXPECT_THAT(refusal("This is a text file, and a rather long one at that."),
              HasSubstr("is not a NIfTI file"));
}

TEST(NiftiRefuses, BrokenCompression) {
  const fs::path path = test::scratch_folder() / "sound.nii.gz";
  write_image(path, at::rand({1, 3, 4, 5}), oblique_grid());
  std::string sound = read_text(path);
  EXPECT_THAT(refusal(sound.substr(0, sound.size() / 2), "a.nii.gz"), HasSubstr("ends early"));
  std::string wrong_sum = sound;
  wrong_sum[sound.size() - 6] ^= 1;
  EXPECT_THAT(refusal(wrong_sum, "a.nii.gz"), HasSubstr("compressed stream is broken"));
}

TEST(NiftiRefuses, AHeaderThatLiesBeforeTakingMemory) {
  std::string bytes = sound_file();
  for (size_t i = 1; i <= 3; ++i) set_field<int16_t>(bytes, 40 + 2 * i, 32767);
  EXPECT_THAT(refusal(bytes), HasSubstr("declares 32767x32767x32767 voxels"));
  const fs::path path = test::scratch_folder() / "bomb.nii.gz";
  gzFile file = ::gzopen(path.c_str(), "wb");
  ::gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  ::gzclose(file);
  EXPECT_THAT(refusal(read_text(path), "bomb.nii.gz"), HasSubstr("holds at most"));
}

TEST(NiftiRefuses, SizesWhoseProductOverflows) {
  std::string bytes(544, '\0');
  set_field<int32_t>(bytes, 0, 540);
  bytes.replace(4, 8, std::string("n+2\0\r\n\x1a\n", 8));
  set_field<int16_t>(bytes, 12, 128);  // RGB
  set_field<int16_t>(bytes, 14, 24);
  set_field<int64_t>(bytes, 16, 4);
  for (size_t i = 1; i <= 4; ++i) set_field<int64_t>(bytes, 16 + 8 * i, int64_t{1} << 62);
  set_field<int64_t>(bytes, 168, 544);
  EXPECT_THAT(refusal(bytes), HasSubstr("more voxels than any file could hold"));
  const fs::path path = test::scratch_folder() / "broken.nii";
  std::ofstream(path, std::ios::binary) << bytes;
  EXPECT_THROW(read_image_header(path), DataError);
}

TEST(NiftiRefuses, BrokenFieldsByName) {
  const std::string sound = sound_file();
  const auto with = [&](size_t offset, auto value) {
    std::string bytes = sound;
    set_field(bytes, offset, value);
    return refusal(bytes);
  };
  EXPECT_THAT(with(40, int16_t{99}), HasSubstr("dim[0] is 99"));
  EXPECT_THAT(with(40, int16_t{0}), HasSubstr("dim[0] is 0"));
  EXPECT_THAT(with(42, int16_t{-5}), HasSubstr("dim[1] is -5"));
  EXPECT_THAT(with(70, int16_t{32}), HasSubstr("datatype is 32 (complex numbers)"));
  EXPECT_THAT(with(72, int16_t{8}), HasSubstr("bitpix is 8, but its datatype 4 has 16 bits"));
  EXPECT_THAT(with(108, NAN), HasSubstr("vox_offset is nan"));
  EXPECT_THAT(with(108, -352.0F), HasSubstr("vox_offset is -352"));
  EXPECT_THAT(with(344, int32_t{0}), HasSubstr("no NIfTI signature"));
  EXPECT_THAT(with(280, NAN), HasSubstr("sform is singular or not finite"));
  EXPECT_THAT(with(68, int16_t{3001}), HasSubstr("CIFTI"));
}

}  // namespace
}  // namespace vireo
