#include "vision/io/dicom/dicom_dataset.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcspchrs.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/core/utf8.h"
#include "vision/io/dicom/dicom_deflated.h"
#include "vision/io/dicom/dicom_folder.h"

namespace vireo {
namespace {

constexpr const char* kBlanks = " \t\r\n";

// `malformed`: whether a value is a text that is no number.
std::vector<double> numbers_of(DcmItem& item, const DcmTagKey& tag, bool& malformed) {
  DcmElement* element = nullptr;
  if (item.findAndGetElement(tag, element).bad() || element == nullptr) return {};
  std::vector<double> values;
  bool whole = true;
  for (unsigned long i = 0; i < element->getVM(); ++i) {
    OFString text;
    if (element->getOFString(text, i).bad()) return {};
    const char* begin = text.c_str();
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    const bool blank = std::strspn(begin, kBlanks) == std::strlen(begin);
    malformed = malformed || (!blank && (end == begin || end[std::strspn(end, kBlanks)] != '\0'));
    whole = whole && !blank && std::isfinite(value);
    values.push_back(value);
  }
  if (!whole || malformed) values.clear();
  return values;
}

}  // namespace

void set_up_dcmtk() {
  static const bool quiet = [] {
    OFLog::configure(OFLogger::OFF_LOG_LEVEL);
    // Known attributes that were written without their type get the one of the dictionary.
    dcmEnableUnknownVRConversion.set(OFTrue);
    return true;
  }();
  static_cast<void>(quiet);
}

void load_dicom(const std::filesystem::path& path, unsigned longest_value, DcmFileFormat& format) {
  set_up_dcmtk();
  if (!is_dicom(path))
    throw DataError(path, "is not DICOM: no DICM prefix and no data element at its start");
  check_deflated_lengths(path);
  const OFCondition status =
      format.loadFile(path.c_str(), EXS_Unknown, EGL_noChange, longest_value, ERM_autoDetect);
  if (status.bad()) throw DataError(path, std::string("is broken DICOM: ") + status.text());
}

std::vector<double> dicom_numbers(DcmItem& item, const DcmTagKey& tag) {
  bool ignored = false;
  return numbers_of(item, tag, ignored);
}

std::vector<double> sound_dicom_numbers(const std::filesystem::path& path,
                                        DcmItem& item,
                                        const DcmTagKey& tag) {
  bool malformed = false;
  std::vector<double> values = numbers_of(item, tag, malformed);
  if (malformed)
    throw DataError(path,
                    dicom_tag_name(tag) + " is \"" + valid_utf8(dicom_text(item, tag)) +
                        "\"; numbers with a decimal point were expected. Correct the attribute");
  return values;
}

int64_t dicom_integer(DcmItem& item, const DcmTagKey& tag, int64_t otherwise) {
  const std::vector<double> values = dicom_numbers(item, tag);
  return values.empty() ? otherwise : std::llround(std::clamp(values[0], -0x1p53, 0x1p53));
}

std::string dicom_text(DcmItem& item, const DcmTagKey& tag) {
  OFString text;
  if (item.findAndGetOFStringArray(tag, text).bad()) return {};
  std::string result(text.c_str(), text.length());
  const size_t end = result.find_last_not_of(std::string(" \0", 2));
  result.erase(end == std::string::npos ? 0 : end + 1);
  return result;
}

std::string dicom_utf8_text(DcmItem& data_set, const DcmTagKey& tag) {
  const std::string text = dicom_text(data_set, tag);
  const auto plain = [](char c) { return c >= ' ' && c <= '~'; };
  if (std::all_of(text.begin(), text.end(), plain)) return text;
  DcmSpecificCharacterSet converter;
  OFString converted;
  if (!dicom_text(data_set, DCM_SpecificCharacterSet).empty() &&
      converter.selectCharacterSet(data_set).good() &&
      converter.convertString(text.data(), text.size(), converted, "\\").good())
    return valid_utf8(std::string(converted.c_str(), converted.length()));
  return valid_utf8(text);
}

std::string dicom_tag_name(const DcmTagKey& tag) {
  char numbers[32];
  std::snprintf(numbers, sizeof numbers, " (%04x,%04x)", tag.getGroup(), tag.getElement());
  return std::string(DcmTag(tag).getTagName()) + numbers;
}

}  // namespace vireo
