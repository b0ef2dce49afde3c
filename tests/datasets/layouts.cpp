#include "datasets/layouts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "datasets/mask_names.h"
#include "tests/datasets/small_sets.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"

// Which kind of data set a folder is, and that none reaches out of its folder.
namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

DataConfig config_of(const fs::path& folder, const std::string& more = "") {
  return DataConfig::from_table(
      ConfigTable::from_text("folder = \"" + folder.string() + "\"\n" + more, "test"),
      folder.string() + "_run");
}

std::string refusal(const fs::path& folder, const std::string& more = "") {
  return test::message_of([&] { read_source(config_of(folder, more)); });
}

std::string problems(const fs::path& folder, const std::string& more = "") {
  std::string text;
  for (const Problem& problem : read_source(config_of(folder, more)).problems)
    text += problem.path.lexically_relative(folder).string() + ": " + problem.reason + "\n";
  return text;
}

void touch(const fs::path& path) {
  test::write_text(path, "");
}

const std::string kTwo = "labels = [\"background\", \"nucleus\"]\n";

TEST(Layouts, AreRecognisedWithTheirReason) {
  const fs::path root = test::scratch_folder();
  const auto make = [&](const char* name, std::initializer_list<const char*> files) {
    for (const char* file : files) touch(root / name / file);
    return root / name;
  };
  test::make_nnunet_set(root / "nnunet", 1);
  test::make_msd_set(root / "msd", 1);
  const std::tuple<fs::path, const char*, const char*> sets[] = {
      {root / "nnunet", "nnunet", "dataset.json with nnU-Net's channel_names"},
      {root / "msd", "msd", "dataset.json with the Decathlon's modality"},
      {make("msd_plain", {"imagesTr/a.nii.gz", "labelsTr/a.nii.gz"}),
       "msd",
       "without a dataset.json"},
      {make("synapse", {"train_npz/case0005_slice000.npz", "test_vol_h5/case0001.npy.h5"}),
       "arrays",
       "train_npz/case0005_slice000.npz, test_vol_h5/case0001.npy.h5"},
      {make("acdc_h5", {"ACDC_training_slices/patient001_frame01_slice_1.h5"}),
       "arrays",
       "ACDC_training_slices/"},
      {make("ssl4mis", {"data/slices/patient001_frame01_slice_1.h5", "data/patient001_frame01.h5"}),
       "arrays",
       "data/slices/patient001_frame01_slice_1.h5, data/patient001_frame01.h5"},
      {make("ssl4mis_data", {"slices/patient001_frame01_slice_1.h5", "patient001_frame01.h5"}),
       "arrays",
       "slices/patient001_frame01_slice_1.h5, patient001_frame01.h5"},
      {make("acdc_parts", {"training/patient001/Info.cfg", "testing/patient101/Info.cfg"}),
       "acdc",
       "training/ with folders of patients with Info.cfg"},
      {make("acdc", {"patient001/Info.cfg", "patient001/patient001_frame01.nii.gz"}),
       "acdc",
       "folders of patients with Info.cfg"},
      {make("isic",
            {"ISIC-2017_Training_Data/a.jpg", "ISIC-2017_Training_Part1_GroundTruth/b.png"}),
       "isic",
       "ISIC-2017_Training_Data/ with ISIC-2017_Training_Part1_GroundTruth/"},
      {make("isic_flat", {"ISIC_0000001.jpg", "ISIC_0000001_segmentation.png"}),
       "isic",
       "ISIC_..._segmentation.png beside the pictures"},
      {make("kvasir", {"images/a.jpg", "masks/a.jpg", "kavsir_bboxes.json"}),
       "kvasir",
       "images/ and masks/ with kavsir_bboxes.json"},
      {make("cvc", {"PNG/Original/1.png", "PNG/Ground Truth/1.png"}),
       "cvc",
       "PNG/Original/ with PNG/Ground Truth/"},
      {make("busi", {"benign/benign (1).png", "benign/benign (1)_mask.png"}),
       "busi",
       "benign/ with masks beside the pictures"},
      {make("glas", {"testA_1.bmp", "testA_1_anno.bmp"}), "glas", "testA_1_anno.bmp beside its"},
      {make("pairs", {"images/a.png", "gt/a.png"}), "pairs", "images/ with gt/"},
      {make("parts", {"train/images/a.png", "train/masks/a.png"}), "pairs", "train/ with pictures"},
      {make("chase", {"Image_01L.jpg", "Image_01L_1stHO.png", "Image_01L_2ndHO.png"}),
       "pairs",
       "pictures with masks beside them"}};
  for (const auto& [folder, name, reason] : sets) {
    const auto [layout, why] = source::recognise(folder);
    EXPECT_EQ(layout->name(), name) << folder;
    EXPECT_THAT(why, HasSubstr(reason));
  }
}

