#include "vision/io/dicom/deidentify.h"

#include <set>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/made_dicom.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/dicom/dicom_series.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

const DeidentifyOptions kOptions{"a key that only this test knows"};

// All text of an item and those below it: "group,element value".
void collect(DcmItem& item, std::vector<std::pair<DcmTagKey, std::string>>& found) {
  for (unsigned long i = 0; i < item.card(); ++i) {
    DcmElement* element = item.getElement(i);
    if (element->ident() == EVR_SQ) {
      auto* sequence = static_cast<DcmSequenceOfItems*>(element);
      for (unsigned long j = 0; j < sequence->card(); ++j) collect(*sequence->getItem(j), found);
      continue;
    }
    OFString value;
    if (element->isaString() && element->getOFStringArray(value).good() && !value.empty())
      found.emplace_back(element->getTag(), value.c_str());
  }
}

std::vector<std::pair<DcmTagKey, std::string>> texts_of(const fs::path& path) {
  DcmFileFormat format;
  load_dicom(path, DCM_MaxReadLength, format);
  std::vector<std::pair<DcmTagKey, std::string>> found;
  collect(*format.getDataset(), found);
  return found;
}

// A slice with names in plain, nested, private and date attributes.
fs::path named_slice(const fs::path& folder, int instance) {
  Geometry grid;
  grid.size_zyx = {1, 3, 4};
  test::MadeSlice slice = test::slices_of(grid)[0];
  slice.instance = instance;
  slice.position_lps_mm = {0, 0, static_cast<double>(instance)};
  const fs::path path = folder / ("Doe_Jane_" + std::to_string(instance));
  test::write_slice(path, slice);
  DcmFileFormat format;
  format.loadFile(path.c_str());
  DcmDataset& item = *format.getDataset();
  item.putAndInsertString(DCM_PatientName, "Doe^Jane");
  item.putAndInsertString(DCM_PatientID, "4711");
  item.putAndInsertString(DCM_PatientBirthDate, "19700102");
  item.putAndInsertString(DCM_StudyDate, "20200229");
  item.putAndInsertString(DCM_SeriesDescription, "Jane's head");
  item.putAndInsertString(DCM_ImageComments, "seen by Dr. Doe");
  item.putAndInsertString(DCM_DeviceSerialNumber, "SN-Doe");
  item.putAndInsertString(DCM_KVP, "120");
  item.putAndInsertString(DcmTag(0x0009, 0x0010, EVR_LO), "MAKER Doe");
  DcmItem* nested = nullptr;
  item.findOrCreateSequenceItem(DCM_RequestAttributesSequence, nested);
  nested->putAndInsertString(DCM_ScheduledProcedureStepDescription, "Doe again");
  item.findOrCreateSequenceItem(DCM_SourceImageSequence, nested);
  nested->putAndInsertString(DCM_ReferencedSOPInstanceUID, "1.2.826.0.1.3680043.10.1.9.1");
  nested->putAndInsertString(DCM_ReferencedSOPClassUID, UID_CTImageStorage);
  format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  return path;
}

TEST(Deidentify, LeavesNoNameAtAnyDepthAndThePixelsAlone) {
  const fs::path folder = test::scratch_folder();
  const fs::path input = named_slice(folder, 1);
  const Deidentified done = deidentify(input, folder / "out", kOptions);
  const std::string bytes = read_text(folder / "out" / done.output);
  for (const char* word : {"Doe", "4711", "1970", "2020", "head"})
    EXPECT_THAT(bytes, Not(HasSubstr(word)));
  EXPECT_THAT(done.output.string(), Not(HasSubstr("Doe")));
  EXPECT_THAT(bytes, HasSubstr("113100"));
  EXPECT_TRUE(at::equal(read_dicom_pixels(read_dicom_header(input)),
                        read_dicom_pixels(read_dicom_header(folder / "out" / done.output))));
  const auto texts = texts_of(folder / "out" / done.output);
  EXPECT_THAT(texts, ::testing::Contains(std::pair(DcmTagKey(DCM_KVP), std::string("120"))));
}

