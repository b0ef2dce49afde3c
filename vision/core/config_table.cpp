#include "vision/core/config_table.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <sstream>

#include <toml++/toml.h>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {

struct ConfigTable::Node {
  std::shared_ptr<const toml::table> root;                // keeps `given` alive
  const toml::table* given = nullptr;                     // what the file or an override says
  std::string name;                                       // "train.augment"; empty for the root
  std::string source;                                     // the file's name
  toml::table resolved;                                   // what was read, defaults included
  std::map<std::string, std::shared_ptr<Node>> children;  // sub-tables asked for
};

namespace {

std::string full_name(const std::string& table, std::string_view key) {
  return table.empty() ? std::string(key) : table + "." + std::string(key);
}

std::string position(const std::string& source, const toml::source_region& region) {
  if (!region.begin) return source;
  return source + ":" + std::to_string(region.begin.line) + ":" +
         std::to_string(region.begin.column);
}

std::string type_name(const toml::node& node) {
  std::ostringstream out;
  out << node.type();
  return out.str();
}

// Names of very different lengths are not compared letter by letter: any number of them.
size_t edit_distance(std::string_view a, std::string_view b) {
  if (a.size() > 2 * b.size() + 8) return a.size();
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

// Tables within tables are made and destroyed one inside the other, on the stack. The parser bounds
// brackets itself, but not the dots of a name: a.a.a.a = 1. Whatever stands between them, a name
// ends at one of these.
void check_depth(std::string_view text, const std::string& source_name) {
  constexpr int kMostDots = 1000;
  int dots = 0, line = 1;
  for (const char c : text) {
    if (c == '\n') ++line;
    if (c == '\n' || c == '=' || c == ',' || c == '{' || c == '}')
      dots = 0;
    else if (c == '.' && ++dots > kMostDots)
      throw ConfigError(source_name + ":" + std::to_string(line) + ":1",
                        "a name with more than " + std::to_string(kMostDots) + " dots");
  }
}

// Where a character beyond ASCII stands outside of quotes and comments, where TOML has none; npos:
// nowhere. The parser's test for such spaces is undefined for some of them (toml++ 3.3, é is one),
// so they must not reach it. What follows a mistake in the quoting is never parsed.
size_t beyond_ascii_unquoted(std::string_view text) {
  size_t at = text.starts_with("\xEF\xBB\xBF") ? 3 : 0;  // a byte order mark
  while (at < text.size()) {
    const char c = text[at];
    if (static_cast<unsigned char>(c) > 0x7F) return at;
    if (c == '#') {
      at = text.find('\n', at);
    } else if (c == '"' || c == '\'') {
      const bool many_lines = text.substr(at).starts_with(std::string(3, c));
      const std::string_view quote = text.substr(at, many_lines ? 3 : 1);
      for (at += quote.size(); at < text.size(); ++at) {
        if (c == '"' && text[at] == '\\') {
          ++at;
        } else if (text.substr(at).starts_with(quote)) {
          at += quote.size();
          // Up to two quotes may stand right before the three that end a text.
          for (int i = 0; many_lines && i < 2 && at < text.size() && text[at] == c; ++i) ++at;
          break;
        } else if (text[at] == '\n' && !many_lines) {
          break;
        }
      }
      continue;
    } else {
      ++at;
    }
  }
  return std::string_view::npos;
}

void check_ascii(std::string_view text, const std::string& source_name) {
  const size_t at = beyond_ascii_unquoted(text);
  if (at == std::string_view::npos) return;
  const std::string_view before = text.substr(0, at);
  const size_t line_start = before.find_last_of('\n') + 1;
  throw ConfigError(source_name + ":" +
                        std::to_string(1 + std::count(before.begin(), before.end(), '\n')) + ":" +
                        std::to_string(at - line_start + 1),
                    "not valid TOML: a character beyond ASCII outside of quotes and comments; put "
                    "the name or value in \"quotes\"");
}

void apply_override(toml::table& root, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError("--set " + text + ": expected key=value, for example --set train.epochs=20");
  const std::string key = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  toml::table parsed;
  try {
    if (beyond_ascii_unquoted(value) == std::string::npos)
      parsed = toml::parse("value = " + value);
    else
      parsed.insert("value", value);
  } catch (const toml::parse_error&) {
    parsed.insert("value", value);  // a bare word
  }
  toml::table* table = &root;
  std::istringstream parts(key);
  std::string part;
  std::vector<std::string> path;
  while (std::getline(parts, part, '.')) path.push_back(part);
  for (size_t i = 0; i + 1 < path.size(); ++i) {
    toml::node* next = table->get(path[i]);
    if (!next) next = &table->insert(path[i], toml::table{}).first->second;
    if (!next->is_table())
      throw UsageError("--set " + text + ": " + path[i] + " is a value, not a table");
    table = next->as_table();
  }
  table->insert_or_assign(path.back(), *parsed.get("value"));
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text.empty() ? "none" : text;
}

}  // namespace

ConfigTable::ConfigTable(std::shared_ptr<Node> node) : node_(std::move(node)) {}

ConfigTable ConfigTable::from_file(const std::filesystem::path& path,
                                   const std::vector<std::string>& overrides) {
  return from_text(read_text(path, size_t{16} << 20), path.string(), overrides);
}

ConfigTable ConfigTable::from_text(std::string_view text,
                                   const std::string& source_name,
                                   const std::vector<std::string>& overrides) {
  auto node = std::make_shared<Node>();
  node->source = source_name;
  auto root = std::make_shared<toml::table>();
  check_depth(text, source_name);
  check_ascii(text, source_name);
  for (const auto& one : overrides) check_depth(one, "--set");
  try {
    *root = toml::parse(text, source_name);
  } catch (const toml::parse_error& error) {
    throw ConfigError(position(source_name, error.source()),
                      "not valid TOML: " + std::string(error.description()));
  }
  for (const auto& text_of_override : overrides) apply_override(*root, text_of_override);
  node->given = root.get();
  node->root = std::move(root);
  return ConfigTable(node);
}

bool ConfigTable::has(std::string_view key) const {
  return node_->given->contains(key);
}

bool ConfigTable::is_list(std::string_view key) const {
  const toml::node* found = node_->given->get(key);
  return found && found->is_array();
}

std::vector<std::string> ConfigTable::keys() const {
  std::vector<std::string> names;
  for (const auto& [key, value] : *node_->given) names.emplace_back(key.str());
  return names;
}

ConfigTable ConfigTable::table(std::string_view key) {
  auto& child = node_->children[std::string(key)];
  if (!child) {
    child = std::make_shared<Node>();
    child->name = full_name(node_->name, key);
    child->source = node_->source;
    if (const toml::node* found = node_->given->get(key)) {
      if (!found->is_table()) fail(key, "found a " + type_name(*found) + ", expected a table");
      child->given = found->as_table();
      child->root = node_->root;
    } else {
      child->root = std::make_shared<toml::table>();
      child->given = child->root.get();
    }
  }
  return ConfigTable(child);
}

void ConfigTable::fail(std::string_view key, const std::string& what) const {
  const toml::node* found = key.empty() ? nullptr : node_->given->get(key);
  const std::string where = found ? position(node_->source, found->source()) : node_->source;
  throw ConfigError(where, full_name(node_->name, key) + ": " + what);
}

bool ConfigTable::boolean(std::string_view key, bool fallback) {
  bool value = fallback;
  if (const toml::node* found = node_->given->get(key)) {
    if (!found->is_boolean())
      fail(key, "found a " + type_name(*found) + ", expected true or false");
    value = *found->value<bool>();
  }
  node_->resolved.insert_or_assign(key, value);
  return value;
}

int64_t ConfigTable::integer(std::string_view key, int64_t fallback, int64_t min, int64_t max) {
  int64_t value = fallback;
  if (const toml::node* found = node_->given->get(key)) {
    if (!found->is_integer()) fail(key, "found a " + type_name(*found) + ", expected an integer");
    value = *found->value<int64_t>();
    if (value < min || value > max) {
      const std::string upper = max == kMaxInteger ? "" : " and at most " + std::to_string(max);
      fail(key,
           "is " + std::to_string(value) + ", must be at least " + std::to_string(min) + upper);
    }
  }
  node_->resolved.insert_or_assign(key, value);
  return value;
}

int64_t ConfigTable::integer(std::string_view key) {
  if (!has(key)) fail(key, "is missing; an integer is required");
  return integer(key, 0, std::numeric_limits<int64_t>::min());
}

double ConfigTable::number(std::string_view key, double fallback, double min, double max) {
  double value = fallback;
  if (const toml::node* found = node_->given->get(key)) {
    if (!found->is_number()) fail(key, "found a " + type_name(*found) + ", expected a number");
    value = *found->value<double>();
    if (!(value >= min && value <= max)) {
      std::ostringstream message;
      message << "is " << value << ", must lie in [" << min << ", " << max << "]";
      fail(key, message.str());
    }
  }
  node_->resolved.insert_or_assign(key, value);
  return value;
}

std::string ConfigTable::text(std::string_view key, const std::string& fallback) {
  std::string value = fallback;
  if (const toml::node* found = node_->given->get(key)) {
    if (!found->is_string()) fail(key, "found a " + type_name(*found) + ", expected a string");
    value = *found->value<std::string>();
  }
  node_->resolved.insert_or_assign(key, value);
  return value;
}

std::string ConfigTable::text(std::string_view key) {
  if (!has(key)) fail(key, "is missing; a string is required");
  return text(key, "");
}

std::string ConfigTable::choice(std::string_view key,
                                const std::string& fallback,
                                const std::vector<std::string>& choices) {
  const std::string value = text(key, fallback);
  if (std::find(choices.begin(), choices.end(), value) == choices.end())
    fail(key, "is \"" + value + "\", must be one of: " + join(choices));
  return value;
}

std::filesystem::path ConfigTable::path(std::string_view key, const std::string& fallback) {
  const std::string value = text(key, fallback);
  try {
    return expand_environment(value);
  } catch (const Error& error) {
    fail(key, error.what());
  }
}

std::filesystem::path ConfigTable::path(std::string_view key) {
  if (!has(key)) fail(key, "is missing; a path is required");
  return path(key, "");
}

namespace {

// A list's elements, each through `convert`, which returns nothing for a wrong type.
template <typename T, typename Convert>
std::optional<std::vector<T>> read_list(const toml::node& node, Convert convert) {
  const toml::array* array = node.as_array();
  if (!array) return std::nullopt;
  std::vector<T> values;
  for (const toml::node& element : *array) {
    const std::optional<T> value = convert(element);
    if (!value) return std::nullopt;
    values.push_back(*value);
  }
  return values;
}

template <typename T>
toml::array to_array(const std::vector<T>& values) {
  toml::array array;
  for (const T& value : values) array.push_back(value);
  return array;
}

}  // namespace

std::vector<int64_t> ConfigTable::integers(std::string_view key,
                                           const std::vector<int64_t>& fallback,
                                           size_t size) {
  std::vector<int64_t> values = fallback;
  if (const toml::node* found = node_->given->get(key)) {
    auto read = read_list<int64_t>(*found, [](const toml::node& n) -> std::optional<int64_t> {
      if (!n.is_integer()) return std::nullopt;
      return n.value<int64_t>();
    });
    if (!read) fail(key, "expected a list of integers");
    values = *read;
    if (size && values.size() != size)
      fail(key,
           "has " + std::to_string(values.size()) + " elements, must have " + std::to_string(size));
  }
  node_->resolved.insert_or_assign(key, to_array(values));
  return values;
}

std::vector<double> ConfigTable::numbers(std::string_view key,
                                         const std::vector<double>& fallback,
                                         size_t size) {
  std::vector<double> values = fallback;
  if (const toml::node* found = node_->given->get(key)) {
    auto read = read_list<double>(*found, [](const toml::node& n) { return n.value<double>(); });
    if (!read) fail(key, "expected a list of numbers");
    values = *read;
    if (size && values.size() != size)
      fail(key,
           "has " + std::to_string(values.size()) + " elements, must have " + std::to_string(size));
  }
  node_->resolved.insert_or_assign(key, to_array(values));
  return values;
}

std::vector<std::string> ConfigTable::texts(std::string_view key,
                                            const std::vector<std::string>& fallback) {
  std::vector<std::string> values = fallback;
  if (const toml::node* found = node_->given->get(key)) {
    auto read =
        read_list<std::string>(*found, [](const toml::node& n) -> std::optional<std::string> {
          if (!n.is_string()) return std::nullopt;
          return n.value<std::string>();
        });
    if (!read) fail(key, "expected a list of strings");
    values = *read;
  }
  node_->resolved.insert_or_assign(key, to_array(values));
  return values;
}

void ConfigTable::finish() const {
  for (const auto& [key, value] : *node_->given) {
    const std::string name(key.str());
    if (node_->resolved.contains(name)) continue;
    const auto child = node_->children.find(name);
    if (child != node_->children.end()) {
      ConfigTable(child->second).finish();
      continue;
    }
    std::vector<std::string> known;
    for (const auto& [known_key, known_value] : node_->resolved)
      known.emplace_back(known_key.str());
    for (const auto& [known_key, known_child] : node_->children) known.push_back(known_key);
    std::sort(known.begin(), known.end());
    const auto nearest = std::min_element(known.begin(), known.end(), [&](auto& a, auto& b) {
      return edit_distance(name, a) < edit_distance(name, b);
    });
    const std::string hint = nearest != known.end() && edit_distance(name, *nearest) <= 3
                                 ? "; did you mean \"" + *nearest + "\"?"
                                 : "";
    fail(name, "unknown key" + hint + " Known here: " + join(known));
  }
}

std::string ConfigTable::resolved_text() const {
  const std::function<toml::table(const Node&)> collect = [&](const Node& node) {
    toml::table all = node.resolved;
    for (const auto& [key, child] : node.children) all.insert_or_assign(key, collect(*child));
    return all;
  };
  std::ostringstream out;
  // toml++ 3.3 writes texts with quotes or several lines in forms that it does not always read.
  out << toml::toml_formatter(
             collect(*node_),
             toml::toml_formatter::default_flags & ~(toml::format_flags::allow_literal_strings |
                                                     toml::format_flags::allow_multi_line_strings))
      << "\n";
  return out.str();
}

std::string expand_environment(std::string_view text) {
  std::string result;
  size_t at = 0;
  while (at < text.size()) {
    const size_t start = text.find("${", at);
    const size_t end = start == std::string_view::npos ? start : text.find('}', start);
    if (end == std::string_view::npos) break;
    result += text.substr(at, start - at);
    const std::string_view inside = text.substr(start + 2, end - start - 2);
    const size_t separator = inside.find(":-");
    const std::string name(inside.substr(0, separator));
    const char* value = std::getenv(name.c_str());
    if (value && *value) {
      result += value;
    } else if (separator != std::string_view::npos) {
      result += inside.substr(separator + 2);
    } else {
      throw Error("the environment variable " + name + " in \"" + std::string(text) +
                  "\" is not set; set it, or give the path itself");
    }
    at = end + 1;
  }
  return result + std::string(text.substr(at));
}

}  // namespace vireo
