#include "vision/io/segmentation/dicom_output.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <random>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/segmentation/source_planes.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// Type 2 in every object of a patient: present, if only empty.
const DcmTagKey kAlways[] = {DCM_PatientName,
                             DCM_PatientID,
                             DCM_PatientBirthDate,
                             DCM_PatientSex,
                             DCM_StudyDate,
                             DCM_StudyTime,
                             DCM_ReferringPhysicianName,
                             DCM_StudyID,
                             DCM_AccessionNumber};
const DcmTagKey kIfPresent[] = {DCM_StudyInstanceUID,
                                DCM_StudyDescription,
                                DCM_IssuerOfPatientID,
                                DCM_OtherPatientIDsSequence,
                                DCM_PatientBirthTime,
                                DCM_PatientIdentityRemoved,
                                DCM_DeidentificationMethod,
                                DCM_DeidentificationMethodCodeSequence,
                                DCM_PatientSpeciesDescription,
                                DCM_PatientSpeciesCodeSequence,
                                DCM_PatientBreedDescription,
                                DCM_PatientBreedCodeSequence,
                                DCM_BreedRegistrationSequence,
                                DCM_ResponsiblePerson,
                                DCM_ResponsibleOrganization,
                                DCM_PatientSexNeutered,
                                DCM_PatientAge,
                                DCM_PatientSize,
                                DCM_PatientWeight};

[[noreturn]] void refuse_reference(const fs::path& path, const std::string& what) {
  throw DataError(
      path,
      "has no " + what +
          ", so that no DICOM object can refer to it. Ask for NIfTI or .seg.nrrd, which "
          "need none, or take the images before they were anonymised");
}

// Values that break their representation's rules (an age of "42") stay behind.
void copy_sound_element(const fs::path& path, DcmItem& from, const DcmTagKey& tag, DcmItem& into) {
  DcmElement* element = nullptr;
  if (from.findAndGetElement(tag, element).bad() || element == nullptr) return;
  if (element->isaString() && element->checkValue("1-n").bad()) {
    log_warning(path.string() + ": its " + DcmTag(tag).getTagName() +
                " is not valid and is left out of what is written");
    return;
  }
  copy_element(from, tag, into);
}

bool all_ascii(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

}  // namespace

std::string new_dicom_uid() {
  std::random_device random;
  std::array<uint32_t, 4> number{};  // the most significant word first
  for (uint32_t& word : number) word = random();
  number[1] = (number[1] & 0xffff0fffU) | 0x00004000U;  // a UUID of version 4 (RFC 4122)
  number[2] = (number[2] & 0x3fffffffU) | 0x80000000U;
  std::string digits;
  while (std::any_of(number.begin(), number.end(), [](uint32_t word) { return word != 0; })) {
    uint64_t rest = 0;
    for (uint32_t& word : number) {
      rest = rest << 32 | word;
      word = static_cast<uint32_t>(rest / 10);
      rest %= 10;
    }
    digits.insert(digits.begin(), static_cast<char>('0' + rest));
  }
  return "2.25." + digits;
}

std::string decimal_string(double value) {
  if (value == 0) value = 0;  // no "-0"
  char text[64];
  const auto end = std::to_chars(std::begin(text), std::end(text), value).ptr;
  if (end - text <= 16) return {text, end};
  for (int digits = 16;; --digits) {
    const int length = std::snprintf(text, sizeof text, "%.*g", digits, value);
    if (length <= 16) return {text, static_cast<size_t>(length)};
  }
}

DicomTime dicom_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char date[16], time[16];
  std::strftime(date, sizeof date, "%Y%m%d", &local);
  std::strftime(time, sizeof time, "%H%M%S", &local);
  return {date, time};
}

std::unique_ptr<DcmFileFormat> load_source_header(const DicomSeries& source) {
  silence_dcmtk();
  const fs::path& path = source.first_file().path;
  auto format = std::make_unique<DcmFileFormat>();
  const OFCondition status = format->loadFileUntilTag(
      path.c_str(), EXS_Unknown, EGL_noChange, DCM_MaxReadLength, ERM_autoDetect, DCM_PixelData);
  if (status.bad())
    throw DataError(path, std::string("cannot be read again; DCMTK says: ") + status.text());
  if (!format->getDataset()->tagExistsWithValue(DCM_StudyInstanceUID))
    refuse_reference(path, "StudyInstanceUID (0020,000D)");
  for (const DicomFile& file : source.files) {
    if (file.sop_class_uid.empty()) refuse_reference(file.path, "SOPClassUID (0008,0016)");
    if (file.sop_instance_uid.empty()) refuse_reference(file.path, "SOPInstanceUID (0008,0018)");
    if (file.series_uid.empty()) refuse_reference(file.path, "SeriesInstanceUID (0020,000E)");
  }
  return format;
}

void copy_patient_and_study(const DicomSeries& source,
                            DcmDataset& header,
                            bool ascii,
                            DcmItem& into) {
  DcmDataset taken;
  copy_element(header, DCM_SpecificCharacterSet, taken);
  for (const DcmTagKey& tag : kIfPresent)
    copy_sound_element(source.first_file().path, header, tag, taken);
  for (const DcmTagKey& tag : kAlways) {
    copy_element(header, tag, taken);
    if (!taken.tagExists(tag)) taken.insertEmptyElement(tag);
  }
  if (lies_in_patient(source)) {
    copy_element(header, DCM_FrameOfReferenceUID, taken);
    copy_element(header, DCM_PositionReferenceIndicator, taken);
    if (!taken.tagExists(DCM_PositionReferenceIndicator))
      taken.insertEmptyElement(DCM_PositionReferenceIndicator);
  }

  const bool extended = taken.tagExistsWithValue(DCM_SpecificCharacterSet);
  DcmDataset unicode(taken);
  DcmDataset* chosen = &taken;
  if (unicode.convertToUTF8().good()) {
    chosen = &unicode;
    chosen->findAndDeleteElement(DCM_SpecificCharacterSet);
    if (extended || !ascii) chosen->putAndInsertString(DCM_SpecificCharacterSet, "ISO_IR 192");
  } else if (!ascii) {
    throw DataError(source.first_file().path,
                    "its texts do not fit its SpecificCharacterSet (0008,0005) and cannot be "
                    "written beside segment names that are not ASCII; use ASCII names");
  }
  while (DcmElement* element = chosen->remove(0UL)) into.insert(element, OFTrue);
}

