#include "vision/io/segmentation/source_attributes.h"

#include <functional>
#include <memory>
#include <string>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_segments.h"
#include "tests/support/made_source.h"
#include "tests/support/test_data.h"
#include "vision/io/segmentation/dicom_seg.h"

// What is taken over from the source, by the objects that are written with it.
namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// Changes the header of the file that writers read again.
void change_header(const DicomSeries& source, const std::function<void(DcmDataset&)>& change) {
  const fs::path path = source.first_file().path;
  DcmFileFormat file;
  ASSERT_TRUE(file.loadFile(path.c_str()).good());
  change(*file.getDataset());
  ASSERT_TRUE(file.saveFile(path.c_str()).good());
}

// The SEG of a source whose header was changed, and what was warned of.
struct Written {
  DcmFileFormat file;
  std::string warnings, errors;

  std::string text(const DcmTagKey& tag) {
    OFString value;
    if (file.getDataset()->findAndGetOFStringArray(tag, value).bad()) return "missing";
    return value.c_str();
  }
};
std::unique_ptr<Written> written(const std::function<void(DcmDataset&)>& change,
                                 const test::MadeSource& how = {},
                                 const SegmentationMetadata& metadata = test::made_metadata()) {
  const fs::path folder = test::scratch_folder();
  const Geometry grid = test::oblique_grid(2, 12, 12);
  const DicomSeries source = test::made_source(folder / "source", grid, how);
  change_header(source, change);
  auto result = std::make_unique<Written>();
  const fs::path path = folder / "seg.dcm";
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(write_dicom_seg(path,
                              test::made_labels(2, 12, 12),
                              grid,
                              source,
                              metadata,
                              {"rwkv_unet_t", "3", std::string(64, 'a'), "0.1.0"}));
  result->warnings = ::testing::internal::GetCapturedStderr();
  result->errors = test::dicom_errors(path);
  EXPECT_TRUE(result->file.loadFile(path.c_str()).good());
  return result;
}

void put(DcmDataset& set, const DcmTagKey& tag, const std::string& value) {
  EXPECT_TRUE(set.putAndInsertString(tag, value.c_str()).good()) << value;
}

TEST(SourceAttributes, LeavesOptionalOnesOutThatAreNotValid) {
  const auto seg = written([](DcmDataset&) {}, {.patient_age = "42"});
  EXPECT_THAT(seg->warnings, HasSubstr("its PatientAge is not valid"));
  EXPECT_EQ(seg->errors, "");
}

TEST(SourceAttributes, GivesOldFormsOfDatesTimesAndCodesTodays) {
  const auto seg = written([](DcmDataset& set) {
    put(set, DCM_StudyDate, "2025.02.03");
    put(set, DCM_StudyTime, "10:11:12.5");
    put(set, DCM_PatientBirthDate, "1933-11-22");
    put(set, DCM_PatientBirthTime, "7:08");
    put(set, DCM_PatientSex, "Male");
    put(set, DCM_PatientAge, "42Y");
    put(set, DCM_PatientWeight, "71.66666666666666667");
  });
  EXPECT_EQ(seg->text(DCM_StudyDate), "20250203");
  EXPECT_EQ(seg->text(DCM_StudyTime), "101112.5");
  EXPECT_EQ(seg->text(DCM_PatientBirthDate), "19331122");
  EXPECT_EQ(seg->text(DCM_PatientBirthTime), "0708");
  EXPECT_EQ(seg->text(DCM_PatientSex), "M");
  EXPECT_EQ(seg->text(DCM_PatientAge), "042Y");
  EXPECT_EQ(seg->text(DCM_PatientWeight), "71.6666666666667");
  EXPECT_EQ(seg->errors, "");
  EXPECT_EQ(seg->warnings, "");
}

