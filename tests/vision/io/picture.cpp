#include <fstream>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <opencv2/imgcodecs.hpp>

#include "tests/support/made_png.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"
#include "vision/io/picture_bytes.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Geometry flat(int64_t height, int64_t width) {
  Geometry grid;
  grid.size_zyx = {1, height, width};
  return grid;
}

std::string refusal(const fs::path& path, bool labels = false) {
  ::testing::internal::CaptureStderr();
  std::string message = "accepted";
  try {
    labels ? read_labels(path) : read_image(path);
  } catch (const DataError& error) {
    message = error.what();
    EXPECT_THAT(message, ::testing::StartsWith(path.string()));
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << "libraries must not chatter";
  return message;
}

TEST(Picture, KeepsValuesDepthAndColourOrder) {
  const fs::path folder = test::scratch_folder();
  for (const char* extension : {".png", ".tif", ".bmp"}) {
    const fs::path path = folder / (std::string("a") + extension);
    const at::Tensor colour = at::randint(0, 256, {3, 1, 5, 7}).to(at::kByte);
    write_image(path, colour, flat(5, 7));
    const Volume back = read_image(path);
    EXPECT_TRUE(at::equal(back.values, colour.to(at::kFloat))) << extension;
    EXPECT_EQ(back.full_scale, 255);
    EXPECT_EQ(difference(back.geometry, flat(5, 7)), "");
  }
  const at::Tensor deep = at::arange(35, at::kInt).mul(1800).to(at::kUInt16).reshape({1, 1, 5, 7});
  write_image(folder / "deep.png", deep, flat(5, 7));
  EXPECT_TRUE(at::equal(read_image(folder / "deep.png").values, deep.to(at::kFloat)));
  EXPECT_EQ(read_image(folder / "deep.png").full_scale, 65535);
}

// Palette indices, `depth` bits each; the palette's colours are not grey, and not in order.
void write_palette_png(const fs::path& path, const at::Tensor& indices, int depth) {
  std::string palette, rows;
  for (int i = 0; i < 1 << depth; ++i)
    for (const int value : {255 - 40 * i, 7 * i, 11}) palette += static_cast<char>(value);
  for (int64_t y = 0; y < indices.size(0); ++y) {
    rows += '\0';
    int bits = 0, byte = 0;
    for (int64_t x = 0; x < indices.size(1); ++x) {
      byte = byte << depth | indices[y][x].item<int>();
      bits += depth;
      if (bits < 8 && x + 1 < indices.size(1)) continue;
      rows += static_cast<char>(byte << (8 - bits));
      bits = byte = 0;
    }
  }
  write_text_atomically(path,
                        test::png_file(static_cast<uint32_t>(indices.size(0)),
                                       static_cast<uint32_t>(indices.size(1)),
                                       depth,
                                       3,
                                       rows,
                                       test::png_chunk("PLTE", palette) +
                                           test::png_chunk("tRNS", std::string(1, '\0'))));
}

TEST(Picture, LabelsOfAPaletteAreItsIndices) {
  const fs::path folder = test::scratch_folder();
  for (const int depth : {1, 2, 4, 8}) {
    const fs::path path = folder / (std::to_string(depth) + ".png");
    const at::Tensor indices = at::arange(35, at::kInt).reshape({5, 7}).remainder(1 << depth);
    write_palette_png(path, indices, depth);
    EXPECT_TRUE(at::equal(read_labels(path).values[0][0], indices)) << depth << " bits";
    const at::Tensor colors = read_image(path).values;
    ASSERT_EQ(colors.size(0), 3);
    EXPECT_EQ(colors[0][0][0][1].item<float>(), 215) << "as an image it has its colours";
  }
}

TEST(Picture, RedIsTheFirstChannel) {
  const fs::path folder = test::scratch_folder();
  const cv::Mat red(4, 4, CV_8UC3, cv::Scalar(0, 0, 255));  // OpenCV's order is blue first
  for (const char* name : {"red.png", "red.jpg", "red.bmp", "red.tif"}) {
    cv::imwrite((folder / name).string(), red);
    const at::Tensor mean = read_image(folder / name).values.mean({1, 2, 3});
    EXPECT_GT(mean[0].item<float>(), 250) << name;
    EXPECT_LT(mean[2].item<float>(), 5) << name;
  }
}

TEST(Picture, DropsTheAlphaChannel) {
  const fs::path path = test::scratch_folder() / "alpha.png";
  cv::imwrite(path.string(), cv::Mat(3, 3, CV_8UC4, cv::Scalar(10, 20, 30, 128)));
  EXPECT_TRUE(at::equal(read_image(path).values.mean({1, 2, 3}), at::tensor({30.F, 20.F, 10.F})));
}

TEST(Picture, CmykBecomesRgb) {
  // Blocks of red, green, dark blue and grey, as CMYK and as YCCK, inverted as Adobe stores them.
  for (const char* name : {"cmyk.jpg", "ycck.jpg"}) {
    const at::Tensor read =
        read_image(test::repository_file("data/pictures") / name).values.select(1, 0);
    ASSERT_EQ(read.sizes(), (at::IntArrayRef{3, 16, 32})) << name;
    const std::vector<std::vector<float>> colours{
        {255, 0, 0}, {0, 255, 0}, {0, 0, 153}, {102, 102, 102}};
    for (int64_t block = 0; block < 4; ++block) {
      const at::Tensor pixel = read.select(1, block < 2 ? 3 : 12).select(1, block % 2 ? 24 : 8);
      const at::Tensor expected = at::tensor(colours[static_cast<size_t>(block)]);
      EXPECT_LE((pixel - expected).abs().max().item<float>(), 4) << name << " block " << block;
    }
  }
}

TEST(PictureRefuses, CmykThatMayBeInvertedOrNot) {
  EXPECT_THAT(refusal(test::repository_file("data/pictures/cmyk_unmarked.jpg")),
              HasSubstr("Convert it to RGB"));
}

TEST(Picture, MasksAreGreyOrEqualInAllColours) {
  const fs::path folder = test::scratch_folder();
  at::Tensor mask = at::zeros({1, 4, 5}, at::kByte);
  mask[0][1][2] = 255;
  write_labels(folder / "mask.png", mask, flat(4, 5));
  EXPECT_TRUE(at::equal(read_labels(folder / "mask.png").values[0].to(at::kByte), mask));
  write_image(folder / "grey.png", mask.unsqueeze(0).repeat({3, 1, 1, 1}), flat(4, 5));
  EXPECT_TRUE(at::equal(read_labels(folder / "grey.png").values[0].to(at::kByte), mask));
  write_image(folder / "colour.png", at::arange(60, at::kByte).reshape({3, 1, 4, 5}), flat(4, 5));
  EXPECT_THAT(refusal(folder / "colour.png", true), HasSubstr("is a colour picture"));
}

TEST(Picture, HeaderTellsWhatIsRead) {
  const fs::path folder = test::scratch_folder();
  write_palette_png(folder / "palette1.png", at::ones({6, 9}, at::kInt), 1);
  write_palette_png(folder / "palette8.png", at::ones({6, 9}, at::kInt), 8);
  write_text_atomically(folder / "grey1.png", test::png_file(6, 9, 1, 0, std::string(6 * 3, '\0')));
  write_text_atomically(folder / "grey16.png",
                        test::png_file(6, 9, 16, 0, std::string(6 * 19, '\0')));
  write_text_atomically(folder / "grey_alpha.png",
                        test::png_file(6, 9, 8, 4, std::string(6 * 19, '\0')));
  write_text_atomically(folder / "deep_alpha.png",
                        test::png_file(6, 9, 16, 6, std::string(6 * 73, '\0')));
  for (const char* extension : {".png", ".jpg", ".bmp", ".tif"}) {
    cv::imwrite((folder / ("grey" + std::string(extension))).string(), cv::Mat(6, 9, CV_8UC1, 7));
    cv::imwrite((folder / ("colour" + std::string(extension))).string(),
                cv::Mat(6, 9, CV_8UC3, cv::Scalar(1, 2, 3)));
  }
  fs::copy(test::repository_file("data/pictures/cmyk.jpg"), folder);
  int pictures = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const ImageHeader header = read_image_header(entry.path());
    const Volume read = read_image(entry.path());
    EXPECT_EQ(header.channels, read.values.size(0)) << entry.path();
    EXPECT_EQ(difference(header.geometry, read.geometry), "") << entry.path();
    ++pictures;
  }
  EXPECT_EQ(pictures, 15);
}

