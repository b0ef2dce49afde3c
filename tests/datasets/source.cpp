#include "datasets/source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/datasets/small_sets.h"
#include "tests/support/test_data.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

DataConfig config_for(const fs::path& folder, const std::string& more = "") {
  auto table = ConfigTable::from_text("[data]\nfolder = \"" + folder.string() + "\"\n" + more,
                                      "config.toml");
  return DataConfig::from_table(table.table("data"), "runs/test");
}

std::string refusal(const DataConfig& config) {
  try {
    read_source(config);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::vector<std::string> names(const DatasetSource& source) {
  std::vector<std::string> result;
  for (const auto& one : source.cases) result.push_back(one.name);
  return result;
}

std::vector<std::string> problems(const DatasetSource& source) {
  std::vector<std::string> result;
  for (const auto& one : source.problems)
    result.push_back(one.path.lexically_relative(source.folder).string() + ": " + one.reason);
  return result;
}

std::vector<std::string> label_names(const DatasetSource& source) {
  std::vector<std::string> result;
  for (const auto& one : source.labels) result.push_back(one.name);
  return result;
}

TEST(NnunetSource, ListsCasesChannelsAndClasses) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 2);
  test::write_text(folder / "imagesTr" / "._case_0_0000.nii.gz", "left by a Mac");
  const DatasetSource source = read_source(config_for(folder));
  EXPECT_EQ(source.format, "nnunet");
  EXPECT_EQ(source.name, "Small");
  EXPECT_THAT(source.channel_names, ElementsAre("CT", "PET"));
  EXPECT_THAT(label_names(source), ElementsAre("background", "liver", "tumour"));
  EXPECT_THAT(names(source), ElementsAre("case_0", "case_1"));
  EXPECT_THAT(
      source.cases[1].images,
      ElementsAre(folder / "imagesTr/case_1_0000.nii.gz", folder / "imagesTr/case_1_0001.nii.gz"));
  EXPECT_EQ(source.cases[1].labels, folder / "labelsTr/case_1.nii.gz");
  EXPECT_THAT(problems(source), IsEmpty());
  EXPECT_THAT(source.folds, IsEmpty());
}

TEST(NnunetSource, ListsEveryMissingPartner) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 3);
  fs::remove(folder / "imagesTr/case_0_0001.nii.gz");
  fs::remove(folder / "labelsTr/case_1.nii.gz");
  fs::rename(folder / "imagesTr/case_2_0001.nii.gz", folder / "imagesTr/case_2_0007.nii.gz");
  fs::copy(folder / "labelsTr/case_0.nii.gz", folder / "labelsTr/stranger.nii.gz");
  test::write_text(folder / "imagesTr/case_3_0000.mha", "");
  EXPECT_THAT(problems(read_source(config_for(folder))),
              ::testing::UnorderedElementsAre(
                  "imagesTr/case_0_0001.nii.gz: is missing (channel PET)",
                  "labelsTr/case_1.nii.gz: is missing; the case has images",
                  "imagesTr/case_2_0001.nii.gz: is missing (channel PET)",
                  HasSubstr("case_2_0007.nii.gz: is channel 7, but dataset.json's channel_names"),
                  "labelsTr/stranger.nii.gz: has no images in imagesTr",
                  HasSubstr("case_3_0000.mha: does not end in \".nii.gz\"")));
}

TEST(NnunetSource, ChecksTheNumberOfTrainingCases) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 2);
  for (const char* file :
       {"imagesTr/case_1_0000.nii.gz", "imagesTr/case_1_0001.nii.gz", "labelsTr/case_1.nii.gz"})
    fs::remove(folder / file);
  EXPECT_THAT(problems(read_source(config_for(folder))),
              ElementsAre("dataset.json: field \"numTraining\" is 2, but 1 cases were found"));
}

