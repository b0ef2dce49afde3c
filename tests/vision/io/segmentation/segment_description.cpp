#include "vision/io/segmentation/segment_description.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/core/error.h"
#include "vision/io/segmentation/dcmqi_metadata.h"
#include "vision/io/segmentation/dicom_color.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

TEST(SegmentDescription, KnowsOrgansByTheNamesThatDataSetsUse) {
  const CodedConcept structure{"123037004", "SCT", "Anatomical Structure"};
  const auto segments = describe_segments({"Liver", "kidney_left", "Right Kidney", "RV", "lungs"});
  for (const SegmentDescription& segment : segments) EXPECT_EQ(segment.category, structure);
  EXPECT_EQ(segments[0].value, 1);
  EXPECT_EQ(segments[0].name, "Liver");
  EXPECT_EQ(segments[0].type, (CodedConcept{"10200004", "SCT", "Liver"}));
  EXPECT_TRUE(segments[0].type_modifier.empty());
  EXPECT_EQ(segments[1].type, (CodedConcept{"64033007", "SCT", "Kidney"}));
  EXPECT_EQ(segments[1].type_modifier, (CodedConcept{"7771000", "SCT", "Left"}));
  EXPECT_EQ(segments[2].type_modifier, (CodedConcept{"24028007", "SCT", "Right"}));
  EXPECT_EQ(segments[3].type, (CodedConcept{"53085002", "SCT", "Right ventricle"}));
  EXPECT_EQ(segments[4].type.meaning, "Lung");
  EXPECT_EQ(segments[4].value, 5);
  EXPECT_EQ(segments[4].color, label_color(5));
  EXPECT_EQ(describe_segment(1, "left ventricle").type_modifier, CodedConcept{});
  EXPECT_EQ(describe_segment(1, "Tumour").category.value, "49755003");
  EXPECT_EQ(describe_segment(1, "pancreas").type.meaning, "Pancreas");
  const CodedConcept tissue{"85756007", "SCT", "Tissue"};
  EXPECT_EQ(describe_segment(1, "anterior").category, tissue);
  EXPECT_EQ(describe_segment(1, "anterior").type, tissue);
  EXPECT_EQ(describe_segment(1, "left").type, tissue);
}

TEST(SegmentDescription, GivesColoursAsCielabOfTheProfileConnectionSpace) {
  const auto expect_lab = [](Color rgb, double l, double a, double b) {
    const std::array<uint16_t, 3> lab = dicom_lab(rgb);
    EXPECT_NEAR(lab[0] / 655.35, l, 0.01);
    EXPECT_NEAR(lab[1] / 257.0 - 128, a, 0.01);
    EXPECT_NEAR(lab[2] / 257.0 - 128, b, 0.01);
  };
  // In double precision from the primaries of sRGB, Bradford's matrix and the ICC's D50.
  expect_lab({255, 255, 255}, 100, 0, 0);
  expect_lab({0, 0, 0}, 0, 0, 0);
  expect_lab({255, 0, 0}, 54.2896, 80.8144, 69.8897);
  expect_lab({0, 255, 0}, 87.8194, -79.2749, 80.9927);
  expect_lab({0, 0, 255}, 29.5659, 68.2862, -112.0329);
  expect_lab({185, 102, 83}, 52.7778, 32.7024, 26.1597);
}

Json sound_document() {
  return Json::parse(R"({
    "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/seg-schema.json#",
    "ContentCreatorName": "Reader1",
    "SeriesDescription": "Organs",
    "SeriesNumber": "301",
    "InstanceNumber": "1",
    "BodyPartExamined": "ABDOMEN",
    "segmentAttributes": [[
      {"labelID": 3,
       "SegmentDescription": "Left kidney",
       "SegmentAlgorithmType": "AUTOMATIC",
       "SegmentAlgorithmName": "Vireo",
       "SegmentedPropertyCategoryCodeSequence":
         {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT",
          "CodeMeaning": "Anatomical Structure"},
       "SegmentedPropertyTypeCodeSequence":
         {"CodeValue": "64033007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Kidney"},
       "SegmentedPropertyTypeModifierCodeSequence":
         {"CodeValue": "7771000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Left"},
       "recommendedDisplayRGBValue": [185, 102, 83]},
      {"labelID": 7,
       "SegmentLabel": "a cyst",
       "SegmentAlgorithmType": "MANUAL",
       "SegmentedPropertyCategoryCodeSequence":
         {"CodeValue": "49755003", "CodingSchemeDesignator": "SCT",
          "CodeMeaning": "Morphologically Abnormal Structure"},
       "SegmentedPropertyTypeCodeSequence":
         {"CodeValue": "367643001", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Cyst"},
       "AnatomicRegionSequence":
         {"CodeValue": "64033007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Kidney"},
       "TrackingIdentifier": "cyst 1",
       "TrackingUniqueIdentifier": "1.2.3.4"}
    ]]})");
}

