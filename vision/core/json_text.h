#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

// JSON that others wrote: texts that are broken, or built to break their reader; and JSON files of
// ours, which may hold texts of theirs.
namespace vireo {

/// How deep lists and objects may lie in each other. What we read needs ten; copying and writing a
/// value takes the stack once per level.
inline constexpr int kDeepestJson = 100;

/// Parses a whole text. Throws DataError, `source` first, for one that is no JSON (with the place)
/// or is nested deeper than kDeepestJson.
nlohmann::json parse_json(std::string_view text, const std::filesystem::path& source);

/// The same, fields kept in the order of the text.
nlohmann::ordered_json parse_ordered_json(std::string_view text,
                                          const std::filesystem::path& source);

/// The text of a file: indented by two, a line's end at its end. Bytes that are no UTF-8, such as
/// those of a file's name, become U+FFFD, so that a result is never lost for a name.
std::string json_document(const nlohmann::json& value);
std::string json_document(const nlohmann::ordered_json& value);

/// The text of a field; empty when `value` is no object, lacks the field or holds no text there.
std::string json_text(const nlohmann::json& value, const std::string& field);

/// `value` itself, a number or lists of numbers. Throws nlohmann's type_error unless all of them
/// are whole and fit into int64: the library would cut off what stands behind the point, and make
/// anything of what is too large.
const nlohmann::json& whole_numbers(const nlohmann::json& value);

}  // namespace vireo
