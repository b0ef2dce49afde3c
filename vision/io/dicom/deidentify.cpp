#include "vision/io/dicom/deidentify.h"

#include <ctime>
#include <fstream>
#include <set>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/sha256.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/dicom/dicom_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMethod = "Vireo: PS3.15 Annex E Basic Profile, kept by list";
constexpr int kMostDaysShifted = 3650;

// Values of these types say nothing of a person: numbers, coded words, pixels and tables.
bool is_harmless_type(DcmEVR type) {
  static const std::set<DcmEVR> harmless = {EVR_DS,        EVR_IS, EVR_FL, EVR_FD, EVR_SS, EVR_US,
                                            EVR_SL,        EVR_UL, EVR_CS, EVR_AT, EVR_OB, EVR_OW,
                                            EVR_OF,        EVR_OD, EVR_OL, EVR_SV, EVR_UV, EVR_ox,
                                            EVR_PixelData, EVR_xs, EVR_lt, EVR_up};
  return harmless.contains(type);
}

// Groups that describe acquisition, geometry, pixels, segments and parametric maps. Within them,
// harmless types are kept and sequences are gone through.
bool is_technical(const DcmTagKey& tag) {
  static const std::set<Uint16> groups = {
      0x0018, 0x0020, 0x0022, 0x0028, 0x0048, 0x0054, 0x0062, 0x0070, 0x5200, 0x7fe0};
  // Of group 0040 real world values and their units; the rest is about requests and visits.
  return groups.contains(tag.getGroup()) || tag == DCM_MeasurementUnitsCodeSequence ||
         (tag.getGroup() == 0x0040 && tag.getElement() >= 0x9096 && tag.getElement() <= 0x9225);
}

// Attributes outside those groups, or of text, that are kept.
bool is_listed(const DcmTagKey& tag) {
  static const std::set<DcmTagKey> listed = {DCM_SpecificCharacterSet,
                                             DCM_ImageType,
                                             DCM_FrameType,
                                             DCM_Modality,
                                             DCM_ConversionType,
                                             DCM_PresentationIntentType,
                                             DCM_Manufacturer,
                                             DCM_ManufacturerModelName,
                                             DCM_CodeValue,
                                             DCM_LongCodeValue,
                                             DCM_CodingSchemeDesignator,
                                             DCM_CodingSchemeVersion,
                                             DCM_CodeMeaning,
                                             DCM_PixelPresentation,
                                             DCM_VolumetricProperties,
                                             DCM_VolumeBasedCalculationTechnique,
                                             DCM_ComplexImageComponent,
                                             DCM_AcquisitionContrast,
                                             DCM_RecommendedDisplayFrameRate,
                                             DCM_ConvolutionKernel,
                                             DCM_LossyImageCompressionMethod,
                                             DCM_StackID,
                                             DCM_DimensionDescriptionLabel,
                                             DCM_DimensionOrganizationType,
                                             DCM_Units,
                                             DCM_SegmentLabel,
                                             DCM_SegmentAlgorithmName,
                                             DCM_LUTExplanation,
                                             DCM_RescaleType,
                                             DCM_SequenceName,
                                             DCM_SequenceVariant};
  return listed.contains(tag);
}

// Sequences outside the technical groups whose items are worth keeping, cleaned.
bool is_listed_sequence(const DcmTagKey& tag) {
  static const std::set<DcmTagKey> listed = {DCM_DerivationImageSequence,
                                             DCM_SourceImageSequence,
                                             DCM_ReferencedImageSequence,
                                             DCM_ReferencedSeriesSequence,
                                             DCM_ReferencedInstanceSequence,
                                             DCM_PurposeOfReferenceCodeSequence,
                                             DCM_DerivationCodeSequence,
                                             DCM_AnatomicRegionSequence,
                                             DCM_PrimaryAnatomicStructureSequence};
  return listed.contains(tag);
}

// Required by the standard, but allowed to be empty (Type 2).
const std::vector<DcmTagKey>& emptied() {
  static const std::vector<DcmTagKey> tags = {DCM_StudyDate,
                                              DCM_StudyTime,
                                              DCM_AccessionNumber,
                                              DCM_ReferringPhysicianName,
                                              DCM_PatientBirthDate,
                                              DCM_PatientSex,
                                              DCM_StudyID};
  return tags;
}

