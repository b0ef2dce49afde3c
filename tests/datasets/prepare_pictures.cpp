#include "datasets/prepare_pictures.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "datasets/picture_reader.h"
#include "datasets/picture_source.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
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

TEST(ReadClassifiedPicture, TakesSixteenBitsByTheirFullScaleOrStretched) {
  const fs::path path = test::scratch_folder() / "deep.png";
  at::Tensor values = flat(1, 257 * 7, at::kInt);
  values[0][1][1] = 257 * 9;
  write_png(path, values.to(at::kUInt16));
  EXPECT_EQ(read_classified_picture(path)[0][0].item<int64_t>(), 7);
  EXPECT_EQ(read_classified_picture(path, -1, "stretch")[1][1].item<int64_t>(), 255);
}

TEST(ReadClassifiedPicture, TurnsPhotographsUpright) {
  const fs::path folder = test::scratch_folder();
  at::Tensor values = flat(1, 0);
  values.slice(1, 0, 2).fill_(250);
  write_png(folder / "as_stored.jpg", values);
  const std::string jpeg = read_text(folder / "as_stored.jpg");
  // Orientation 6: the stored top is the right-hand side.
  const std::string exif = std::string(
      "\xff\xe1\x00\x22"
      "Exif\0\0MM\0\x2a\0\0\0\x08\0\x01"
      "\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
      36);
  write_text_atomically(folder / "turned.jpg", jpeg.substr(0, 2) + exif + jpeg.substr(2));
  const at::Tensor plain = read_classified_picture(folder / "as_stored.jpg");
  const at::Tensor turned = read_classified_picture(folder / "turned.jpg");
  EXPECT_EQ(plain.sizes(), (at::IntArrayRef{4, 6, 1}));
  ASSERT_EQ(turned.sizes(), (at::IntArrayRef{6, 4, 1}));
  EXPECT_TRUE(turned.equal(plain.transpose(0, 1).flip(1)));
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