TEST(Deidentify, ReplacesUidsAlikeEverywhereAndKeepsThePatientTogether) {
  const fs::path folder = test::scratch_folder();
  std::vector<DicomFile> files;
  for (int instance = 1; instance <= 3; ++instance)
    files.push_back(read_dicom_header(
        folder / "out" /
        deidentify(named_slice(folder, instance), folder / "out", kOptions).output));
  EXPECT_EQ(files[0].series_uid, files[2].series_uid);
  EXPECT_EQ(files[0].path.parent_path(), files[2].path.parent_path());
  EXPECT_NE(files[0].sop_instance_uid, files[1].sop_instance_uid);
  EXPECT_THAT(files[0].sop_instance_uid, ::testing::StartsWith("2.25."));
  EXPECT_EQ(files[0].sop_class_uid, UID_CTImageStorage);
  // The image that the third refers to is the first.
  std::string referenced;
  for (const auto& [tag, value] : texts_of(files[2].path))
    if (tag == DCM_ReferencedSOPInstanceUID) referenced = value;
  EXPECT_EQ(referenced, files[0].sop_instance_uid);
  EXPECT_EQ(scan_dicom(folder / "out").series.at(0).problems.size(), 0u);

  DeidentifyOptions other{"another key, another world"};
  const Deidentified again = deidentify(folder / "Doe_Jane_1", folder / "other", other);
  EXPECT_NE(read_dicom_header(folder / "other" / again.output).series_uid, files[0].series_uid);
}

TEST(Deidentify, ShiftsDatesByOneNumberOfDaysPerPatient) {
  const fs::path folder = test::scratch_folder();
  DeidentifyOptions options = kOptions;
  options.shift_dates = true;
  std::set<std::string> dates;
  for (int instance = 1; instance <= 2; ++instance)
    for (const auto& [tag, value] :
         texts_of(folder / "out" /
                  deidentify(named_slice(folder, instance), folder / "out", options).output))
      if (tag == DCM_StudyDate) dates.insert(value);
  ASSERT_EQ(dates.size(), 1u);
  EXPECT_EQ(dates.begin()->size(), 8u);
  EXPECT_LT(*dates.begin(), "20200229");
  EXPECT_GT(*dates.begin(), "20100101");
}

TEST(Deidentify, RefusesBurnedInAnnotationsAndWarnsWhereTheyAreLikely) {
  const fs::path folder = test::scratch_folder();
  const fs::path path = named_slice(folder, 1);
  const auto set = [&](const DcmTagKey& tag, const char* value) {
    DcmFileFormat format;
    format.loadFile(path.c_str());
    format.loadAllDataIntoMemory();
    format.getDataset()->putAndInsertString(tag, value);
    format.saveFile(path.c_str(), EXS_LittleEndianExplicit);
  };
  set(DCM_Modality, "US");
  EXPECT_THAT(deidentify(path, folder / "out", kOptions).warning, HasSubstr("burned"));
  set(DCM_BurnedInAnnotation, "YES");
  EXPECT_THROW(deidentify(path, folder / "out", kOptions), DataError);
}

// Nothing that names a person, a place or a moment in real headers is found in the copies.
TEST(Deidentify, LeavesNothingOfRealHeadersIdentifyingText) {
  VIREO_REQUIRE_REAL_DATA(robustness, "robustness");
  VIREO_REQUIRE_REAL_DATA(series, "dicom_series");
  const fs::path out = test::scratch_folder();
  int copied = 0;
  for (const fs::path& root : {robustness / "dicom", series})
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (!entry.is_regular_file() || entry.file_size() > 600'000 || !is_dicom(entry.path()))
        continue;
      SCOPED_TRACE(entry.path().string());
      Deidentified done;
      std::vector<std::pair<DcmTagKey, std::string>> before;
      try {
        done = deidentify(entry.path(), out, kOptions);
        before = texts_of(entry.path());
      } catch (const DataError&) {
        continue;
      }
      ++copied;
      std::set<std::string> uids;
      std::set<std::pair<DcmTagKey, std::string>> after;
      for (const auto& [tag, value] : texts_of(out / done.output)) {
        EXPECT_EQ(tag.getGroup() % 2, 0) << tag.toString();
        after.emplace(tag, value);
        if (DcmTag(tag).getEVR() == EVR_UI) uids.insert(value);
      }
      for (const auto& [tag, value] : before) {
        const DcmEVR type = DcmTag(tag).getEVR();
        const bool tells = type == EVR_PN || type == EVR_DA || type == EVR_DT || type == EVR_LT ||
                           type == EVR_ST || type == EVR_AE ||
                           (type == EVR_UI && !value.starts_with("1.2.840.10008"));
        if (tells && value.size() > 3) {
          EXPECT_FALSE(type == EVR_UI ? uids.contains(value) : after.contains({tag, value}))
              << tag.toString() << value;
        }
      }
      fs::remove(out / done.output);
    }
  EXPECT_GT(copied, 100);
}

}  // namespace
}  // namespace vireo