// A hundred megabytes that are not there to decode.
TEST(Picture, HeaderIsReadWithoutDecoding) {
  const fs::path path = test::scratch_folder() / "large.png";
  write_text_atomically(path, test::png_file(10000, 10000, 8, 0, ""));
  EXPECT_THAT(read_image_header(path).geometry.size_zyx, ElementsAre(1, 10000, 10000));
  EXPECT_GE(read_image_header(path).memory.held, 100'000'000);
}

TEST(PictureRefuses, SizesThatTheFileCannotHold) {
  const fs::path folder = test::scratch_folder();
  const auto declared =
      [&](const char* name, std::string bytes, size_t at, const std::string& size) {
        const fs::path path = folder / name;
        write_text_atomically(path, bytes.replace(at, size.size(), size));
        EXPECT_THAT(refusal(path), HasSubstr("30000 x 20000 pixels; a file of")) << name;
      };
  const auto sound = [&](const char* name) {
    write_image(folder / name, at::zeros({3, 1, 4, 4}, at::kByte), flat(4, 4));
    return read_text(folder / name);
  };
  write_text_atomically(folder / "a.png", test::png_file(20000, 30000, 8, 0, ""));
  EXPECT_THAT(refusal(folder / "a.png"), HasSubstr("30000 x 20000 pixels; a file of"));
  declared("a.bmp", sound("a.bmp"), 18, std::string("\x30\x75\0\0\x20\x4e\0\0", 8));
  const std::string jpeg = sound("a.jpg");
  declared("a.jpg", jpeg, jpeg.find("\xff\xc0") + 5, "\x4e\x20\x75\x30");
  // Width and length are the directory's first entries, as short numbers.
  std::string tiff = sound("a.tif");
  const auto entry = [&](const char* tag) { return tiff.rfind(std::string(tag, 2) + '\3' + '\0'); };
  ASSERT_NE(entry("\1\1"), std::string::npos);
  tiff.replace(entry("\0\1") + 8, 2, "\x30\x75");
  declared("a.tif", tiff, entry("\1\1") + 8, "\x20\x4e");
}

