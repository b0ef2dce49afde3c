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

struct CopiedAttribute {
  DcmTagKey tag;
  IfUnsound otherwise;
};

// Type 2 in every object of a patient: present, if only empty.
const CopiedAttribute kAlways[] = {{DCM_PatientName, IfUnsound::kKeep},
                                   {DCM_PatientID, IfUnsound::kKeep},
                                   {DCM_PatientBirthDate, IfUnsound::kLeaveOut},
                                   {DCM_PatientSex, IfUnsound::kLeaveOut},
                                   {DCM_StudyDate, IfUnsound::kLeaveOut},
                                   {DCM_StudyTime, IfUnsound::kLeaveOut},
                                   {DCM_ReferringPhysicianName, IfUnsound::kLeaveOut},
                                   {DCM_StudyID, IfUnsound::kLeaveOut},
                                   {DCM_AccessionNumber, IfUnsound::kLeaveOut}};
const CopiedAttribute kIfPresent[] = {
    {DCM_StudyInstanceUID, IfUnsound::kKeep},
    {DCM_StudyDescription, IfUnsound::kShorten},
    {DCM_IssuerOfPatientID, IfUnsound::kLeaveOut},
    {DCM_OtherPatientIDsSequence, IfUnsound::kLeaveOut},
    {DCM_PatientBirthTime, IfUnsound::kLeaveOut},
    {DCM_PatientIdentityRemoved, IfUnsound::kLeaveOut},
    {DCM_DeidentificationMethod, IfUnsound::kShorten},
    {DCM_DeidentificationMethodCodeSequence, IfUnsound::kLeaveOut},
    {DCM_PatientSpeciesDescription, IfUnsound::kShorten},
    {DCM_PatientSpeciesCodeSequence, IfUnsound::kLeaveOut},
    {DCM_PatientBreedDescription, IfUnsound::kShorten},
    {DCM_PatientBreedCodeSequence, IfUnsound::kLeaveOut},
    {DCM_BreedRegistrationSequence, IfUnsound::kLeaveOut},
    {DCM_ResponsiblePerson, IfUnsound::kLeaveOut},
    {DCM_ResponsiblePersonRole, IfUnsound::kLeaveOut},
    {DCM_ResponsibleOrganization, IfUnsound::kShorten},
    {DCM_PatientSexNeutered, IfUnsound::kLeaveOut},
    {DCM_PatientAge, IfUnsound::kLeaveOut},
    {DCM_PatientSize, IfUnsound::kLeaveOut},
    {DCM_PatientWeight, IfUnsound::kLeaveOut}};
// Type 2C: present, if only empty, where the patient is an animal.
const DcmTagKey kOfAnimals[] = {DCM_PatientBreedDescription,
                                DCM_PatientBreedCodeSequence,
                                DCM_BreedRegistrationSequence,
                                DCM_ResponsiblePerson,
                                DCM_ResponsibleOrganization,
                                DCM_PatientSexNeutered};

[[noreturn]] void refuse_reference(const fs::path& path, const std::string& what) {
  throw DataError(
      path,
      "has no " + what +
          ", so that no DICOM object can refer to it. Ask for NIfTI or .seg.nrrd, which "
          "need none, or take the images before they were anonymised");
}

void ensure_present(DcmItem& item, const DcmTagKey& tag) {
  if (!item.tagExists(tag)) item.insertEmptyElement(tag);
}

// What DICOM asks for beside attributes that were copied.
void complete_patient(const fs::path& path, DcmItem& into) {
  const auto has = [&](const DcmTagKey& tag) { return into.tagExistsWithValue(tag); };
  if (has(DCM_ResponsiblePerson) && !has(DCM_ResponsiblePersonRole)) {
    log_warning(path.string() +
                ": its ResponsiblePerson has no ResponsiblePersonRole and is left out of what is "
                "written");
    into.findAndDeleteElement(DCM_ResponsiblePerson);
  }
  if (has(DCM_PatientSpeciesDescription) || has(DCM_PatientSpeciesCodeSequence))
    for (const DcmTagKey& tag : kOfAnimals) ensure_present(into, tag);
  OFString removed;
  into.findAndGetOFString(DCM_PatientIdentityRemoved, removed);
  if (removed == "YES" && !has(DCM_DeidentificationMethod) &&
      !has(DCM_DeidentificationMethodCodeSequence))
    put_text(into, DCM_DeidentificationMethod, "not given by the source");
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
  set_up_dcmtk();
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
                            SourceAttributes& attributes,
                            bool ascii,
                            DcmItem& into) {
  for (const auto& [tag, otherwise] : kIfPresent) attributes.copy(tag, otherwise, into);
  for (const auto& [tag, otherwise] : kAlways) {
    attributes.copy(tag, otherwise, into);
    ensure_present(into, tag);
  }
  complete_patient(source.first_file().path, into);
  if (lies_in_patient(source)) {
    attributes.copy(DCM_FrameOfReferenceUID, IfUnsound::kKeep, into);
    attributes.copy(DCM_PositionReferenceIndicator, IfUnsound::kLeaveOut, into);
    ensure_present(into, DCM_PositionReferenceIndicator);
  }
  if (attributes.extended() || !ascii) put_text(into, DCM_SpecificCharacterSet, "ISO_IR 192");
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
  const bool trial = !(metadata.trial_coordinating_center + metadata.trial_series_id +
                       metadata.trial_time_point_id)
                          .empty();
  if (trial) put(DCM_ClinicalTrialCoordinatingCenterName, metadata.trial_coordinating_center);
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

bool is_ascii(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
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
  return std::all_of(
      all.begin(), all.end(), [](const std::string& text) { return is_ascii(text); });
}

}  // namespace vireo
