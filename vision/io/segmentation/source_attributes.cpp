#include "vision/io/segmentation/source_attributes.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "vision/core/log.h"
#include "vision/core/utf8.h"
#include "vision/io/segmentation/dicom_output.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr char kDigits[] = "0123456789";

bool all_of(const std::string& text, const char* allowed) {
  return text.find_first_not_of(allowed) == std::string::npos;
}

// ISO 2022 switches character sets by it.
bool holds_escape(const std::string& text) {
  return text.find('\x1b') != std::string::npos;
}

bool continues_character(char c) {
  return (static_cast<unsigned char>(c) >> 6) == 2;
}

// Some letters with diacritics among more without: "M\xfcller". In another script's character set
// most letters of a name lie beyond ASCII, and in a multi-byte one some bytes are no letters.
bool looks_like_latin1(const std::string& text) {
  int64_t plain = 0, beyond = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      plain += std::isalpha(byte) != 0 ? 1 : 0;
    } else {
      if (byte < 0xc0 || byte == 0xd7 || byte == 0xf7) return false;
      ++beyond;
    }
  }
  return beyond < plain;
}

std::string utf8_from_latin1(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) result += static_cast<char>(0xc0 | byte >> 6);
    result += static_cast<char>(byte < 0x80 ? byte : 0x80 | (byte & 0x3f));
  }
  return result;
}

std::string without_padding(const OFString& value) {
  const std::string text(value.c_str(), value.length());
  return text.substr(0, text.find_last_not_of(std::string(" \0", 2)) + 1);
}

std::string trimmed(const std::string& text) {
  const size_t start = std::min(text.find_first_not_of(' '), text.size());
  return text.substr(start, text.find_last_not_of(' ') + 1 - start);
}

// Each of these mends one value where that changes only its form, and returns why it is not valid;
// empty: it is.

std::string mend_date(std::string& value) {
  int year = 0, month = 0, day = 0, length = 0;
  char first = 0, second = 0;
  const auto parts =
      std::sscanf(value.c_str(), "%4d%c%2d%c%2d%n", &year, &first, &month, &second, &day, &length);
  const bool separated = parts == 5 && static_cast<size_t>(length) == value.size() &&
                         first == second && std::string(".-/").find(first) != std::string::npos;
  if (!separated) {
    if (value.size() != 8 || !all_of(value, kDigits)) return "is no date YYYYMMDD";
    std::sscanf(value.c_str(), "%4d%2d%2d", &year, &month, &day);
  }
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (year < 1000 || month < 1 || day < 1 || !date.ok()) return "is no day of the calendar";
  char text[32];
  std::snprintf(text, sizeof text, "%04d%02d%02d", year, month, day);
  value = text;
  return "";
}

std::string mend_time(std::string& value) {
  const size_t point = value.find('.');
  std::string clock = value.substr(0, point);
  std::string fraction = point == std::string::npos ? "" : value.substr(point + 1, 6);
  if (clock.size() > 1 && clock[1] == ':') clock.insert(0, "0");
  const bool separated = (clock.size() == 5 || clock.size() == 8) && clock[2] == ':' &&
                         (clock.size() == 5 || clock[5] == ':');
  if (separated) std::erase(clock, ':');
  const bool sound = all_of(clock + fraction, kDigits) && clock.size() >= 2 && clock.size() <= 6 &&
                     clock.size() % 2 == 0 && (fraction.empty() || clock.size() == 6);
  if (!sound || clock.substr(0, 2) > "23" || (clock.size() > 2 && clock.substr(2, 2) > "59") ||
      (clock.size() > 4 && clock.substr(4) > "60"))
    return "is no time HHMMSS";
  value = clock + (fraction.empty() ? "" : "." + fraction);
  return "";
}

std::string mend_age(std::string& value) {
  if (!value.empty())
    value.back() = static_cast<char>(std::toupper(static_cast<unsigned char>(value.back())));
  if (value.size() > 1 && value.size() < 4) value.insert(0, 4 - value.size(), '0');
  const bool sound = value.size() == 4 && all_of(value.substr(0, 3), kDigits) &&
                     std::string("DWMY").find(value[3]) != std::string::npos;
  return sound ? "" : "is no age such as 042Y";
}