void put_object(const char* sop_class_uid,
                const std::string& modality,
                const SegmentationMetadata& metadata,
                const std::string& software_version,
                DcmItem& into) {
  const DicomTime now = dicom_time_now();
  const auto put = [&](const DcmTagKey& tag, const std::string& value) {
    put_text(into, tag, value);
  };
  const auto put_given = [&](const DcmTagKey& tag, const std::string& value) {
    if (!value.empty()) put(tag, value);
  };
  put(DCM_SOPClassUID, sop_class_uid);
  put(DCM_SOPInstanceUID, new_dicom_uid());
  put(DCM_InstanceNumber, std::to_string(metadata.instance_number));
  put(DCM_Modality, modality);
  put(DCM_SeriesInstanceUID, new_dicom_uid());
  put(DCM_SeriesNumber, std::to_string(metadata.series_number));
  put(DCM_SeriesDescription, metadata.series_description);
  put_given(DCM_BodyPartExamined, metadata.body_part_examined);
  put(DCM_Manufacturer, "Vireo");
  put(DCM_ManufacturerModelName, "Vireo");
  put(DCM_DeviceSerialNumber, "0");
  put(DCM_SoftwareVersions, software_version);
  for (const DcmTagKey& date : {DCM_InstanceCreationDate, DCM_SeriesDate}) put(date, now.date);
  for (const DcmTagKey& time : {DCM_InstanceCreationTime, DCM_SeriesTime}) put(time, now.time);
  put_given(DCM_ClinicalTrialCoordinatingCenterName, metadata.trial_coordinating_center);
  put_given(DCM_ClinicalTrialSeriesID, metadata.trial_series_id);
  put_given(DCM_ClinicalTrialTimePointID, metadata.trial_time_point_id);
}

void put_text(DcmItem& item, const DcmTagKey& tag, const std::string& text) {
  item.putAndInsertString(tag, text.c_str());
}

DcmItem& new_item(DcmItem& within, const DcmTagKey& sequence) {
  DcmItem* item = nullptr;
  within.findOrCreateSequenceItem(sequence, item, -2);
  return *item;
}

DcmItem& put_code(DcmItem& item, const DcmTagKey& sequence, const CodedConcept& code) {
  DcmItem& place = new_item(item, sequence);
  put_text(place, DCM_CodeValue, code.value);
  put_text(place, DCM_CodingSchemeDesignator, code.scheme);
  put_text(place, DCM_CodeMeaning, code.meaning);
  return place;
}

void copy_element(DcmItem& from, const DcmTagKey& tag, DcmItem& into) {
  DcmElement* copy = nullptr;
  if (from.findAndGetElement(tag, copy, OFFalse, OFTrue).bad() || copy == nullptr) return;
  if (into.insert(copy, OFTrue).bad()) delete copy;
}

void put_instance(DcmItem& item, const DicomFile& file) {
  put_text(item, DCM_ReferencedSOPClassUID, file.sop_class_uid);
  put_text(item, DCM_ReferencedSOPInstanceUID, file.sop_instance_uid);
}

void put_image_references(DcmItem& item,
                          const DcmTagKey& sequence,
                          const DicomSeries& source,
                          const std::vector<DicomSlice>& slices,
                          const CodedConcept* purpose) {
  for (const DicomSlice& slice : slices) {
    const DicomFile& file = source.files.at(slice.file);
    DcmItem& place = new_item(item, sequence);
    put_instance(place, file);
    if (file.frames.size() > 1)
      put_text(
          place, DCM_ReferencedFrameNumber, std::to_string(file.frames.at(slice.frame).index + 1));
    if (purpose != nullptr) put_code(place, DCM_PurposeOfReferenceCodeSequence, *purpose);
  }
}

void save_atomically(const fs::path& path, DcmFileFormat& file, E_TransferSyntax syntax) {
  write_file_atomically(path, [&](const fs::path& temporary) {
    const OFCondition status = file.saveFile(temporary.c_str(), syntax);
    if (status.bad())
      throw DataError(path, std::string("cannot be written; DCMTK says: ") + status.text());
  });
}

void remove_file(const fs::path& path) {
  std::error_code failed;
  fs::remove(path, failed);
  if (failed) throw DataError(path, "cannot be removed: " + failed.message());
}

bool is_ascii(const SegmentationMetadata& metadata, const std::vector<std::string>& texts) {
  std::vector<std::string> all = texts;
  all.insert(all.end(),
             {metadata.series_description,
              metadata.content_description,
              metadata.content_creator_name,
              metadata.trial_coordinating_center,
              metadata.trial_series_id,
              metadata.trial_time_point_id});
  for (const SegmentDescription& segment : metadata.segments) {
    all.insert(all.end(),
               {segment.name, segment.text, segment.algorithm_name, segment.tracking_id});
    for (const CodedConcept* code : {&segment.category,
                                     &segment.type,
                                     &segment.type_modifier,
                                     &segment.region,
                                     &segment.region_modifier})
      all.push_back(code->meaning);
  }
  return std::all_of(all.begin(), all.end(), all_ascii);
}

}  // namespace vireo