TEST(NnunetSource, TakesSplitsAndIgnoreLabel) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 2);
  test::write_text(folder / "splits_final.json", R"([{"train": ["case_0"], "val": ["case_1"]}])");
  test::write_text(folder / "dataset.json",
                   R"({"channel_names": {"0": "CT", "1": "PET"}, "file_ending": ".nii.gz",
                      "labels": {"background": 0, "ignore": 2, "liver": 1}, "numTraining": 2})");
  const DatasetSource source = read_source(config_for(folder));
  ASSERT_EQ(source.folds.size(), 1U);
  EXPECT_THAT(source.folds[0].val, ElementsAre("case_1"));
  EXPECT_EQ(source.ignore_value, 2);
  EXPECT_THAT(label_names(source), ElementsAre("background", "liver"));
  test::write_text(folder / "splits_final.json",
                   R"([{"train": ["case_0", "x"], "val": ["case_0"]}])");
  EXPECT_THAT(problems(read_source(config_for(folder))),
              ElementsAre(HasSubstr("\"case_0\" is in both"),
                          HasSubstr("lists the case \"x\", which does not exist")));
}

TEST(NnunetSource, RefusesAFoldWithoutTrainingCases) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 2);
  test::write_text(
      folder / "splits_final.json",
      R"([{"train": ["case_0"], "val": ["case_1"]}, {"train": [], "val": ["case_1"]}])");
  EXPECT_THAT(
      problems(read_source(config_for(folder))),
      ElementsAre("splits_final.json: fold 1: \"train\" lists no cases; every fold needs some "
                  "to train on"));
}

TEST(NnunetSource, KeepsPatientsOfAcdcWholeInSeededFolds) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 8);
  for (int i = 0; i < 8; ++i) {
    const std::string from = "case_" + std::to_string(i);
    const std::string to = "patient00" + std::to_string(i / 2) + (i % 2 ? "_frame01" : "_frame12");
    for (const char* channel : {"_0000", "_0001"})
      fs::rename(folder / "imagesTr" / (from + channel + ".nii.gz"),
                 folder / "imagesTr" / (to + channel + ".nii.gz"));
    fs::rename(folder / "labelsTr" / (from + ".nii.gz"), folder / "labelsTr" / (to + ".nii.gz"));
  }
  const DataConfig config = config_for(folder);
  const auto folds = folds_of(config, read_source(config));
  ASSERT_EQ(folds.size(), 4u) << "as many as patients";
  for (const Fold& fold : folds) {
    ASSERT_EQ(fold.val.size(), 2u);
    EXPECT_EQ(fold.val[0].substr(0, 10), fold.val[1].substr(0, 10));
  }
}

TEST(NnunetSource, RefusesABrokenDescriptionByField) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 1);
  const auto with =
      [&](const std::string& channels, const std::string& labels, const std::string& more = "") {
        test::write_text(folder / "dataset.json",
                         "{\"channel_names\": " + channels + ", \"labels\": " + labels +
                             ", \"file_ending\": \".nii.gz\"" + more + "}");
        return refusal(config_for(folder));
      };
  const std::string channels = R"({"0": "CT", "1": "PET"})",
                    labels = R"({"background": 0, "a": 1})";
  EXPECT_EQ(with(channels, labels, R"(, "unknown": 7)"), "accepted");
  EXPECT_THAT(with(R"({"0": "CT", "2": "PET"})", labels),
              HasSubstr("dataset.json: field \"channel_names\" has 2 entries, but none"));
  EXPECT_THAT(with("[]", labels), HasSubstr("field \"channel_names\" is not an object"));
  EXPECT_THAT(with(channels, R"({"background": 0, "a": [1, 2]})"),
              HasSubstr("field \"labels.a\" is a list: regions"));
  EXPECT_THAT(with(channels, R"({"background": 0, "a": 1.5})"),
              HasSubstr("field \"labels.a\" is not a whole number"));
  EXPECT_THAT(with(channels, R"({"background": 0, "a": 1, "b": 1})"),
              HasSubstr("has the value 1, as another class has"));
  EXPECT_THAT(with(channels, R"({"a": 1, "b": 2})"), HasSubstr("must hold the background"));
  EXPECT_THAT(with(channels, labels, R"(, "numTraining": "many")"),
              HasSubstr("field \"numTraining\" is not a whole number"));
  EXPECT_THAT(with(channels, labels, R"(, "dataset": {"a": {"images": ["../../etc/x.nii.gz",
      "b.nii.gz"], "label": "l.nii.gz"}})"),
              HasSubstr("the path \"../../etc/x.nii.gz\" does not lie in the data set's folder"));
  test::write_text(folder / "dataset.json", "{\"channel_names\": ");
  EXPECT_THAT(refusal(config_for(folder)), HasSubstr("dataset.json: is not valid JSON"));
}

