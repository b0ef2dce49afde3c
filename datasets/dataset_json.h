#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "datasets/source.h"

namespace vireo::source {

/// A JSON file that describes a data set. Fields are read strictly, unknown ones passed over;
/// errors name the file and the field.
class DatasetJson {
 public:
  explicit DatasetJson(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const nlohmann::json& json() const { return json_; }
  bool has(const std::string& field) const { return json_.is_object() && json_.contains(field); }
  std::string text(const std::string& field, const std::string& fallback) const;
  /// {"0": "CT", "1": "PET"} as a list.
  std::vector<std::string> numbered_names(const std::string& field) const;
  /// {"liver": 1} (nnU-Net) or {"1": "liver"} (Decathlon), background (value 0) first; "ignore"
  /// becomes source.ignore_value.
  void read_labels(DatasetSource& source) const;
  /// An error at a field.
  [[noreturn]] void fail(const std::string& field, const std::string& what) const;

 private:
  std::filesystem::path path_;
  nlohmann::json json_;
};

}  // namespace vireo::source