SegmentationMetadata read(const Json& document) {
  const fs::path path = test::scratch_folder() / "segments.json";
  std::ofstream(path) << document.dump(1);
  return read_dcmqi_metadata(path);
}

TEST(DcmqiMetadata, IsReadWhole) {
  const SegmentationMetadata metadata = read(sound_document());
  EXPECT_EQ(metadata.series_description, "Organs");
  EXPECT_EQ(metadata.series_number, 301);
  EXPECT_EQ(metadata.content_creator_name, "Reader1");
  EXPECT_EQ(metadata.content_label, "SEGMENTATION");
  EXPECT_EQ(metadata.body_part_examined, "ABDOMEN");
  ASSERT_EQ(metadata.segments.size(), 2U);
  const SegmentDescription& kidney = metadata.segments[0];
  EXPECT_EQ(kidney.value, 3);
  EXPECT_EQ(kidney.name, "Left kidney");
  EXPECT_EQ(kidney.algorithm, SegmentDescription::Algorithm::kAutomatic);
  EXPECT_EQ(kidney.algorithm_name, "Vireo");
  EXPECT_EQ(kidney.type_modifier.meaning, "Left");
  EXPECT_EQ(kidney.color, (Color{185, 102, 83}));
  const SegmentDescription& cyst = metadata.segments[1];
  EXPECT_EQ(cyst.name, "a cyst");
  EXPECT_EQ(cyst.region.meaning, "Kidney");
  EXPECT_EQ(cyst.color, label_color(7));
  EXPECT_EQ(cyst.tracking_uid, "1.2.3.4");
  EXPECT_EQ(cyst.algorithm, SegmentDescription::Algorithm::kManual);
}

// What reading says after a JSON patch (RFC 6902) was applied to the sound document.
std::string refusal(const char* patch) {
  try {
    read(sound_document().patch(Json::parse(patch)));
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr("segments.json: "));
    return error.what();
  }
  return "accepted";
}

