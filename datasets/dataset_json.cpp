#include "datasets/dataset_json.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"

namespace vireo::source {
namespace {

std::optional<int64_t> whole_number(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

DatasetJson::DatasetJson(const std::filesystem::path& path)
    : path_(path), json_(parse_json(read_text(path, size_t{256} << 20), path)) {}

void DatasetJson::fail(const std::string& field, const std::string& what) const {
  throw DataError(path_, "field \"" + field + "\" " + what);
}

std::string DatasetJson::text(const std::string& field, const std::string& fallback) const {
  if (!has(field)) return fallback;
  if (!json_[field].is_string()) fail(field, "is not a text");
  return json_[field].get<std::string>();
}

std::vector<std::string> DatasetJson::numbered_names(const std::string& field) const {
  if (!has(field)) fail(field, "is missing; it names the channels, for example {\"0\": \"CT\"}");
  const auto& object = json_[field];
  if (!object.is_object() || object.empty())
    fail(field, "is not an object such as {\"0\": \"CT\"}");
  std::vector<std::string> names;
  for (size_t i = 0; i < object.size(); ++i) {
    const std::string number = std::to_string(i);
    if (!object.contains(number) || !object[number].is_string())
      fail(field,
           "has " + std::to_string(object.size()) + " entries, but none (or no name) for \"" +
               number + "\"; channels are numbered from 0 without gaps");
    names.push_back(object[number].get<std::string>());
  }
  return names;
}

void DatasetJson::read_labels(DatasetSource& source) const {
  if (!has("labels"))
    fail("labels", "is missing; it names the classes, for example {\"background\": 0}");
  const auto& object = json_["labels"];
  if (!object.is_object()) fail("labels", "is not an object such as {\"background\": 0}");
  std::set<int64_t> seen;
  for (const auto& [key, content] : object.items()) {
    std::string name = key;
    std::optional<int64_t> value;
    if (content.is_number_integer()) {
      value = content.get<int64_t>();
    } else if (content.is_string()) {  // one way round or the other, numbers as text
      value = whole_number(key);
      if (value)
        name = content.get<std::string>();
      else
        value = whole_number(content.get<std::string>());
    } else if (content.is_array()) {
      fail("labels." + key,
           "is a list: regions that overlap are not trained; give every class one value");
    }
    if (!value) fail("labels." + key, "is not a whole number");
    if (!seen.insert(*value).second)
      fail("labels." + key, "has the value " + std::to_string(*value) + ", as another class has");
    if (name == "ignore")
      source.ignore_value = value;
    else
      source.labels.push_back({name, *value, {}});
  }
  std::sort(source.labels.begin(), source.labels.end(), [](const Label& a, const Label& b) {
    return a.value < b.value;
  });
  if (source.labels.size() < 2 || source.labels[0].value != 0)
    fail("labels", "must hold the background with the value 0 and at least one class above");
  for (size_t i = 0; i < source.labels.size(); ++i)
    source.labels[i].color_rgb = default_color(static_cast<int64_t>(i));
}

}  // namespace vireo::source
