#include "vision/io/segmentation/dcmqi_metadata.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <set>

#include <nlohmann/json.hpp>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// A JSON object whose fields are asked for one by one; what nobody asked for is refused at the end.
class JsonFields {
 public:
  JsonFields(const fs::path& path, std::string place, const Json& object)
      : path_(path), place_(std::move(place)), object_(object) {
    if (!object.is_object()) fail("", "is not an object {...}");
  }

  [[noreturn]] void fail(const std::string& field, const std::string& what) const {
    const std::string dot = place_.empty() || field.empty() ? "" : ".";
    const std::string where = place_ + dot + field;
    throw DataError(path_, (where.empty() ? "the file" : where) + ": " + what);
  }

  const Json* find(const std::string& field) {
    known_.insert(field);
    const auto found = object_.find(field);
    return found == object_.end() ? nullptr : &*found;
  }

  const Json& require(const std::string& field) {
    const Json* value = find(field);
    if (value == nullptr) {
      for (const auto& [key, ignored] : object_.items())
        if (lower_case(key) == lower_case(field))
          fail(field, "is missing; there is \"" + key + "\", but case matters");
      fail(field, "is missing");
    }
    return *value;
  }

  std::string text(const std::string& field, const std::string& otherwise) {
    const Json* value = find(field);
    return value == nullptr ? otherwise : text_of(field, *value);
  }
  std::string text(const std::string& field) { return text_of(field, require(field)); }

  // A text that DICOM holds as one value of at most 64 characters.
  std::string line(const std::string& field, const std::string& otherwise) {
    const std::string value = text(field, otherwise);
    if (const std::string fault = fault_as_dicom_text(value, 64); !fault.empty())
      fail(field, fault);
    return value;
  }

  // An integer, which the schema writes as a string.
  int64_t number_text(const std::string& field, int64_t otherwise) {
    const Json* value = find(field);
    if (value == nullptr) return otherwise;
    if (value->is_number_integer()) return value->get<int64_t>();
    const std::string digits = text_of(field, *value);
    if (digits.empty() || digits.size() > 9 ||
        digits.find_first_not_of("0123456789") != std::string::npos)
      fail(field, "is \"" + digits + "\"; a whole number was expected");
    return std::stoll(digits);
  }

  std::string code_string(const std::string& field, const std::string& otherwise) {
    const std::string value = text(field, otherwise);
    const bool sound =
        value.size() <= 16 && std::all_of(value.begin(), value.end(), [](char c) {
          return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == ' ' || c == '_';
        });
    if (!sound)
      fail(field,
           "is \"" + value +
               "\"; DICOM allows capitals, digits, spaces and underscores, at most 16 of them");
    return value;
  }

  CodedConcept code(const std::string& field) {
    const Json* value = find(field);
    if (value == nullptr) return {};
    JsonFields fields(path_, place_ + "." + field, *value);
    CodedConcept code;
    code.value = fields.text("CodeValue");
    code.scheme = fields.text("CodingSchemeDesignator");
    code.meaning = fields.text("CodeMeaning");
    if (code.value.empty()) fields.fail("CodeValue", "is empty");
    fields.finish();
    return code;
  }

  void finish() const {
    for (const auto& [key, ignored] : object_.items()) {
      if (known_.count(key)) continue;
      std::string list;
      for (const std::string& name : known_) list += (list.empty() ? "" : ", ") + name;
      fail(key, "is not a field of dcmqi's schema; known here: " + list);
    }
  }

 private:
  std::string text_of(const std::string& field, const Json& value) const {
    if (!value.is_string()) fail(field, "is not a text in quotes");
    return value.get<std::string>();
  }

  const fs::path& path_;
  std::string place_;
  const Json& object_;
  std::set<std::string> known_;
};

Color color_of(JsonFields& fields, int64_t value) {
  const Json* given = fields.find("recommendedDisplayRGBValue");
  if (fields.find("RecommendedDisplayCIELabValue") != nullptr)
    fields.fail("RecommendedDisplayCIELabValue",
                "is not read; give recommendedDisplayRGBValue, [0..255, 0..255, 0..255]");
  if (given == nullptr) return label_color(value);
  Color color{};
  const bool sound =
      given->is_array() && given->size() == 3 &&
      std::all_of(given->begin(), given->end(), [](const Json& part) {
        return part.is_number_integer() && part.get<int64_t>() >= 0 && part.get<int64_t>() <= 255;
      });
  if (!sound)
    fields.fail("recommendedDisplayRGBValue",
                "is " + given->dump() + "; three whole numbers 0..255 were expected");
  for (size_t i = 0; i < 3; ++i) color[i] = (*given)[i].get<uint8_t>();
  return color;
}