TEST(NnunetSource, RefusesMoreClassesThanEightBitsHold) {
  const fs::path folder = test::scratch_folder();
  test::make_nnunet_set(folder, 1);
  std::string labels = "\"background\": 0";
  for (int i = 1; i < 300; ++i) labels += ", \"c" + std::to_string(i) + "\": " + std::to_string(i);
  test::write_text(folder / "dataset.json",
                   R"({"channel_names": {"0": "CT", "1": "PET"}, "labels": {)" + labels + "}}");
  EXPECT_THAT(refusal(config_for(folder)), HasSubstr("declares 300 classes; at most 255"));
}

TEST(MsdSource, ListsCasesFromTheDescription) {
  const fs::path folder = test::scratch_folder();
  test::make_msd_set(folder, 3);
  const DatasetSource source = read_source(config_for(folder));
  EXPECT_EQ(source.format, "msd");
  EXPECT_THAT(source.channel_names, ElementsAre("T1", "T2"));
  EXPECT_THAT(label_names(source), ElementsAre("background", "head", "tail"));
  EXPECT_THAT(names(source), ElementsAre("scan_0", "scan_1", "scan_2"));
  fs::remove(folder / "labelsTr/scan_1.nii.gz");
  EXPECT_THAT(
      problems(read_source(config_for(folder))),
      ElementsAre(HasSubstr("labelsTr/scan_1.nii.gz: does not exist, but dataset.json lists "
                            "it (training[1])")));
}

TEST(MsdSource, TellsThatNnunetsFirstVersionNamesItsFilesOtherwise) {
  const fs::path folder = test::scratch_folder();
  test::make_msd_set(folder, 1);
  fs::rename(folder / "imagesTr/scan_0.nii.gz", folder / "imagesTr/scan_0_0000.nii.gz");
  EXPECT_THAT(problems(read_source(config_for(folder))),
              ElementsAre(::testing::AllOf(
                  HasSubstr("imagesTr/scan_0.nii.gz: does not exist, but dataset.json lists it"),
                  HasSubstr("; scan_0_0000.nii.gz does: nnU-Net's first version names"))));
}

TEST(MsdSource, ListFilesChooseTheCasesAndPartThem) {
  const fs::path folder = test::scratch_folder();
  test::make_msd_set(folder, 4);
  test::write_text(folder / "train.txt", "scan_2\r\nscan_0.nii.gz\n\n");
  test::write_text(folder / "val.txt", "scan_3\n");
  const DatasetSource source = read_source(config_for(folder));
  EXPECT_THAT(names(source), ElementsAre("scan_0", "scan_2", "scan_3"));
  ASSERT_EQ(source.folds.size(), 1U);
  EXPECT_THAT(source.folds[0].train, ElementsAre("scan_2", "scan_0"));
  EXPECT_THAT(source.folds[0].val, ElementsAre("scan_3"));

  fs::remove(folder / "val.txt");
  EXPECT_THAT(read_source(config_for(folder)).folds, IsEmpty());
  EXPECT_THAT(names(read_source(config_for(folder))), ElementsAre("scan_0", "scan_2"));
  test::write_text(folder / "mine.txt", "scan_1\n");
  EXPECT_THAT(names(read_source(config_for(folder, "train_list = \"mine.txt\""))),
              ElementsAre("scan_1"));
}

TEST(MsdSource, ListsMayNotLeadOutOfTheFolderOrRepeat) {
  const fs::path folder = test::scratch_folder();
  test::make_msd_set(folder, 2);
  test::write_text(folder / "train.txt", "scan_0\n../scan_1\n");
  EXPECT_THAT(refusal(config_for(folder)),
              HasSubstr("train.txt: line 2: \"../scan_1\" is a path; a case name was expected"));
  test::write_text(folder / "train.txt", "scan_0\nscan_0\n");
  EXPECT_THAT(refusal(config_for(folder)), HasSubstr("line 2: \"scan_0\" is listed twice"));
  EXPECT_THAT(refusal(config_for(folder, "train_list = \"../other.txt\"")),
              HasSubstr("the path \"../other.txt\" does not lie in the data set's folder"));
  EXPECT_THAT(refusal(config_for(folder, "train_list = \"/etc/passwd\"")),
              HasSubstr("does not lie in the data set's folder"));
}