TEST(DcmqiMetadata, ErrorsNameTheField) {
  const std::string first = "segmentAttributes[0][0]";
  EXPECT_THAT(refusal(R"([{"op":"remove","path":"/segmentAttributes"}])"),
              HasSubstr("segmentAttributes: is missing"));
  EXPECT_THAT(refusal(R"([{"op":"replace","path":"/segmentAttributes","value":[]}])"),
              HasSubstr("describes no segment"));
  EXPECT_THAT(refusal(R"([{"op":"replace","path":"/segmentAttributes/0","value":{}}])"),
              HasSubstr("segmentAttributes[0]: is not a list"));
  EXPECT_THAT(refusal(R"([{"op":"move","from":"/segmentAttributes/0/0/labelID",
                           "path":"/segmentAttributes/0/0/LabelID"}])"),
              HasSubstr(first + ".labelID: is missing; there is \"LabelID\", but case matters"));
  EXPECT_THAT(refusal(R"([{"op":"add","path":"/segmentAttributes/0/0/Colour","value":1}])"),
              HasSubstr(first + ".Colour: is not a field of dcmqi's schema"));
  EXPECT_THAT(refusal(R"([{"op":"add","path":"/Series","value":1}])"),
              HasSubstr("Series: is not a field of dcmqi's schema"));
  EXPECT_THAT(refusal(R"([{"op":"replace","path":"/SeriesNumber","value":"x"}])"),
              HasSubstr("SeriesNumber: is \"x\"; a whole number was expected"));
  const std::string long_text =
      R"([{"op":"add","path":"/SeriesDescription","value":")" + std::string(65, 'x') + R"("}])";
  EXPECT_THAT(refusal(long_text.c_str()),
              HasSubstr("SeriesDescription: is longer than 64 characters"));
  EXPECT_THAT(refusal(R"([{"op":"add","path":"/ContentCreatorName","value":"a\\b"}])"),
              HasSubstr("ContentCreatorName: holds a backslash"));
  EXPECT_THAT(refusal(R"([{"op":"add","path":"/ContentLabel","value":"my label"}])"),
              HasSubstr("ContentLabel: is \"my label\"; DICOM allows capitals"));
  EXPECT_THAT(refusal(R"([{"op":"remove",
          "path":"/segmentAttributes/0/0/SegmentedPropertyTypeCodeSequence/CodeMeaning"}])"),
              HasSubstr(first + ".SegmentedPropertyTypeCodeSequence.CodeMeaning: is missing"));
  EXPECT_THAT(refusal(R"([{"op":"remove",
          "path":"/segmentAttributes/0/0/SegmentedPropertyCategoryCodeSequence"}])"),
              HasSubstr(first + ".SegmentedPropertyCategoryCodeSequence: is missing"));
  EXPECT_THAT(refusal(R"([{"op":"replace","path":"/segmentAttributes/0/0/SegmentAlgorithmType",
                           "value":"AUTO"}])"),
              HasSubstr("SegmentAlgorithmType: is \"AUTO\"; AUTOMATIC, SEMIAUTOMATIC or MANUAL"));
  EXPECT_THAT(
      refusal(R"([{"op":"replace","path":"/segmentAttributes/0/0/recommendedDisplayRGBValue",
                   "value":[1,2,256]}])"),
      HasSubstr("recommendedDisplayRGBValue: is [1,2,256]; three whole numbers 0..255"));
  EXPECT_THAT(refusal(R"([{"op":"replace","path":"/segmentAttributes/0/1/labelID","value":3}])"),
              AllOf(HasSubstr("label 3 is described twice"), HasSubstr("a cyst")));
  EXPECT_THAT(refusal(R"([{"op":"replace","path":"/segmentAttributes/0/1/labelID","value":0}])"),
              HasSubstr("label 0 (a cyst) is outside 1..65535"));
  EXPECT_THAT(
      refusal(R"([{"op":"remove","path":"/segmentAttributes/0/1/TrackingUniqueIdentifier"}])"),
      HasSubstr("label 7: has a tracking identifier without a tracking UID"));
}

TEST(DcmqiMetadata, RefusesWhatIsNoJson) {
  const fs::path path = test::scratch_folder() / "segments.json";
  std::ofstream(path) << "{\"segmentAttributes\": [[{]]}";
  try {
    read_dcmqi_metadata(path);
    FAIL() << "accepted";
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), StartsWith(path.string() + ": is not valid JSON"));
  }
}

TEST(SegmentDescription, IsRefusedWhereDicomCouldNotHoldIt) {
  const auto fault = [](auto&& change) -> std::string {
    std::vector<SegmentDescription> segments = describe_segments({"liver"});
    change(segments[0]);
    try {
      check_segments("here", segments);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(fault([](auto&) {}), "accepted");
  EXPECT_EQ(fault([](auto& s) { s.name = std::string(64, 'x'); }), "accepted");
  EXPECT_THAT(fault([](auto& s) { s.name = std::string(65, 'x'); }),
              HasSubstr("here: label 1: the name is longer than 64 characters"));
  EXPECT_THAT(fault([](auto& s) { s.name = "a\\b"; }), HasSubstr("holds a backslash"));
  EXPECT_THAT(fault([](auto& s) { s.name.clear(); }), HasSubstr("the name is empty"));
  EXPECT_THAT(fault([](auto& s) { s.type = {}; }), HasSubstr("the type code is missing"));
  EXPECT_THAT(fault([](auto& s) {
                s.region = {"1", "", "x"};
              }),
              HasSubstr("the coding scheme of the anatomic region code is empty"));
  EXPECT_THAT(fault([](auto& s) { s.type.value = std::string(17, '1'); }),
              HasSubstr("the value of the type code is longer than 16"));
  EXPECT_THAT(fault([](auto& s) {
                s.region_modifier = {"1", "SCT", "x"};
              }),
              HasSubstr("without an anatomic region"));
}

}  // namespace
}  // namespace vireo
