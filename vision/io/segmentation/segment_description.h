#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vision/io/canvas.h"

// What the labels of a data set are, for the files that carry it: names, codes, colours.
namespace vireo {

/// A concept of a coding scheme, as DICOM's code sequences hold it.
struct CodedConcept {
  std::string value;    ///< at most 16 characters
  std::string scheme;   ///< "SCT" (SNOMED CT), "DCM", ...
  std::string meaning;  ///< at most 64 characters

  bool empty() const { return value.empty(); }
  bool operator==(const CodedConcept&) const = default;
};

struct SegmentDescription {
  enum class Algorithm { kAutomatic, kSemiautomatic, kManual };

  int64_t value = 0;  ///< in the label map, 1..65535
  std::string name;   ///< UTF-8, at most 64 characters
  std::string text;   ///< more words; may be empty
  Color color{};
  CodedConcept category, type;
  CodedConcept type_modifier, region, region_modifier;  ///< may be empty; a modifier needs its own
  Algorithm algorithm = Algorithm::kAutomatic;
  std::string algorithm_name;             ///< empty: that of the model which made the labels
  std::string tracking_id, tracking_uid;  ///< both or none; none: made when a file is written
};

/// A description from a name alone. Common organs and lesions ("Left Kidney", "kidney_left", "RV")
/// get their SNOMED CT codes, side included; every other name is Tissue, as in 3D Slicer. The
/// colour is label_color(value).
SegmentDescription describe_segment(int64_t value, const std::string& name);

/// Descriptions of the values 1, 2, ... from their names.
std::vector<SegmentDescription> describe_segments(const std::vector<std::string>& names);

/// Throws ConfigError(`where`, ...) when DICOM could not hold the descriptions: a value outside
/// 1..65535 or used twice, a name that is empty, too long or holds a backslash or control
/// characters, a missing category or type, an incomplete or too long code.
void check_segments(const std::string& where, const std::vector<SegmentDescription>& segments);

/// "AUTOMATIC", "SEMIAUTOMATIC" or "MANUAL", as in DICOM.
const char* to_string(SegmentDescription::Algorithm algorithm);

/// Why DICOM could not hold a text (UTF-8) as one value; empty: it can.
std::string fault_as_dicom_text(const std::string& text, size_t most_characters);

}  // namespace vireo
