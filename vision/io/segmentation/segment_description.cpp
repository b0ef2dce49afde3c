#include "vision/io/segmentation/segment_description.h"

#include <algorithm>
#include <map>

#include "vision/core/error.h"
#include "vision/io/segmentation/anatomy_codes.h"

namespace vireo {
namespace {

// Of UTF-8 text: bytes that do not continue a character.
size_t characters(const std::string& text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) >> 6) != 2; }));
}

void check_code(const std::string& where, const std::string& what, const CodedConcept& code) {
  if (code.empty() && code.scheme.empty() && code.meaning.empty()) return;
  const auto check = [&](const char* part, const std::string& text, size_t most) {
    const std::string fault = text.empty() ? "is empty" : fault_as_dicom_text(text, most);
    if (!fault.empty())
      throw ConfigError(where, std::string(part) + " of the " + what + " code " + fault);
  };
  check("the value", code.value, 16);
  check("the coding scheme", code.scheme, 16);
  check("the meaning", code.meaning, 64);
}

}  // namespace

std::string fault_as_dicom_text(const std::string& text, size_t most_characters) {
  if (characters(text) > most_characters)
    return "is longer than " + std::to_string(most_characters) + " characters";
  for (const char c : text)
    if (c == '\\' || static_cast<unsigned char>(c) < 32)
      return "holds a backslash or a control character";
  if (!text.empty() && (text.front() == ' ' || text.back() == ' '))
    return "starts or ends with a space";
  return "";
}

const char* to_string(SegmentDescription::Algorithm algorithm) {
  if (algorithm == SegmentDescription::Algorithm::kAutomatic) return "AUTOMATIC";
  return algorithm == SegmentDescription::Algorithm::kManual ? "MANUAL" : "SEMIAUTOMATIC";
}

SegmentDescription describe_segment(int64_t value, const std::string& name) {
  const AnatomyCodes codes = anatomy_codes(name);
  SegmentDescription segment;
  segment.value = value;
  segment.name = name;
  segment.color = label_color(value);
  segment.category = codes.category;
  segment.type = codes.type;
  segment.type_modifier = codes.side;
  return segment;
}

std::vector<SegmentDescription> describe_segments(const std::vector<std::string>& names) {
  std::vector<SegmentDescription> segments;
  for (const std::string& name : names)
    segments.push_back(describe_segment(static_cast<int64_t>(segments.size()) + 1, name));
  return segments;
}

void check_segments(const std::string& where, const std::vector<SegmentDescription>& segments) {
  std::map<int64_t, std::string> seen;
  for (const SegmentDescription& segment : segments) {
    const std::string which = "label " + std::to_string(segment.value);
    if (segment.value < 1 || segment.value > 65535)
      throw ConfigError(where, which + " (" + segment.name + ") is outside 1..65535");
    const auto [first, fresh] = seen.emplace(segment.value, segment.name);
    if (!fresh)
      throw ConfigError(where,
                        which + " is described twice: " + first->second + " and " + segment.name +
                            ". Each value of the label map needs one description");
    const std::string place = where + ": " + which;
    const auto check = [&](const char* what, const std::string& text, size_t most) {
      const std::string fault = fault_as_dicom_text(text, most);
      if (!fault.empty()) throw ConfigError(place, std::string(what) + " " + fault);
    };
    if (segment.name.empty()) throw ConfigError(place, "the name is empty");
    check("the name", segment.name, 64);
    check("the description", segment.text, 1024);
    check("the algorithm's name", segment.algorithm_name, 64);
    check("the tracking UID", segment.tracking_uid, 64);
    if (segment.tracking_id.empty() != segment.tracking_uid.empty())
      throw ConfigError(place,
                        "has a tracking identifier without a tracking UID, or one without "
                        "the other; give both or none");
    if (segment.tracking_uid.find_first_not_of("0123456789.") != std::string::npos)
      throw ConfigError(
          place,
          "the tracking UID " + segment.tracking_uid + " is no UID: digits and dots are allowed");
    if (segment.category.empty()) throw ConfigError(place, "the category code is missing");
    if (segment.type.empty()) throw ConfigError(place, "the type code is missing");
    check_code(place, "category", segment.category);
    check_code(place, "type", segment.type);
    check_code(place, "type modifier", segment.type_modifier);
    check_code(place, "anatomic region", segment.region);
    check_code(place, "anatomic region modifier", segment.region_modifier);
    if (segment.region.empty() && !segment.region_modifier.empty())
      throw ConfigError(place, "has an anatomic region modifier without an anatomic region");
  }
}

}  // namespace vireo
