#include "vision/core/json_text.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <nlohmann/json.hpp>

#include "vision/core/error.h"

namespace vireo {
namespace {

// Brackets outside of texts: enough for sound JSON, and of the rest the parser makes nothing deep.
int depth_of(std::string_view text) {
  int depth = 0, deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

template <typename Json>
Json parsed(std::string_view text, const std::filesystem::path& source) {
  if (const int depth = depth_of(text); depth > kDeepestJson)
    throw DataError(source,
                    "holds lists or objects nested " + std::to_string(depth) +
                        " deep; JSON is read to a depth of " + std::to_string(kDeepestJson));
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    std::string reason = error.what();
    const size_t start = reason.find("] ");
    throw DataError(
        source,
        "is not valid JSON: " + (start == std::string::npos ? reason : reason.substr(start + 2)));
  }
}

template <typename Json>
std::string document(const Json& value) {
  return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::filesystem::path& source) {
  return parsed<nlohmann::json>(text, source);
}

nlohmann::ordered_json parse_ordered_json(std::string_view text,
                                          const std::filesystem::path& source) {
  return parsed<nlohmann::ordered_json>(text, source);
}

std::string json_document(const nlohmann::json& value) {
  return document(value);
}

std::string json_document(const nlohmann::ordered_json& value) {
  return document(value);
}

std::string json_text(const nlohmann::json& value, const std::string& field) {
  if (!value.is_object()) return "";
  const auto found = value.find(field);
  return found != value.end() && found->is_string() ? found->get<std::string>() : "";
}

const nlohmann::json& whole_numbers(const nlohmann::json& value) {
  if (value.is_array()) {
    for (const auto& part : value) whole_numbers(part);
    return value;
  }
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || std::in_range<int64_t>(value.get<uint64_t>()));
  if (!fits)
    throw nlohmann::json::type_error::create(
        302, "a whole number was expected, found " + value.dump(), &value);
  return value;
}

}  // namespace vireo