class Cleaner {
 public:
  Cleaner(const DeidentifyOptions& options, const std::string& patient)
      : options_(options), patient_(patient) {}

  std::string pseudonym() const { return "P" + digest("patient", patient_).substr(0, 12); }

  // 2.25 and a number of 128 bits (PS3.5 B.2), here of at most 36 digits.
  std::string new_uid(const std::string& uid) const {
    if (uid.starts_with("1.2.840.10008.")) return uid;
    std::string number;
    for (const char digit : digest("uid", uid)) {
      if (number.size() == 36) break;
      number += static_cast<char>('0' + (digit <= '9' ? digit - '0' : digit - 'a' + 10) % 10);
    }
    if (number[0] == '0') number[0] = '1';
    return "2.25." + number;
  }

  void clean(DcmItem& item) const {
    std::vector<DcmTagKey> remove;
    for (unsigned long i = 0; i < item.card(); ++i) {
      DcmElement* element = item.getElement(i);
      const DcmTagKey tag = element->getTag();
      if (!keep(*element))
        remove.push_back(tag);
      else if (auto* sequence = dynamic_cast<DcmSequenceOfItems*>(element);
               sequence != nullptr && element->ident() == EVR_SQ)
        for (unsigned long j = 0; j < sequence->card(); ++j) clean(*sequence->getItem(j));
      else if (element->ident() == EVR_UI)
        replace_uids(*element);
      else if (is_date(*element))
        shift(*element);
    }
    for (const DcmTagKey& tag : remove) item.findAndDeleteElement(tag);
  }

 private:
  std::string digest(const std::string& what, const std::string& value) const {
    return sha256(options_.key + "\n" + what + "\n" + value);
  }

  static bool is_date(const DcmElement& element) {
    return element.ident() == EVR_DA || element.ident() == EVR_DT || element.ident() == EVR_TM;
  }

  bool keep(const DcmElement& element) const {
    const DcmTagKey tag = element.getTag();
    const DcmEVR type = element.ident();
    if ((tag.getGroup() & 1) != 0 || tag == DCM_GraphicAnnotationSequence) return false;
    if (is_listed(tag)) return true;
    if (type == EVR_SQ) return is_technical(tag) || is_listed_sequence(tag);
    if (type == EVR_UI) return is_technical(tag) || tag.getGroup() == 0x0008;
    if (is_date(element))
      return options_.shift_dates && tag.getGroup() == 0x0008 && tag.getElement() < 0x0040;
    return is_technical(tag) && is_harmless_type(type);
  }

  void replace_uids(DcmElement& element) const {
    OFString all;
    for (unsigned long i = 0; i < element.getVM(); ++i) {
      OFString uid;
      element.getOFString(uid, i);
      if (i > 0) all += "\\";
      all += new_uid(uid.c_str()).c_str();
    }
    element.putString(all.c_str());
  }

  // Times of the day stay; days move.
  void shift(DcmElement& element) const {
    OFString text;
    if (element.ident() == EVR_TM || element.getOFString(text, 0).bad()) return;
    const std::string value = text.c_str();
    OFDate date;
    if (value.size() < 8 || !date.setISOFormattedDate(value.substr(0, 8).c_str())) {
      element.putString("");
      return;
    }
    const unsigned long drawn = std::stoul(digest("days", patient_).substr(0, 8), nullptr, 16);
    std::tm day{};
    day.tm_year = static_cast<int>(date.getYear()) - 1900;
    day.tm_mon = static_cast<int>(date.getMonth()) - 1;
    day.tm_mday = static_cast<int>(date.getDay()) - 1 - static_cast<int>(drawn % kMostDaysShifted);
    day.tm_hour = 12;
    ::timegm(&day);  // puts the fields in order
    char moved[16];
    std::strftime(moved, sizeof moved, "%Y%m%d", &day);
    element.putString((moved + value.substr(8)).c_str());
  }

