#pragma once

#include <filesystem>
#include <map>
#include <string>

namespace vireo::source {

/// A data set's folder, out of which no symbolic link may lead.
class Enclosure {
 public:
  /// `links_allowed`: everything is held inside.
  Enclosure(const std::filesystem::path& folder, bool links_allowed);

  /// Empty where the file (named below the folder; it need not exist) lies in the folder once its
  /// links are followed; else what is wrong and what to do.
  std::string escape(const std::filesystem::path& file);
  /// Throws DataError (path `file`) instead.
  void check(const std::filesystem::path& file);

 private:
  bool holds(const std::filesystem::path& resolved) const;

  std::filesystem::path root_;
  std::map<std::filesystem::path, bool>
      folders_;  // that were looked at, and whether they lie within
  bool links_allowed_;
};

}  // namespace vireo::source