TEST(Layouts, OfAnUnknownFolderSayWhatWasLookedForAndFound) {
  const fs::path folder = test::scratch_folder();
  touch(folder / "a.txt");
  touch(folder / "Kvasir-SEG/images/a.jpg");
  touch(folder / "Kvasir-SEG/masks/a.jpg");
  touch(folder / "Kvasir-SEG/kavsir_bboxes.json");
  const std::string message = refusal(folder);
  EXPECT_THAT(message, StartsWith(folder.string() + ": is no data set that is known. Looked for:"));
  for (const source::Layout& layout : source::layouts())
    EXPECT_THAT(message, HasSubstr("\n  " + layout.name() + ": " + layout.expected));
  EXPECT_THAT(message, HasSubstr("Found: 1 folder (Kvasir-SEG/) and 1 file (a.txt)"));
  EXPECT_THAT(message, HasSubstr("Kvasir-SEG/ in it looks like \"kvasir\": give that folder as"));
}

TEST(Layouts, ThatCannotBeToldApartAreBothNamed) {
  const fs::path folder = test::scratch_folder();
  test::make_msd_set(folder, 1);
  test::make_picture_set(folder, 1);
  EXPECT_THAT(refusal(folder),
              HasSubstr("can be read as \"msd\" (dataset.json with the Decathlon's modality or "
                        "training) and as \"pairs\" (images/ with masks/). Say which: [data] "
                        "format = \"msd\", or --format"));
  EXPECT_EQ(read_source(config_of(folder, "format = \"msd\"")).format, "msd");
  EXPECT_EQ(read_source(config_of(folder, "format = \"pairs\"\n" + kTwo)).format, "pairs");
}

TEST(MaskNames, TakeEndingsBeginningsNumbersAndPatterns) {
  using source::MaskNames;
  const std::set<std::string> pictures = {"a", "a_1", "benign (1)", "train_1"};
  const auto match = [&](const std::string& name, const std::string& pattern = "") {
    const auto found = MaskNames(pattern).match(name, pictures);
    return found ? found->picture + "|" + found->kind : "none";
  };
  EXPECT_EQ(match("a"), "a|");
  EXPECT_EQ(match("a_1"), "a_1|");
  EXPECT_EQ(match("a_1_mask"), "a_1|_mask");
  EXPECT_EQ(match("a_mask_1"), "a|_mask");
  EXPECT_EQ(match("a_mask-12"), "a|_mask");
  EXPECT_EQ(match("a_mask (2)"), "a|_mask");
  EXPECT_EQ(match("benign (1)_mask_1"), "benign (1)|_mask");
  EXPECT_EQ(match("mask_a"), "a|mask_");
  EXPECT_EQ(match("train_1_anno"), "train_1|_anno");
  EXPECT_EQ(match("a_2ndHO"), "a|_2ndho");
  EXPECT_EQ(match("b_mask"), "none");
  EXPECT_EQ(match("a_x"), "none");
  EXPECT_EQ(match("a_x", "{}_x"), "a|{}_x");
  EXPECT_EQ(match("a_x_3", "{}_x"), "a|{}_x");
  EXPECT_EQ(match("L-a_1-any", "L-{}-*"), "a_1|L-{}-");
  EXPECT_EQ(match("a_1zz", "{}*"), "a_1|{}");
  EXPECT_EQ(match("a_mask", "{}_x"), "none");
  EXPECT_TRUE(MaskNames::is_second_observer("_2ndho"));
}

