#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace vireo {

/// One table of a TOML configuration, read strictly: every getter checks type and range, and
/// finish() refuses keys that nobody asked for. What was read, defaults included, is remembered, so
/// that resolved_text() gives the complete configuration of a run.
///
/// Keys are given bare ("epochs"); errors are ConfigError with "file:line:column: table.key".
/// Getters with a `fallback` return it when the key is absent; those without require the key.
/// `${NAME}` and `${NAME:-default}` in strings read by path() are replaced from the environment.
class ConfigTable {
 public:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  static constexpr int64_t kMaxInteger = std::numeric_limits<int64_t>::max();

  /// Each override is "table.key=value", the value in TOML syntax; a bare word is taken as a
  /// string.
  static ConfigTable from_file(const std::filesystem::path& path,
                               const std::vector<std::string>& overrides = {});
  static ConfigTable from_text(std::string_view text,
                               const std::string& source_name,
                               const std::vector<std::string>& overrides = {});

  bool has(std::string_view key) const;
  bool is_list(std::string_view key) const;
  /// The sub-table, empty (all defaults) when absent.
  ConfigTable table(std::string_view key);
  /// Keys of this table, in alphabetical order.
  std::vector<std::string> keys() const;

  bool boolean(std::string_view key, bool fallback);
  int64_t integer(std::string_view key,
                  int64_t fallback,
                  int64_t min = 0,
                  int64_t max = kMaxInteger);
  int64_t integer(std::string_view key);
  /// Integers are accepted where a number is asked for.
  double number(std::string_view key,
                double fallback,
                double min = -kInfinity,
                double max = kInfinity);
  std::string text(std::string_view key, const std::string& fallback);
  std::string text(std::string_view key);
  /// A text that must be one of `choices`; the error lists them.
  std::string choice(std::string_view key,
                     const std::string& fallback,
                     const std::vector<std::string>& choices);
  std::filesystem::path path(std::string_view key, const std::string& fallback);
  std::filesystem::path path(std::string_view key);
  /// Lists. `size` 0 means any length.
  std::vector<int64_t> integers(std::string_view key,
                                const std::vector<int64_t>& fallback,
                                size_t size = 0);
  std::vector<double> numbers(std::string_view key,
                              const std::vector<double>& fallback,
                              size_t size = 0);
  std::vector<std::string> texts(std::string_view key, const std::vector<std::string>& fallback);

  /// Throws ConfigError at the first key, here or in sub-tables, that nobody asked for; it names
  /// the known keys of that table and the nearest one.
  void finish() const;

  /// An error at `key` (or at the table itself when empty), for checks that a getter cannot make.
  [[noreturn]] void fail(std::string_view key, const std::string& what) const;

  /// This table as TOML text with every key read so far and its value, defaults included.
  std::string resolved_text() const;

 private:
  struct Node;
  explicit ConfigTable(std::shared_ptr<Node> node);
  std::shared_ptr<Node> node_;
};

/// Replaces `${NAME}` and `${NAME:-default}`; an unset name without a default is an Error that
/// names it.
std::string expand_environment(std::string_view text);

}  // namespace vireo
