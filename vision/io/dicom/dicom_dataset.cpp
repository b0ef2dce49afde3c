#include "vision/io/dicom/dicom_dataset.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/io/dicom/dicom_deflated.h"
#include "vision/io/dicom/dicom_file.h"

namespace vireo {

void silence_dcmtk() {
  static const bool quiet = [] {
    OFLog::configure(OFLogger::OFF_LOG_LEVEL);
    return true;
  }();
  static_cast<void>(quiet);
}

void load_dicom(const std::filesystem::path& path, unsigned longest_value, DcmFileFormat& format) {
  silence_dcmtk();
  if (!is_dicom(path))
    throw DataError(path, "is not DICOM: no DICM prefix and no data element at its start");
  check_deflated_lengths(path);
  const OFCondition status =
      format.loadFile(path.c_str(), EXS_Unknown, EGL_noChange, longest_value, ERM_autoDetect);
  if (status.bad()) throw DataError(path, std::string("is broken DICOM: ") + status.text());
}

std::vector<double> dicom_numbers(DcmItem& item, const DcmTagKey& tag) {
  DcmElement* element = nullptr;
  if (item.findAndGetElement(tag, element).bad() || element == nullptr) return {};
  std::vector<double> values;
  for (unsigned long i = 0; i < element->getVM(); ++i) {
    OFString text;
    if (element->getOFString(text, i).bad()) return {};
    const char* begin = text.c_str();
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    if (end == begin || !std::isfinite(value)) return {};
    values.push_back(value);
  }
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

}  // namespace vireo
