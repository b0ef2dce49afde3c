#include "vision/io/dicom/deidentify.h"

#include <ctime>
#include <fstream>
#include <regex>
#include <set>
#include <utility>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/sha256.h"
#include "vision/io/dicom/deidentify_attributes.h"
#include "vision/io/dicom/deidentify_pixels.h"
#include "vision/io/dicom/dicom_dataset.h"
#include "vision/io/dicom/dicom_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMethod = "Vireo: PS3.15 Annex E Basic Profile, kept by list";
constexpr int kMostDaysShifted = 3650;

// Required by the standard, but allowed to be empty (Type 2).
const std::vector<DcmTagKey>& always_there() {
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

  void clean(DcmItem& item, bool at_top = true) const {
    std::vector<DcmTagKey> remove, empty;
    for (unsigned long i = 0; i < item.card(); ++i) {
      DcmElement* element = item.getElement(i);
      switch (attribute_fate(*element, at_top, options_.shift_dates)) {
        case AttributeFate::kRemoved:
          remove.push_back(element->getTag());
          break;
        case AttributeFate::kEmptied:
          empty.push_back(element->getTag());
          break;
        case AttributeFate::kKept:
          if (auto* sequence = dynamic_cast<DcmSequenceOfItems*>(element);
              sequence != nullptr && element->ident() == EVR_SQ)
            for (unsigned long j = 0; j < sequence->card(); ++j)
              clean(*sequence->getItem(j), false);
          break;
        case AttributeFate::kNewUid:
          replace_uids(*element);
          break;
        case AttributeFate::kShifted:
          shift(*element);
          break;
      }
    }
    for (const DcmTagKey& tag : remove) item.findAndDeleteElement(tag);
    for (const DcmTagKey& tag : empty) item.insertEmptyElement(tag);
  }

 private:
  std::string digest(const std::string& what, const std::string& value) const {
    return sha256(options_.key + "\n" + what + "\n" + value);
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

  // Times of the day stay; days move. What is not written as the standard has it (ranges, text
  // behind a date) is emptied.
  void shift(DcmElement& element) const {
    OFString text;
    element.getOFStringArray(text);
    std::string value(text.c_str(), text.length());
    value.erase(value.find_last_not_of(std::string(" \0", 2)) + 1);
    static const std::regex time(R"([0-9:]{2,8}(\.[0-9]{1,6})?)"), date("[0-9]{8}"),
        moment(R"([0-9]{8}([0-9]{0,6}(\.[0-9]{1,6})?)([+-][0-9]{4})?)");
    const bool is_moment = element.ident() == EVR_DT;
    if (element.ident() == EVR_TM) {
      if (!std::regex_match(value, time)) element.putString("");
      return;
    }
    element.putString(std::regex_match(value, is_moment ? moment : date) ? moved(value).c_str()
                                                                         : "");
  }

  // A text that starts with a date, with that moved; empty if it is none of the calendar.
  std::string moved(const std::string& value) const {
    OFDate date;
    if (!date.setISOFormattedDate(value.substr(0, 8).c_str())) return "";
    const unsigned long drawn = std::stoul(digest("days", patient_).substr(0, 8), nullptr, 16);
    std::tm day{};
    day.tm_year = static_cast<int>(date.getYear()) - 1900;
    day.tm_mon = static_cast<int>(date.getMonth()) - 1;
    day.tm_mday = static_cast<int>(date.getDay()) - 1 - static_cast<int>(drawn % kMostDaysShifted);
    day.tm_hour = 12;
    ::timegm(&day);  // puts the fields in order
    if (day.tm_year < 1 - 1900) return "";
    char text[32];
    std::snprintf(
        text, sizeof text, "%04d%02d%02d", day.tm_year + 1900, day.tm_mon + 1, day.tm_mday);
    return text + value.substr(8);
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

std::string capitals(DcmItem& item, const DcmTagKey& tag) {
  std::string text = dicom_text(item, tag);
  for (char& letter : text)
    if (letter >= 'a' && letter <= 'z') letter = static_cast<char>(letter - 'a' + 'A');
  return text;
}

// Why names may be burned into the pixels; empty when nothing speaks for it.
std::string burned_in_warning(DcmItem& item, const DicomFile& file) {
  const std::string burned_in = capitals(item, DCM_BurnedInAnnotation);
  if (burned_in == "NO") return "";
  // Those that scanners write without text. What the file is, is told by its class and type too:
  // pictures of a screen often keep the modality of what was on it.
  static const std::set<std::string> without_text = {"CT", "MR", "PT", "NM", "SEG", "RTDOSE"};
  const std::string secondary = UID_SecondaryCaptureImageStorage;
  std::string why;
  if (!burned_in.empty())
    why = "BurnedInAnnotation is \"" + burned_in + "\", YES or NO was expected";
  else if (file.sop_class_uid == secondary || file.sop_class_uid.starts_with(secondary + "."))
    why = "secondary capture";
  else if (capitals(item, DCM_ImageType).find("SECONDARY") != std::string::npos)
    why = "image type " + file.image_type;
  else if (item.tagExistsWithValue(DCM_ConversionType))
    why = "conversion type " + dicom_text(item, DCM_ConversionType);
  else if (!without_text.contains(file.modality))
    why = "modality " + (file.modality.empty() ? "not told" : file.modality);
  if (why.empty()) return "";
  return why +
         ": such pictures often have names burned into their pixels, and the file does not say "
         "that there are none (BurnedInAnnotation = NO): look at the picture";
}

std::string face_warning(DcmItem& item) {
  const std::string features = capitals(item, DCM_RecognizableVisualFeatures);
  if (features.empty() || features == "NO") return "";
  return "RecognizableVisualFeatures is " + features +
         ": the pixels may show a face, or let one be drawn from them";
}

// A name as it is compared: the alphabetic one in capitals, without what separates nothing.
std::string comparable_name(DcmItem& item) {
  std::string name = capitals(item, DCM_PatientName), compared;
  if (name.find('=') != 0) name = name.substr(0, name.find('='));
  for (const char letter : name) {
    if (letter == '^' || letter == ' ')
      while (!compared.empty() && compared.back() == ' ') compared.pop_back();
    if (letter != ' ' || (!compared.empty() && compared.back() != '^')) compared += letter;
  }
  compared.erase(compared.find_last_not_of(" ^") + 1);
  return compared;
}

// What tells patients apart: the identifier, else the name, else every study is one of its own;
// where nothing is told at all, every folder.
std::string patient_of(DcmItem& item, const DicomFile& file) {
  std::string id = dicom_text(item, DCM_PatientID);
  id.erase(0, id.find_first_not_of(' '));
  if (!id.empty()) return "id\n" + id;
  if (const std::string name = comparable_name(item); !name.empty()) return "name\n" + name;
  for (const std::string& uid : {file.study_uid, file.series_uid, file.frame_of_reference_uid})
    if (!uid.empty()) return "uid\n" + uid;
  return "folder\n" + fs::absolute(file.path).parent_path().string();
}

// Where the data set does not tell what it is, the file's meta information may; what no UID tells
// from others, its content does.
void fill_in_uids(const fs::path& input, DcmFileFormat& format) {
  DcmDataset& item = *format.getDataset();
  for (const auto& [tag, meta_tag] :
       {std::pair(DCM_SOPClassUID, DCM_MediaStorageSOPClassUID),
        std::pair(DCM_SOPInstanceUID, DCM_MediaStorageSOPInstanceUID)})
    if (const std::string uid = dicom_text(*format.getMetaInfo(), meta_tag);
        dicom_text(item, tag).empty() && !uid.empty())
      item.putAndInsertString(tag, uid.c_str());
  if (dicom_text(item, DCM_SOPInstanceUID).empty())
    item.putAndInsertString(DCM_SOPInstanceUID, sha256_of_file(input).substr(0, 32).c_str());
}

// SERIES/NUMBER.dcm, by the new UIDs.
fs::path file_name(DcmItem& item, int64_t instance_number) {
  const auto short_digest = [&](const DcmTagKey& uid) {
    return sha256(dicom_text(item, uid)).substr(0, 8);
  };
  char number[32];
  std::snprintf(number, sizeof number, "%05lld_", static_cast<long long>(instance_number));
  return fs::path("series_" + short_digest(DCM_SeriesInstanceUID)) /
         (number + short_digest(DCM_SOPInstanceUID) + ".dcm");
}

}  // namespace

std::string random_key() {
  std::ifstream in("/dev/urandom", std::ios::binary);
  std::string bytes(32, '\0');
  if (!in.read(bytes.data(), 32)) throw Error("/dev/urandom cannot be read; give --key");
  return sha256(bytes);
}

Deidentifier::Deidentifier(fs::path output_folder, DeidentifyOptions options)
    : output_folder_(std::move(output_folder)), options_(std::move(options)) {}

Deidentified Deidentifier::copy(const fs::path& input) {
  const DicomFile file = read_dicom_header(input);
  DcmFileFormat format;
  load_dicom(input, DCM_MaxReadLength, format);
  DcmDataset& item = *format.getDataset();
  if (capitals(item, DCM_BurnedInAnnotation) == "YES")
    throw DataError(input,
                    "says that annotations are burned into its pixels (BurnedInAnnotation = YES); "
                    "nobody can take them out but by hand");
  fill_in_uids(input, format);
  const std::string old_instance = dicom_text(item, DCM_SOPInstanceUID);

  Deidentified result;
  for (const std::string& line :
       {burned_in_warning(item, file), face_warning(item), clean_pixel_data(input, item)})
    if (!line.empty()) result.warning += (result.warning.empty() ? "" : "; ") + line;
  const Cleaner cleaner(options_, patient_of(item, file));
  cleaner.clean(item);
  item.putAndInsertString(DCM_SOPInstanceUID, cleaner.new_uid(old_instance).c_str());
  for (const DcmTagKey& tag : always_there())
    if (!item.tagExists(tag)) item.insertEmptyElement(tag);
  if (item.tagExists(DCM_FrameOfReferenceUID) && !item.tagExists(DCM_PositionReferenceIndicator))
    item.insertEmptyElement(DCM_PositionReferenceIndicator);
  item.putAndInsertString(DCM_PatientName, cleaner.pseudonym().c_str());
  item.putAndInsertString(DCM_PatientID, cleaner.pseudonym().c_str());
  add_method(item, options_.shift_dates);

  result.output = fs::path(cleaner.pseudonym()) / file_name(item, file.instance_number);
  if (const auto [before, is_new] = input_of_.emplace(result.output, input); !is_new) {
    if (sha256_of_file(before->second) == sha256_of_file(input)) return result;
    throw DataError(input,
                    "is another file than " + before->second.string() +
                        " but of the same SOPInstanceUID " + old_instance +
                        ", so that its copy would take that one's place (" +
                        result.output.string() +
                        "): leave one out, or run them apart into folders of their own");
  }
  const fs::path path = output_folder_ / result.output;
  // Anew, so that nothing of the old file's meta information and preamble stays.
  DcmFileFormat copy(&item);
  try {
    write_file_atomically(path, [&](const fs::path& temporary) {
      const OFCondition status = copy.saveFile(temporary.c_str(), item.getOriginalXfer());
      if (status.bad())
        throw DataError(input, std::string("its copy cannot be written: ") + status.text());
    });
  } catch (...) {
    input_of_.erase(result.output);
    throw;
  }
  return result;
}

}  // namespace vireo