TEST(SourceAttributes, LeavesInvalidValuesOutAndSaysSoWithoutThem) {
  const auto seg = written([](DcmDataset& set) {
    put(set, DCM_StudyDate, "20250231");
    put(set, DCM_StudyTime, "noon");
    put(set, DCM_PatientBirthDate, "22.11.1933");
    put(set, DCM_PatientSex, "unknown");
    put(set, DCM_AccessionNumber, std::string(30, '7'));
    put(set, DCM_StudyID, "a\\b");
    put(set, DCM_ReferringPhysicianName, "a=b=c=d");
  });
  for (const DcmTagKey& tag : {DCM_StudyDate,
                               DCM_StudyTime,
                               DCM_PatientBirthDate,
                               DCM_PatientSex,
                               DCM_AccessionNumber,
                               DCM_StudyID,
                               DCM_ReferringPhysicianName}) {
    EXPECT_EQ(seg->text(tag), "") << DcmTag(tag).getTagName();
    EXPECT_THAT(seg->warnings,
                HasSubstr(std::string("its ") + DcmTag(tag).getTagName() + " is not valid (it "));
  }
  EXPECT_THAT(seg->warnings, HasSubstr("is longer than 16 characters) and is left out"));
  EXPECT_THAT(seg->warnings, HasSubstr("is none of M, F, O"));
  EXPECT_THAT(seg->warnings, ::testing::Not(HasSubstr("777"))) << "it may tell who the patient is";
  EXPECT_EQ(seg->errors, "");
}

TEST(SourceAttributes, KeepsWhoThePatientIsAsItStands) {
  const std::string name = "Made^" + std::string(70, 'n'), id(80, '1');
  const auto seg = written([&](DcmDataset& set) {
    put(set, DCM_PatientName, name);
    put(set, DCM_PatientID, id);
  });
  EXPECT_EQ(seg->text(DCM_PatientName), name);
  EXPECT_EQ(seg->text(DCM_PatientID), id);
  EXPECT_THAT(seg->warnings,
              HasSubstr("its PatientID is not valid (it is longer than 64 characters) and is "
                        "written as it is"));
}

TEST(SourceAttributes, CutsLongDescriptionsOff) {
  std::string description;
  for (int i = 0; i < 80; ++i) description += i < 8 ? "\xfc" : "x";
  const auto seg = written([&](DcmDataset& set) { put(set, DCM_StudyDescription, description); });
  std::string expected;
  for (int i = 0; i < 64; ++i) expected += i < 8 ? "\xc3\xbc" : "x";
  EXPECT_EQ(seg->text(DCM_StudyDescription), expected) << "64 characters, 72 bytes";
  EXPECT_THAT(seg->warnings, HasSubstr("its StudyDescription is too long and is cut off"));
  const auto plain =
      written([&](DcmDataset& set) { put(set, DCM_StudyDescription, std::string(80, 'x')); });
  EXPECT_EQ(plain->text(DCM_StudyDescription), std::string(64, 'x'));
  EXPECT_EQ(plain->errors, "");
}

TEST(SourceAttributes, ReadsTextThatDoesNotFitItsCharacterSet) {
  const std::string latin = "M\xfcller^J\xf6rg", unicode = "M\xc3\xbcller^J\xc3\xb6rg";
  for (const char* declared : {"", "ISO_IR 6", "ISO_IR 192", "ISO 8859"}) {
    const auto seg = written([&](DcmDataset& set) { put(set, DCM_PatientName, latin); },
                             {.character_set = declared});
    EXPECT_EQ(seg->text(DCM_PatientName), unicode) << declared;
    EXPECT_EQ(seg->text(DCM_SpecificCharacterSet), "ISO_IR 192") << declared;
    EXPECT_THAT(seg->warnings, HasSubstr("its PatientName does not fit its SpecificCharacterSet"));
    EXPECT_THAT(seg->warnings, HasSubstr("taken for Latin-1"));
    EXPECT_EQ(seg->errors, "") << declared;
  }
  const auto undeclared =
      written([&](DcmDataset& set) { put(set, DCM_PatientName, unicode); }, {.character_set = ""});
  EXPECT_EQ(undeclared->text(DCM_PatientName), unicode);
  EXPECT_THAT(undeclared->warnings, HasSubstr("taken for UTF-8"));
  // Cyrillic (ISO 8859-5) and Japanese (Shift JIS), of which no bytes tell the script.
  for (const char* name : {"\xb8\xd2\xd0\xdd\xde\xd2^\xb8", "\x8e\x52\x93\x63^\x91\xbe"}) {
    const auto seg =
        written([&](DcmDataset& set) { put(set, DCM_PatientName, name); }, {.character_set = ""});
    EXPECT_EQ(seg->text(DCM_PatientName), "");
    EXPECT_THAT(seg->warnings, HasSubstr("its PatientName does not fit"));
    EXPECT_THAT(seg->warnings, HasSubstr("is left out of what is written"));
    EXPECT_EQ(seg->errors, "");
  }
}