  const DeidentifyOptions& options_;
  std::string patient_;
};

void add_method(DcmItem& item, bool shift_dates) {
  item.putAndInsertString(DCM_PatientIdentityRemoved, "YES");
  item.putAndInsertString(DCM_DeidentificationMethod, kMethod);
  item.putAndInsertString(DCM_LongitudinalTemporalInformationModified,
                          shift_dates ? "MODIFIED" : "REMOVED");
  const auto add = [&](const char* code, const char* meaning, long at) {
    DcmItem* one = nullptr;
    if (item.findOrCreateSequenceItem(DCM_DeidentificationMethodCodeSequence, one, at).bad())
      return;
    one->putAndInsertString(DCM_CodeValue, code);
    one->putAndInsertString(DCM_CodingSchemeDesignator, "DCM");
    one->putAndInsertString(DCM_CodeMeaning, meaning);
  };
  add("113100", "Basic Application Confidentiality Profile", 0);
  if (shift_dates)
    add("113107", "Retain Longitudinal Temporal Information Modified Dates Option", 1);
}

std::string pixel_warning(DcmItem& item, const DicomFile& file) {
  if (dicom_text(item, DCM_BurnedInAnnotation) == "NO") return "";
  static const std::set<std::string> often = {"US", "SC", "OT", "XC", "ES", "XA", "RF", "DX", "CR"};
  if (often.contains(file.modality) || file.sop_class_uid == UID_SecondaryCaptureImageStorage)
    return "modality " + file.modality +
           " often has names burned into its pixels, and the file does not say that there are "
           "none: look at the picture";
  return "";
}

}  // namespace

std::string random_key() {
  std::ifstream in("/dev/urandom", std::ios::binary);
  std::string bytes(32, '\0');
  if (!in.read(bytes.data(), 32)) throw Error("/dev/urandom cannot be read; give --key");
  return sha256(bytes);
}

Deidentified deidentify(const fs::path& input,
                        const fs::path& output_folder,
                        const DeidentifyOptions& options) {
  const DicomFile file = read_dicom_header(input);
  DcmFileFormat format;
  load_dicom(input, DCM_MaxReadLength, format);
  DcmDataset& item = *format.getDataset();
  if (dicom_text(item, DCM_BurnedInAnnotation) == "YES")
    throw DataError(input,
                    "says that annotations are burned into its pixels (BurnedInAnnotation = YES); "
                    "nobody can take them out but by hand");
  Deidentified result;
  result.warning = pixel_warning(item, file);
  // Without an identifier every study is a patient of its own.
  std::string patient = dicom_text(item, DCM_PatientID) + "\n" + dicom_text(item, DCM_PatientName);
  if (patient == "\n") patient = file.study_uid;
  const Cleaner cleaner(options, patient);
  cleaner.clean(item);
  for (const DcmTagKey& tag : emptied())
    if (!item.tagExists(tag)) item.insertEmptyElement(tag);
  item.putAndInsertString(DCM_PatientName, cleaner.pseudonym().c_str());
  item.putAndInsertString(DCM_PatientID, cleaner.pseudonym().c_str());
  add_method(item, options.shift_dates);

  const std::string instance = dicom_text(item, DCM_SOPInstanceUID);
  const std::string series = dicom_text(item, DCM_SeriesInstanceUID);
  char number[64];
  std::snprintf(number,
                sizeof number,
                "%05lld_%s.dcm",
                static_cast<long long>(file.instance_number),
                sha256(instance).substr(0, 8).c_str());
  result.output =
      fs::path(cleaner.pseudonym()) / ("series_" + sha256(series).substr(0, 8)) / number;
  const fs::path path = output_folder / result.output;
  fs::create_directories(path.parent_path());
  // Anew, so that nothing of the old file's meta information and preamble stays.
  DcmFileFormat copy(&item);
  write_file_atomically(path, [&](const fs::path& temporary) {
    const OFCondition status = copy.saveFile(temporary.c_str(), item.getOriginalXfer());
    if (status.bad()) throw DataError(path, std::string("cannot be written: ") + status.text());
  });
  return result;
}

}  // namespace vireo