// Decoders take memory for as many rows as a strip is said to have.
TEST(Picture, TiffStripsReachNoFurtherThanThePicture) {
  const fs::path path = test::scratch_folder() / "a.tif";
  const at::Tensor values = at::randint(0, 256, {3, 1, 4, 5}).to(at::kByte);
  write_image(path, values, flat(4, 5));
  std::string bytes = read_text(path);
  const size_t rows = bytes.rfind(std::string("\x16\1\3\0\1\0\0\0", 8)) + 8;
  ASSERT_GE(rows, 8u);
  bytes.replace(rows, 2, "\xff\xff");
  write_text_atomically(path, bytes);
  EXPECT_TRUE(at::equal(read_image(path).values, values.to(at::kFloat)));
  io::bound_strips(path, bytes);
  EXPECT_EQ(bytes.substr(rows, 2), std::string("\4\0", 2));
}

TEST(PictureRefuses, DicomUnderAPicturesName) {
  const fs::path path = test::scratch_folder() / "scan.png";
  write_text_atomically(path, std::string(128, '\0') + "DICM\2");
  EXPECT_THAT(refusal(path), HasSubstr("begins as no PNG, JPEG, TIFF or BMP file"));
}

TEST(PictureRefuses, WhatIsCutOffOrDamaged) {
  const fs::path folder = test::scratch_folder();
  const at::Tensor noise = at::randint(0, 256, {3, 1, 40, 40}).to(at::kByte);
  for (const char* extension : {".png", ".jpg"}) {
    const fs::path path = folder / (std::string("a") + extension);
    write_image(path, noise, flat(40, 40));
    const std::string sound = read_text(path);
    for (const size_t kept : {sound.size() / 2, sound.size() - 5, size_t{20}}) {
      std::ofstream(path, std::ios::binary) << sound.substr(0, kept);
      EXPECT_THAT(refusal(path), HasSubstr("is cut off or damaged")) << extension << " " << kept;
    }
    std::ofstream(path, std::ios::binary) << "";
    EXPECT_THAT(refusal(path), HasSubstr("is empty (0 bytes)"));
    std::ofstream(path, std::ios::binary) << "no picture at all";
    EXPECT_THAT(refusal(path), HasSubstr("cannot be decoded as a"));
  }
  const fs::path path = folder / "flipped.png";
  write_image(path, noise, flat(40, 40));
  std::string flipped = read_text(path);
  flipped[flipped.size() / 2] ^= 4;
  std::ofstream(path, std::ios::binary) << flipped;
  EXPECT_THAT(refusal(path), HasSubstr("the checksum of PNG chunk \"IDAT\" is wrong"));
  EXPECT_THAT(refusal(folder / "nowhere.png"), HasSubstr("does not exist"));
}

TEST(PictureRefuses, VolumesAndTypesItCannotHold) {
  const fs::path path = test::scratch_folder() / "a.png";
  Geometry deep = flat(4, 4);
  deep.size_zyx[0] = 2;
  EXPECT_THAT(
      [&] {
        write_image(path, at::zeros({1, 2, 4, 4}, at::kByte), deep);
      },
      ::testing::ThrowsMessage<DataError>(HasSubstr("a picture holds one slice")));
  EXPECT_THAT(
      [&] {
        write_image(path, at::zeros({1, 1, 4, 4}), flat(4, 4));
      },
      ::testing::ThrowsMessage<DataError>(HasSubstr("8- or 16-bit")));
  EXPECT_FALSE(fs::exists(path));
}

TEST(ImageFile, KnowsFormatsByTheirNames) {
  EXPECT_EQ(image_extension("a.b.NII.GZ"), ".nii.gz");
  EXPECT_EQ(image_stem("folder/a.b.nii.gz"), "a.b");
  EXPECT_EQ(image_stem("slice.png"), "slice");
  EXPECT_EQ(image_extension("notes.txt"), "");
  EXPECT_TRUE(is_nifti("x.nii") && is_picture("x.TIFF") && !is_picture("x.nrrd"));
  const fs::path path = test::scratch_folder() / "notes.txt";
  std::ofstream(path) << "x";
  EXPECT_THAT(refusal(path), HasSubstr("its name does not end in a format that is known"));
}

}  // namespace
}  // namespace vireo