TEST(SourceAttributes, TakesOtherNumbersOfThePatientWholeOrNotAtAll) {
  const auto with = [](const std::string& number, const std::string& kind) {
    return written([&](DcmDataset& set) {
      DcmItem* item = nullptr;
      set.findOrCreateSequenceItem(DCM_OtherPatientIDsSequence, item, -2);
      item->putAndInsertString(DCM_PatientID, number.c_str());
      item->putAndInsertString(DCM_TypeOfPatientID, kind.c_str());
    });
  };
  const auto sound = with("Z\xfcrich-1", "text");
  DcmItem* item = nullptr;
  ASSERT_TRUE(
      sound->file.getDataset()->findAndGetSequenceItem(DCM_OtherPatientIDsSequence, item).good());
  OFString text;
  item->findAndGetOFString(DCM_PatientID, text);
  EXPECT_EQ(text, "Z\xc3\xbcrich-1");
  EXPECT_EQ(sound->errors, "");
  const auto unsound = with(std::string(70, '5'), "TEXT");
  EXPECT_FALSE(unsound->file.getDataset()->tagExists(DCM_OtherPatientIDsSequence));
  EXPECT_THAT(unsound->warnings,
              HasSubstr("its OtherPatientIDsSequence is not valid (it holds a PatientID that is "
                        "longer than 64 characters) and is left out"));
  EXPECT_EQ(unsound->errors, "");
}

TEST(SourceAttributes, SaysOfAnimalsWhatDicomAsksFor) {
  const auto dog =
      written([](DcmDataset& set) { put(set, DCM_PatientSpeciesDescription, "Canis"); });
  EXPECT_EQ(dog->text(DCM_PatientSpeciesDescription), "Canis");
  EXPECT_EQ(dog->text(DCM_PatientBreedDescription), "");
  EXPECT_EQ(dog->text(DCM_ResponsiblePerson), "");
  EXPECT_EQ(dog->errors, "");
  const auto owned = written([](DcmDataset& set) {
    put(set, DCM_PatientSpeciesDescription, "Canis");
    put(set, DCM_ResponsiblePerson, "Owner^Of");
    put(set, DCM_ResponsiblePersonRole, "Owner");
  });
  EXPECT_EQ(owned->text(DCM_ResponsiblePersonRole), "OWNER");
  EXPECT_EQ(owned->errors, "");
  const auto unknown = written([](DcmDataset& set) { put(set, DCM_ResponsiblePerson, "Any^One"); });
  EXPECT_EQ(unknown->text(DCM_ResponsiblePerson), "missing");
  EXPECT_THAT(unknown->warnings, HasSubstr("its ResponsiblePerson has no ResponsiblePersonRole"));
  EXPECT_EQ(unknown->errors, "");
}

TEST(SourceAttributes, SaysWhereNoMethodOfDeidentificationIsGiven) {
  const auto seg = written([](DcmDataset& set) { put(set, DCM_PatientIdentityRemoved, "Yes"); });
  EXPECT_EQ(seg->text(DCM_PatientIdentityRemoved), "YES");
  EXPECT_EQ(seg->text(DCM_DeidentificationMethod), "not given by the source");
  EXPECT_EQ(seg->errors, "");
}

TEST(SourceAttributes, NamesNoCentreOfATrialWhereNoneIsGiven) {
  SegmentationMetadata metadata = test::made_metadata();
  metadata.trial_series_id = "Session1";
  metadata.trial_time_point_id = "1";
  const auto seg = written([](DcmDataset&) {}, {}, metadata);
  EXPECT_EQ(seg->text(DCM_ClinicalTrialCoordinatingCenterName), "");
  EXPECT_EQ(seg->text(DCM_ClinicalTrialSeriesID), "Session1");
  EXPECT_EQ(seg->errors, "");
  EXPECT_EQ(written([](DcmDataset&) {})->text(DCM_ClinicalTrialCoordinatingCenterName), "missing");
}

}  // namespace
}  // namespace vireo
