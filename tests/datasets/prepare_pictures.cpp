#include "datasets/prepare_pictures.h"

#include <map>

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "datasets/exif_orientation.h"
#include "datasets/picture_reader.h"
#include "datasets/picture_shards.h"
#include "datasets/picture_source.h"
#include "tests/support/exif.h"
#include "tests/support/made_png.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/core/safetensors.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

void write_png(const fs::path& path, const at::Tensor& values) {
  Geometry grid;
  grid.size_zyx = {1, values.size(1), values.size(2)};
  write_image(path, values.unsqueeze(1).contiguous(), grid);
}

at::Tensor flat(int64_t channels, int64_t value, at::ScalarType type = at::kByte) {
  return at::full({channels, 4, 6}, value, at::kInt).to(type);
}

PictureDataConfig config_of(const fs::path& folder, const std::string& more = "") {
  return PictureDataConfig::from_table(
      ConfigTable::from_text("folder = \"" + folder.string() + "\"\n" + more, "test"),
      folder.string() + "_run");
}

PictureSet prepared(const PictureDataConfig& config) {
  set_log_quiet(true);
  prepare_pictures(config);
  return open_picture_cache(config.cache, read_classified_picture);
}

TEST(PreparePictures, ReadsFoldersOfClassesAndNamesEveryBrokenFile) {
  const fs::path folder = test::scratch_folder();
  write_png(folder / "train" / "cat" / "1.png", flat(1, 10));
  write_png(folder / "train" / "dog" / "deep" / "2.png", flat(3, 90));
  write_png(folder / "val" / "dog" / "3.png", flat(1, 30));
  write_png(folder / "test" / "cat" / "4.png", flat(1, 200));
  const std::string whole = read_text(folder / "train" / "cat" / "1.png");
  write_text_atomically(folder / "train" / "cat" / "5.png", whole.substr(0, whole.size() / 2));
  write_text_atomically(folder / "val" / "cat" / "6.jpg", "");

  const PictureDataConfig config = config_of(folder);
  const PictureSet set = prepared(config);
  EXPECT_EQ(set.class_names, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(set.channels, 3) << "one picture has colour";
  ASSERT_EQ(set.items.size(), 4u);
  EXPECT_EQ(set.training_items(0).size(), 2u);
  EXPECT_EQ(set.validation_items(0).size(), 1u);
  EXPECT_EQ(set.test_items().size(), 1u);
  EXPECT_NEAR(set.mean[1], 50.0 / 255, 1e-6);
  EXPECT_TRUE(set.picture(set.test_items()[0]).eq(200).all().item<bool>());
  const std::string broken = read_text(config.cache / "broken.txt");
  EXPECT_THAT(broken, HasSubstr("5.png: is cut off"));
  EXPECT_THAT(broken, HasSubstr("6.jpg: is empty"));
  EXPECT_TRUE(prepare_pictures(config).already_done);
  EXPECT_THAT([&] { prepared(config_of(folder, "broken = \"refuse\"")); },
              ThrowsMessage<DataError>(::testing::AllOf(
                  HasSubstr("2 problem(s)"), HasSubstr("5.png"), HasSubstr("6.jpg"))));
}

TEST(PreparePictures, ReadsTablesWithPatientsSplitsAndSeveralLabels) {
  const fs::path folder = test::scratch_folder();
  for (const char* name : {"a.png", "b, c.png", "d.png"}) write_png(folder / name, flat(1, 60));
  write_text_atomically(folder / "labels.csv",
                        "\xef\xbb\xbfpath,patient_id,label\r\na.png,p1,ill\r\n\"b, c.png\",p2,"
                        "\"well, \"\"so\"\"\"\r\nd.png,p1,ill\r\n");
  const PictureSet set = prepared(config_of(folder, "folds = 2"));
  EXPECT_EQ(set.class_names, (std::vector<std::string>{"ill", "well, \"so\""}));
  EXPECT_EQ(set.items[0].patient, set.items[2].patient);
  EXPECT_EQ(set.items[0].fold, set.items[2].fold);
  EXPECT_NE(set.items[0].fold, set.items[1].fold);
  EXPECT_EQ(set.channels, 1);

  write_text_atomically(folder / "many.csv",
                        "file,split,x,y\na.png,train,1,0\nd.png,val,1,1\nnone.png,val,0,0\n");
  const PictureSet many = prepared(config_of(folder, "csv = \"many.csv\"\nmulti_label = true"));
  EXPECT_EQ(many.class_names, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(many.labels, (std::vector<uint8_t>{1, 0, 1, 1}));
  EXPECT_EQ(many.validation_items(0), std::vector<int64_t>{1});

  write_text_atomically(folder / "torn.csv",
                        "path,patient,label,split\na.png,p,0,train\nd.png,p,1,val\n");
  EXPECT_THAT([&] { prepared(config_of(folder, "csv = \"torn.csv\"")); },
              ThrowsMessage<DataError>(HasSubstr("1 patient(s) have pictures in more than one")));
  write_text_atomically(folder / "out.csv", "path,label\n../a.png,0\n");
  EXPECT_THROW(prepared(config_of(folder, "csv = \"out.csv\"")), DataError);
}

TEST(PreparePictures, GoesOnBehindTheShardsOfAnInterruptedRun) {
  set_log_quiet(true);
  const fs::path folder = test::scratch_folder();
  for (int64_t i = 0; i < 7; ++i)
    write_png(folder / "data" / (i < 4 ? "a" : "b") / (std::to_string(i) + ".png"),
              flat(i == 5 ? 3 : 1, 30 * i));
  write_text_atomically(folder / "data" / "a" / "1_broken.png", "");
  const PictureDataConfig config = config_of(folder / "data", "folds = 2");
  const PrepareOptions two_pictures{false, 2 * 4 * 6};
  ASSERT_EQ(prepare_pictures(config, two_pictures).cases, 7);
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(config.cache))
    files[entry.path().filename().string()] = read_text(entry.path());
  ASSERT_TRUE(files.contains("pictures_0003.safetensors"));

  // As a process leaves it that is killed while it decodes the fifth picture.
  for (const char* lost : {"cache.json",
                           "items.safetensors",
                           "broken.txt",
                           "pictures_0002.safetensors",
                           "pictures_0003.safetensors"})
    fs::remove(config.cache / lost);
  const PrepareReport resumed = prepare_pictures(config, two_pictures);
  EXPECT_FALSE(resumed.already_done);
  EXPECT_EQ(resumed.kept, 4);
  EXPECT_EQ(resumed.cases, 7);
  for (const auto& [name, bytes] : files) EXPECT_EQ(read_text(config.cache / name), bytes) << name;

  // Shards of other files are no help, and do not stay.
  fs::remove(folder / "data" / "b" / "6.png");
  EXPECT_EQ(prepare_pictures(config).kept, 0);
  EXPECT_FALSE(fs::exists(config.cache / "pictures_0001.safetensors"));
  EXPECT_EQ(open_picture_cache(config.cache).items.size(), 6u);
}

TEST(PictureShards, TakeOverNothingFromAShardThatIsNotTheirs) {
  const fs::path folder = test::scratch_folder();
  const at::Tensor pixels = at::ones({24}, at::kByte);
  const auto taken = [&](const at::Tensor& items, const at::Tensor& bytes) {
    write_safetensors(
        picture_shard(folder, 0), {{"pixels", bytes}, {"items", items}}, {{"inputs", "x"}});
    PictureShards shards(folder, "x", 2, 1000);
    int64_t shown = 0;
    const int64_t held = shards.take_over([&](int64_t, const at::Tensor&) { ++shown; });
    EXPECT_EQ(held, shown);
    return held;
  };
  const auto rows = [](std::vector<int64_t> numbers) {
    return at::tensor(numbers, at::kLong).view({-1, 4});
  };
  EXPECT_EQ(taken(rows({0, 2, 2, 3, 1, 2, 2, 3}), pixels), 2);
  EXPECT_EQ(taken(rows({0, 2, 2, 3, 1, 2, 3, 3}), pixels), 0) << "more than there is";
  EXPECT_EQ(taken(rows({0, 2, 2, 3, 2, 2, 2, 3}), pixels), 0) << "no such item";
  EXPECT_EQ(taken(rows({0, -2, -2, 3}), pixels), 0);
  EXPECT_EQ(taken(rows({0, int64_t{1} << 40, int64_t{1} << 40, 3}), pixels), 0);
  EXPECT_EQ(taken(rows({0, 2, 2, 3}).flatten(), pixels), 0);
  EXPECT_EQ(taken(rows({0, 2, 2, 3}).to(at::kInt), pixels), 0);
  EXPECT_EQ(taken(rows({0, 2, 2, 3}), pixels.view({2, 12})), 0);
}

TEST(PreparePictures, TakesSlicesOfVolumes) {
  const fs::path folder = test::scratch_folder();
  Geometry grid;
  grid.size_zyx = {3, 4, 6};
  const at::Tensor ramp = at::arange(24, at::kFloat).view({1, 1, 4, 6});
  write_image(folder / "v.nii.gz", at::cat({ramp, ramp * 0 + 5, 100 - ramp}, 1), grid);
  write_text_atomically(folder / "labels.csv", "path,label,slice\nv.nii.gz,0,0\nv.nii.gz,1,2\n");
  const PictureSet set = prepared(config_of(folder, "folds = 2"));
  EXPECT_EQ(set.picture(0)[0][0].item<int64_t>(), 0);
  EXPECT_EQ(set.picture(0)[3][5].item<int64_t>(), 255);
  EXPECT_EQ(set.picture(1)[0][0].item<int64_t>(), 255);
  EXPECT_THAT([&] { read_classified_picture(folder / "v.nii.gz"); },
              ThrowsMessage<DataError>(HasSubstr("holds 3 slices")));
}

TEST(PreparePictures, ReadsWhatATableNamesWhateverItsName) {
  const fs::path folder = test::scratch_folder();
  write_png(folder / "a.png", flat(1, 60));
  write_text_atomically(folder / "IM0001", "no image");
  write_text_atomically(folder / "labels.csv", "path,label\na.png,0\nIM0001,1\n");
  const PictureDataConfig config = config_of(folder, "folds = 2");
  EXPECT_EQ(prepared(config).items.size(), 1u);
  EXPECT_THAT(read_text(config.cache / "broken.txt"),
              HasSubstr("IM0001: its name does not end in"));
}

TEST(PreparePictures, ReadsDicomSlicesThatATableOrAFolderHolds) {
  VIREO_REQUIRE_REAL_DATA(series, "dicom_series/ct_siemens_j2k_20");
  const fs::path folder = test::scratch_folder();
  for (const auto& [from, to] : {std::pair{"0001.dcm", "x/1.dcm"}, {"0011.dcm", "y/IM0011"}}) {
    fs::create_directories((folder / to).parent_path());
    fs::copy_file(series / from, folder / to);
  }
  try {
    read_image(folder / "x" / "1.dcm");
  } catch (const DataError& error) {
    VIREO_SKIP(std::string("this build reads no DICOM: ") + error.what());
  }
  const PictureSet by_folder = prepared(config_of(folder, "cache = \"" + folder.string() + "_f\""));
  ASSERT_EQ(by_folder.items.size(), 1u) << "in folders DICOM files are told by .dcm";
  write_text_atomically(folder / "labels.csv", "path,label\nx/1.dcm,0\ny/IM0011,1\n");
  const PictureSet set = prepared(config_of(folder, "folds = 2"));
  ASSERT_EQ(set.items.size(), 2u);
  EXPECT_EQ(set.channels, 1);
  for (int64_t i = 0; i < 2; ++i) {
    const at::Tensor picture = set.picture(i);
    EXPECT_EQ(picture.sizes(), (at::IntArrayRef{512, 512, 1}));
    EXPECT_EQ(picture.max().item<int64_t>(), 255) << "stretched from its values in HU";
    EXPECT_GT(picture.to(at::kFloat).std().item<float>(), 20);
  }
}

TEST(PreparePictures, RefusePathsAndLinksOutOfTheFolder) {
  const fs::path root = test::scratch_folder(), folder = root / "set";
  write_png(folder / "a.png", flat(1, 10));
  write_png(root / "secret.png", flat(1, 20));
  const auto refusal = [&](const std::string& more = "") {
    try {
      read_picture_source(config_of(folder, more));
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  for (const std::string path : {"../secret.png", "/etc/passwd", "b/../../secret.png"}) {
    const std::string named = "the path \"" + path + "\" does not lie in the data set's folder";
    write_text_atomically(folder / "labels.csv", "path,label\na.png,x\n" + path + ",y\n");
    EXPECT_THAT(refusal("format = \"csv\""), HasSubstr("labels.csv: line 3: " + named));
    write_text_atomically(folder / "train.txt", "a.png 0\n\n" + path + " 1\n");
    EXPECT_THAT(refusal("format = \"lists\""), HasSubstr("train.txt: line 3: " + named));
  }
  fs::create_symlink("../secret.png", folder / "link.png");
  const std::string out = "link.png: is a symbolic link, or lies behind one, that leads out";
  write_text_atomically(folder / "labels.csv", "path,label\na.png,x\nlink.png,y\n");
  EXPECT_THAT(refusal("format = \"csv\""), HasSubstr(out));
  EXPECT_EQ(refusal("format = \"csv\"\nallow_links = true"), "accepted");
  write_png(folder / "classes/x/1.png", flat(1, 10));
  fs::create_symlink(root / "secret.png", folder / "classes/x/link.png");
  EXPECT_THAT(test::message_of([&] { read_picture_source(config_of(folder / "classes")); }),
              HasSubstr("x/" + out));
}

TEST(ReadClassifiedPicture, TakesSixteenBitsByTheirFullScaleOrStretched) {
  const fs::path path = test::scratch_folder() / "deep.png";
  at::Tensor values = flat(1, 257 * 7, at::kInt);
  values[0][1][1] = 257 * 9;
  write_png(path, values.to(at::kUInt16));
  EXPECT_EQ(read_classified_picture(path)[0][0].item<int64_t>(), 7);
  EXPECT_EQ(read_classified_picture(path, -1, "stretch")[1][1].item<int64_t>(), 255);
}

// A PNG of 2 x 1 pixels with 8 bits per channel.
std::string tiny_png(char colour_type, const std::string& channels, const std::string& more = "") {
  return test::png_file(1, 2, 8, colour_type, std::string(1, '\0') + channels, more);
}

TEST(ReadClassifiedPicture, DropsAlphaOfGreyColourAndPalettes) {
  const fs::path folder = test::scratch_folder();
  write_text_atomically(folder / "grey.png", tiny_png(4, std::string("\x64\x80\x32\x00", 4)));
  const at::Tensor grey = with_channels(read_classified_picture(folder / "grey.png"), 1);
  EXPECT_TRUE(grey.equal(at::tensor({100, 50}, at::kByte).view({1, 2, 1})));

  const at::Tensor colours = at::tensor({10, 20, 30, 40, 50, 60}, at::kByte).view({1, 2, 3});
  write_text_atomically(folder / "colour.png",
                        tiny_png(6, std::string("\x0a\x14\x1e\x00\x28\x32\x3c\xff", 8)));
  EXPECT_TRUE(read_classified_picture(folder / "colour.png").equal(colours));
  write_text_atomically(folder / "palette.png",
                        tiny_png(3,
                                 std::string("\x01\x00", 2),
                                 test::png_chunk("PLTE", "\x28\x32\x3c\x0a\x14\x1e") +
                                     test::png_chunk("tRNS", std::string("\x80\x00", 2))));
  EXPECT_TRUE(read_classified_picture(folder / "palette.png").equal(colours));
}

TEST(ReadClassifiedPicture, TakesCmykForColour) {
  const at::Tensor read = read_classified_picture(test::repository_file("data/pictures/cmyk.jpg"));
  EXPECT_EQ(read.sizes(), (at::IntArrayRef{16, 32, 3}));
  EXPECT_GT(read[2][2][0].item<int64_t>(), 250) << "red";
}

TEST(ReadClassifiedPicture, TurnsPhotographsUprightFromAllEightOrientations) {
  const fs::path folder = test::scratch_folder();
  // No two of the eight ways to hold it look the same; blocks of 8 survive JPEG.
  at::Tensor values = at::zeros({1, 16, 24}, at::kByte);
  values.slice(1, 0, 8).fill_(240);
  values.slice(1, 8, 16).slice(2, 0, 8).fill_(120);
  write_png(folder / "as_stored.jpg", values);
  const std::string jpeg = read_text(folder / "as_stored.jpg");
  const at::Tensor plain = read_classified_picture(folder / "as_stored.jpg");
  ASSERT_EQ(plain.sizes(), (at::IntArrayRef{16, 24, 1}));
  const auto turned = plain.transpose(0, 1);
  // What the standard says: where the stored row 0 and column 0 belong.
  const std::vector<at::Tensor> as_shown{plain,                // top, left
                                         plain.flip(1),        // top, right
                                         plain.flip({0, 1}),   // bottom, right
                                         plain.flip(0),        // bottom, left
                                         turned,               // left, top
                                         turned.flip(1),       // right, top
                                         turned.flip({0, 1}),  // right, bottom
                                         turned.flip(0)};      // left, bottom
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const fs::path path = folder / "held.jpg";
    write_text_atomically(path, jpeg);
    test::set_exif_orientation(path, orientation);
    const at::Tensor& expected = as_shown.at(static_cast<size_t>(orientation - 1));
    const at::Tensor read = read_classified_picture(path);
    EXPECT_EQ(read.sizes(), expected.sizes()) << orientation;
    EXPECT_TRUE(read.equal(expected)) << orientation;
    EXPECT_TRUE(reoriented(plain.permute({2, 0, 1}), upright(orientation))
                    .equal(expected.permute({2, 0, 1})))
        << orientation;
  }
}

TEST(PreparePictures, ReadsTheRealSets) {
  VIREO_REQUIRE_REAL_DATA(chest, "pneumoniamnist");
  VIREO_REQUIRE_REAL_DATA(skin, "isic2017_256_classification");
  PictureDataConfig config = config_of(chest, "classes = [\"normal\", \"pneumonia\"]");
  config.cache = test::scratch_folder() / "chest";
  const PictureSet set = prepared(config);
  EXPECT_EQ(set.training_items(0).size(), 4708u);
  EXPECT_EQ(set.validation_items(0).size(), 524u);
  EXPECT_EQ(set.test_items().size(), 624u);
  EXPECT_EQ(set.channels, 1);
  const PictureSource lists = read_picture_source(config_of(skin, "format = \"lists\""));
  const PictureSource table =
      read_picture_source(config_of(skin, "label_columns = [\"melanoma\"]"));
  EXPECT_EQ(lists.set.items.size(), 1074u);
  EXPECT_EQ(table.set.training_items(0).size(), 959u);
  EXPECT_EQ(table.set.validation_items(0).size(), 115u);
  EXPECT_TRUE(table.problems.empty());
}

}  // namespace
}  // namespace vireo