SegmentDescription::Algorithm algorithm_of(JsonFields& fields) {
  using Algorithm = SegmentDescription::Algorithm;
  const std::string name = fields.text("SegmentAlgorithmType");
  for (const Algorithm each :
       {Algorithm::kAutomatic, Algorithm::kSemiautomatic, Algorithm::kManual})
    if (name == to_string(each)) return each;
  fields.fail("SegmentAlgorithmType",
              "is \"" + name + "\"; AUTOMATIC, SEMIAUTOMATIC or MANUAL was expected");
}

SegmentDescription segment_of(JsonFields fields) {
  SegmentDescription segment;
  const Json& value = fields.require("labelID");
  if (!value.is_number_integer()) fields.fail("labelID", "is not a whole number");
  segment.value = value.get<int64_t>();
  for (const char* field :
       {"SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"})
    fields.require(field);
  segment.category = fields.code("SegmentedPropertyCategoryCodeSequence");
  segment.type = fields.code("SegmentedPropertyTypeCodeSequence");
  segment.type_modifier = fields.code("SegmentedPropertyTypeModifierCodeSequence");
  segment.region = fields.code("AnatomicRegionSequence");
  segment.region_modifier = fields.code("AnatomicRegionModifierSequence");
  segment.algorithm = algorithm_of(fields);
  segment.algorithm_name = fields.text("SegmentAlgorithmName", "");
  segment.tracking_id = fields.text("TrackingIdentifier", "");
  segment.tracking_uid = fields.text("TrackingUniqueIdentifier", "");
  segment.text = fields.text("SegmentDescription", "");
  segment.name =
      fields.text("SegmentLabel", segment.text.empty() ? segment.type.meaning : segment.text);
  segment.color = color_of(fields, segment.value);
  fields.find("segmentationFileName");
  fields.finish();
  return segment;
}

}  // namespace

SegmentationMetadata read_dcmqi_metadata(const fs::path& path) {
  const Json document = parse_json(read_text(path, size_t{64} << 20), path);
  JsonFields fields(path, "", document);
  SegmentationMetadata metadata;
  fields.find("@schema");
  metadata.series_description = fields.line("SeriesDescription", metadata.series_description);
  metadata.series_number = fields.number_text("SeriesNumber", metadata.series_number);
  metadata.instance_number = fields.number_text("InstanceNumber", metadata.instance_number);
  metadata.content_label = fields.code_string("ContentLabel", metadata.content_label);
  metadata.content_description = fields.line("ContentDescription", metadata.content_description);
  metadata.content_creator_name = fields.line("ContentCreatorName", "");
  metadata.body_part_examined = fields.code_string("BodyPartExamined", "");
  metadata.trial_coordinating_center = fields.line("ClinicalTrialCoordinatingCenterName", "");
  metadata.trial_series_id = fields.line("ClinicalTrialSeriesID", "");
  metadata.trial_time_point_id = fields.line("ClinicalTrialTimePointID", "");

  const Json& lists = fields.require("segmentAttributes");
  if (!lists.is_array()) fields.fail("segmentAttributes", "is not a list of lists [[{...}]]");
  for (size_t i = 0; i < lists.size(); ++i) {
    const std::string list = "segmentAttributes[" + std::to_string(i) + "]";
    if (!lists[i].is_array()) fields.fail(list, "is not a list of segments [{...}]");
    for (size_t j = 0; j < lists[i].size(); ++j)
      metadata.segments.push_back(
          segment_of(JsonFields(path, list + "[" + std::to_string(j) + "]", lists[i][j])));
  }
  if (metadata.segments.empty()) fields.fail("segmentAttributes", "describes no segment");
  fields.finish();
  try {
    check_segments("segmentAttributes", metadata.segments);
  } catch (const ConfigError& error) {
    throw DataError(path, error.what());
  }
  return metadata;
}

}  // namespace vireo