std::string mend_code(const DcmTagKey& tag, std::string& value) {
  for (char& c : value) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  std::vector<std::string> allowed;
  if (tag == DCM_PatientSex) {
    for (const char* word : {"MALE", "FEMALE", "OTHER"})
      if (value == word) value.resize(1);
    allowed = {"M", "F", "O"};
  }
  if (tag == DCM_PatientSexNeutered) allowed = {"ALTERED", "UNALTERED"};
  if (tag == DCM_PatientIdentityRemoved) allowed = {"YES", "NO"};
  if (!allowed.empty() && std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
    std::string list;
    for (const std::string& each : allowed) list += (list.empty() ? "" : ", ") + each;
    return "is none of " + list;
  }
  return all_of(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _") && value.size() <= 16
             ? ""
             : "is no code of at most 16 capitals, digits, spaces and underscores";
}

std::string mend_decimal(std::string& value) {
  char* end = nullptr;
  const double number = std::strtod(value.c_str(), &end);
  if (!all_of(value, "+-.0123456789eE") || *end != 0 || !std::isfinite(number))
    return "is no decimal number";
  if (value.size() > 16) value = decimal_string(number);
  return "";
}

// The characters that a text may have in all, or, for a name, in each of its groups; 0: any.
size_t most_characters(DcmEVR representation) {
  switch (representation) {
    case EVR_SH:
      return 16;
    case EVR_LO:
    case EVR_PN:
      return 64;
    case EVR_ST:
      return 1024;
    case EVR_LT:
      return 10240;
    default:
      return 0;
  }
}

bool is_paragraph(DcmEVR representation) {
  return representation == EVR_ST || representation == EVR_LT || representation == EVR_UT;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char c : text)
    if (c == separator)
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

size_t characters(const std::string& text) {
  return text.size() -
         static_cast<size_t>(std::count_if(text.begin(), text.end(), continues_character));
}

std::string control_fault(DcmEVR representation, const std::string& text) {
  const bool found = std::any_of(text.begin(), text.end(), [&](char c) {
    const bool layout = c == '\n' || c == '\r' || c == '\f' || c == '\t';
    return static_cast<unsigned char>(c) < 32 && !(layout && is_paragraph(representation));
  });
  return found ? "holds control characters" : "";
}

std::string name_fault(const std::string& name) {
  const std::vector<std::string> groups = split(name, '=');
  if (groups.size() > 3) return "has more than 3 groups";
  for (const std::string& group : groups) {
    if (characters(group) > most_characters(EVR_PN)) return "is longer than 64 characters";
    if (std::count(group.begin(), group.end(), '^') > 4) return "has more than 5 components";
  }
  return "";
}

std::string length_fault(DcmEVR representation, const std::string& text) {
  const size_t most = most_characters(representation);
  if (most == 0 || characters(text) <= most) return "";
  return "is longer than " + std::to_string(most) + " characters";
}

void shorten(DcmEVR representation, std::string& text) {
  size_t end = 0;
  for (size_t count = 0; end < text.size(); ++end)
    if (!continues_character(text[end]) && count++ == most_characters(representation)) break;
  text = trimmed(text.substr(0, end));
}

std::string mend_value(const DcmTagKey& tag, DcmEVR representation, std::string& value) {
  if (trimmed(value).empty()) {
    value.clear();
    return "";
  }
  switch (representation) {
    case EVR_AS:
    case EVR_CS:
    case EVR_DA:
    case EVR_DS:
    case EVR_IS:
    case EVR_TM:
    case EVR_UI:
      value = trimmed(value);
      break;
    default:
      if (std::string fault = control_fault(representation, value); !fault.empty()) return fault;
      return representation == EVR_PN ? name_fault(value) : length_fault(representation, value);
  }
  switch (representation) {
    case EVR_AS:
      return mend_age(value);
    case EVR_CS:
      return mend_code(tag, value);
    case EVR_DA:
      return mend_date(value);
    case EVR_DS:
      return mend_decimal(value);
    case EVR_IS:
      return DcmIntegerString::checkStringValue(value.c_str()).good() ? "" : "is no whole number";
    case EVR_TM:
      return mend_time(value);
    default:
      return DcmUniqueIdentifier::checkStringValue(value.c_str()).good() ? "" : "is no valid UID";
  }
}

bool takes_several(const DcmTagKey& tag) {
  const DcmDictEntry* entry = dcmDataDict.rdlock().findEntry(tag, nullptr);
  const bool several = entry == nullptr || entry->getVMMax() != 1;
  dcmDataDict.rdunlock();
  return several;
}

// All values of an attribute.
std::string mend(const DcmTagKey& tag, bool cut, bool& was_cut, std::string& text) {
  const DcmEVR representation = DcmTag(tag).getEVR();
  std::vector<std::string> values =
      is_paragraph(representation) ? std::vector<std::string>{text} : split(text, '\\');
  if (values.size() > 1 && !takes_several(tag)) return "holds several values";
  std::string joined;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string fault = mend_value(tag, representation, values[i]);
    const bool long_only = !fault.empty() && representation != EVR_PN &&
                           fault == length_fault(representation, values[i]);
    if (!fault.empty() && !(cut && long_only)) return fault;
    if (!fault.empty()) {
      shorten(representation, values[i]);
      was_cut = true;
    }
    joined += (i == 0 ? "" : "\\") + values[i];
  }
  text = joined;
  return "";
}

}  // namespace