TEST(EnclosedPaths, OfDatasetJsonAreNamedByTheirField) {
  const fs::path root = test::scratch_folder();
  test::make_msd_set(root / "msd", 1);
  test::make_nnunet_set(root / "nnunet", 1);
  for (const char* path : {"../../etc/passwd", "/etc/passwd", "imagesTr/../../secret.nii.gz"}) {
    const std::string named =
        std::string("the path \"") + path + "\" does not lie in the data set's";
    test::write_text(
        root / "msd/dataset.json",
        std::string(R"({"modality": {"0": "T1"}, "labels": {"0": "background", "1": "a"},
                        "training": [{"image": "imagesTr/scan_0.nii.gz", "label": ")") +
            path + "\"}]}");
    EXPECT_THAT(refusal(root / "msd"),
                AllOf(HasSubstr("dataset.json: field \"training[0].label\": "), HasSubstr(named)));
    test::write_text(
        root / "nnunet/dataset.json",
        std::string(R"({"channel_names": {"0": "T1"}, "labels": {"background": 0, "a": 1},
                        "dataset": {"x": {"images": [")") +
            path + R"("], "label": "l.nii.gz"}}})");
    EXPECT_THAT(
        refusal(root / "nnunet"),
        AllOf(HasSubstr("dataset.json: field \"dataset.x.images[0]\": "), HasSubstr(named)));
  }
}

TEST(EnclosedPaths, OfListsAreNamedByTheirLine) {
  const fs::path folder = test::scratch_folder();
  test::make_picture_set(folder, 2);
  for (const char* name : {"../nuc_0", "/etc/passwd", "a/../../b"}) {
    test::write_text(folder / "train.txt", std::string("nuc_1\n") + name + "\n");
    EXPECT_THAT(
        refusal(folder, kTwo),
        HasSubstr(std::string("train.txt: line 2: \"") + name + "\" is a path; a case name"));
  }
  fs::remove(folder / "train.txt");
  for (const char* key : {"train_list", "image_folder", "mask_folder"})
    for (const char* path : {"../other", "/etc"})
      EXPECT_THAT(refusal(folder, kTwo + key + " = \"" + path + "\"\n"),
                  HasSubstr(std::string("[data] ") + key + ": the path \"" + path +
                            "\" does not lie in the"));
  test::write_text(folder / "splits_final.json",
                   R"([{"train": ["../../etc/passwd"], "val": ["nuc_0"]}])");
  EXPECT_THAT(problems(folder, kTwo),
              HasSubstr("lists the case \"../../etc/passwd\", which does not exist"));
}

TEST(EnclosedPaths, BehindLinksAreRefusedUnlessAllowed) {
  const fs::path root = test::scratch_folder(), folder = root / "set",
                 elsewhere = root / "elsewhere";
  test::make_picture_set(folder, 3);
  fs::create_directories(elsewhere);
  fs::rename(folder / "masks/nuc_0.png", elsewhere / "nuc_0.png");
  fs::create_symlink(elsewhere / "nuc_0.png", folder / "masks/nuc_0.png");
  fs::rename(folder / "images/nuc_1.png", folder / "inside.png");
  fs::create_symlink("../inside.png", folder / "images/nuc_1.png");
  EXPECT_THAT(
      problems(folder, kTwo),
      AllOf(StartsWith("masks/nuc_0.png: is a symbolic link, or lies behind one, that leads "
                       "out of the data set's folder, to " +
                       fs::canonical(elsewhere).string()),
            HasSubstr("set [data] allow_links = true"),
            Not(HasSubstr("nuc_1"))));
  EXPECT_EQ(problems(folder, kTwo + "allow_links = true\n"), "");

  // A whole folder, and a list.
  fs::rename(folder / "images", elsewhere / "images");
  fs::create_directory_symlink(elsewhere / "images", folder / "images");
  EXPECT_THAT(problems(folder, kTwo),
              HasSubstr("images/nuc_2.png: is a symbolic link, or lies behind"));
  test::write_text(elsewhere / "list", "secret\n");
  fs::create_symlink(elsewhere / "list", folder / "train.txt");
  EXPECT_THAT(refusal(folder, kTwo),
              AllOf(HasSubstr("train.txt: is a symbolic link"), Not(HasSubstr("secret"))));
  // The set's own folder may be a link.
  fs::create_directory_symlink(folder, root / "link");
  fs::remove(folder / "train.txt");
  fs::remove(folder / "images");
  fs::rename(elsewhere / "images", folder / "images");
  fs::remove(folder / "masks/nuc_0.png");
  fs::rename(elsewhere / "nuc_0.png", folder / "masks/nuc_0.png");
  EXPECT_EQ(problems(root / "link", kTwo), "");
}

}  // namespace
}  // namespace vireo
