#include "datasets/enclosure.h"

#include <algorithm>

#include "vision/core/error.h"

namespace vireo::source {

namespace fs = std::filesystem;

Enclosure::Enclosure(const fs::path& folder, bool links_allowed)
    : root_(fs::weakly_canonical(folder)), links_allowed_(links_allowed) {}

bool Enclosure::holds(const fs::path& resolved) const {
  return std::mismatch(root_.begin(), root_.end(), resolved.begin(), resolved.end()).first ==
         root_.end();
}

std::string Enclosure::escape(const fs::path& file) {
  if (links_allowed_) return "";
  std::error_code failed;
  const auto [folder, is_new] = folders_.emplace(file.parent_path(), true);
  if (is_new) folder->second = holds(fs::weakly_canonical(file.parent_path(), failed));
  // A chain of links that does not end is nobody's file.
  if (!failed && folder->second && !fs::is_symlink(file, failed)) return "";
  const fs::path target = fs::weakly_canonical(file, failed);
  if (!failed && holds(target)) return "";
  return "is a symbolic link, or lies behind one, that leads out of the data set's folder, to " +
         target.string() + ". If that is right, set [data] allow_links = true";
}

void Enclosure::check(const fs::path& file) {
  const std::string found = escape(file);
  if (!found.empty()) throw DataError(file, found);
}

}  // namespace vireo::source