SourceAttributes::SourceAttributes(fs::path path, DcmItem& header)
    : path_(std::move(path)), header_(header) {
  readable_ = character_set_.selectCharacterSet(header_).good();
  extended_ = header_.tagExistsWithValue(DCM_SpecificCharacterSet);
}

void SourceAttributes::warn(const std::string& name, const std::string& what) const {
  log_warning(path_.string() + ": its " + name + " " + what);
}

// Nothing where its bytes cannot be told.
std::optional<std::string> SourceAttributes::text_of(DcmElement& element, const std::string& name) {
  OFString stored;
  element.getOFStringArray(stored, OFFalse);
  const std::string text = without_padding(stored);
  if (is_ascii(text) && !holds_escape(text)) return text;
  extended_ = true;
  if (readable_) {
    const std::unique_ptr<DcmObject> copy(element.clone());
    auto& converted = dynamic_cast<DcmElement&>(*copy);
    if (converted.convertCharacterSet(character_set_).good()) {
      converted.getOFStringArray(stored, OFFalse);
      const std::string unicode = without_padding(stored);
      if (is_utf8(unicode) && !holds_escape(unicode)) return unicode;
    }
  }
  const std::string fault = "does not fit its SpecificCharacterSet (0008,0005) and is ";
  if (!holds_escape(text)) {
    if (is_utf8(text)) {
      warn(name, fault + "taken for UTF-8");
      return text;
    }
    if (looks_like_latin1(text)) {
      warn(name, fault + "taken for Latin-1");
      return utf8_from_latin1(text);
    }
  }
  warn(name, fault + "left out of what is written");
  return std::nullopt;
}

// Makes all texts within an item sound; the fault where one cannot be.
std::string SourceAttributes::make_sound(DcmItem& item) {
  if (item.tagExistsWithValue(DCM_SpecificCharacterSet)) {
    SourceAttributes own(path_, item);
    item.findAndDeleteElement(DCM_SpecificCharacterSet);
    const std::string fault = own.make_sound(item);
    extended_ = extended_ || own.extended_;
    return fault;
  }
  for (unsigned long i = 0; i < item.card(); ++i) {
    DcmElement* element = item.getElement(i);
    const DcmTagKey tag = element->getTag();
    const std::string name = DcmTag(tag).getTagName();
    if (auto* sequence = dynamic_cast<DcmSequenceOfItems*>(element)) {
      for (unsigned long j = 0; j < sequence->card(); ++j)
        if (std::string fault = make_sound(*sequence->getItem(j)); !fault.empty()) return fault;
    } else if (element->isaString()) {
      std::optional<std::string> text = text_of(*element, name);
      bool was_cut = false;
      if (!text) return "holds a " + name + " that cannot be read";
      if (const std::string fault = mend(tag, false, was_cut, *text); !fault.empty())
        return "holds a " + name + " that " + fault;
      put_text(item, tag, *text);
    }
  }
  return "";
}

void SourceAttributes::copy(const DcmTagKey& tag, IfUnsound otherwise, DcmItem& into) {
  DcmElement* element = nullptr;
  if (header_.findAndGetElement(tag, element).bad() || element == nullptr) return;
  const std::string name = DcmTag(tag).getTagName();
  const auto leave_out = [&](const std::string& fault) {
    warn(name, "is not valid (it " + fault + ") and is left out of what is written");
  };
  if (!element->isaString()) {
    std::unique_ptr<DcmElement> copy(dynamic_cast<DcmElement*>(element->clone()));
    if (auto* sequence = dynamic_cast<DcmSequenceOfItems*>(copy.get()))
      for (unsigned long i = 0; i < sequence->card(); ++i)
        if (const std::string fault = make_sound(*sequence->getItem(i)); !fault.empty())
          return leave_out(fault);
    if (into.insert(copy.get(), OFTrue).good()) static_cast<void>(copy.release());
    return;
  }
  std::optional<std::string> text = text_of(*element, name);
  if (!text) return;
  bool was_cut = false;
  const std::string fault = mend(tag, otherwise == IfUnsound::kShorten, was_cut, *text);
  if (was_cut) warn(name, "is too long and is cut off in what is written");
  if (!fault.empty() && otherwise != IfUnsound::kKeep) return leave_out(fault);
  if (!fault.empty()) warn(name, "is not valid (it " + fault + ") and is written as it is");
  put_text(into, tag, *text);
}

}  // namespace vireo