TEST(PairsSource, MatchesPicturesAndMasksByName) {
  const fs::path folder = test::scratch_folder();
  test::make_picture_set(folder, 3);
  fs::rename(folder / "masks/nuc_1.png", folder / "masks/nuc_1_segmentation.png");
  const std::string labels = "labels = [\"background\", \"nucleus\"]\n";
  const DatasetSource source = read_source(config_for(folder, labels));
  EXPECT_EQ(source.format, "pairs");
  EXPECT_THAT(names(source), ElementsAre("nuc_0", "nuc_1", "nuc_2"));
  EXPECT_EQ(source.cases[1].labels, folder / "masks/nuc_1_segmentation.png");
  EXPECT_THAT(label_names(source), ElementsAre("background", "nucleus"));

  fs::remove(folder / "masks/nuc_0.png");
  fs::remove(folder / "images/nuc_2.png");
  EXPECT_THAT(problems(read_source(config_for(folder, labels))),
              ElementsAre(HasSubstr("images/nuc_0.png: has no partner in masks/; [data] mask_name"),
                          "masks/nuc_2.png: has no partner in images/"));
}

TEST(PairsSource, IsTakenWhereTheFoldersAreNamed) {
  const fs::path folder = test::scratch_folder();
  test::make_picture_set(folder, 2);
  fs::rename(folder / "images", folder / "photos");
  fs::rename(folder / "masks", folder / "outlines");
  const std::string labels = "labels = [\"background\", \"nucleus\"]\n";
  EXPECT_THAT(refusal(config_for(folder, labels)),
              HasSubstr("others are named by [data] image_folder and mask_folder"));
  const DatasetSource source = read_source(
      config_for(folder, labels + "image_folder = \"photos\"\nmask_folder = \"outlines\"\n"));
  EXPECT_EQ(source.format, "pairs");
  EXPECT_THAT(names(source), ElementsAre("nuc_0", "nuc_1"));
  EXPECT_THAT(source.notes[0], HasSubstr("[data] names its image_folder or mask_folder"));
}

TEST(PairsSource, AsksForTheClasses) {
  const fs::path folder = test::scratch_folder();
  test::make_picture_set(folder, 1);
  EXPECT_THAT(refusal(config_for(folder)), HasSubstr("name them in the configuration"));
}

TEST(Source, SaysWhatItExpectedOfAnUnknownFolder) {
  const fs::path folder = test::scratch_folder();
  EXPECT_THAT(refusal(config_for(folder)), HasSubstr("is no data set that is known. Looked for:"));
  EXPECT_THAT(refusal(config_for(folder / "nowhere")), HasSubstr("nowhere: does not exist"));
  test::write_text(folder / "dataset.json", "{}");
  EXPECT_THAT(refusal(config_for(folder)), HasSubstr("has neither \"channel_names\""));
}

TEST(DataConfig, RefusesWrongKeysByName) {
  EXPECT_THAT([] { config_for("x", "slize_axis = \"z\""); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("did you mean \"slice_axis\"?")));
  EXPECT_THAT([] { config_for("x", "labels = [\"a\", \"b\"]\nlabel_values = [0]"); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("has 1 values for 2 labels")));
  EXPECT_THAT([] { config_for("x", "normalization = [\"best\"]"); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("\"best\" is none of: auto, ct")));
  EXPECT_THAT([] { config_for("x", "spacing_mm = [1, 1]"); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("has 2 elements, must have 3")));
  EXPECT_THAT([] { config_for("x", "label_colors = [\"red\"]"); },
              ::testing::ThrowsMessage<ConfigError>(HasSubstr("write them as \"#rrggbb\"")));
  EXPECT_EQ(config_for("x").cache, "runs/test/prepared");
  EXPECT_NE(config_for("x").recipe(), config_for("x", "spacing_mm = \"median\"").recipe());
}

}  // namespace
}  // namespace vireo
