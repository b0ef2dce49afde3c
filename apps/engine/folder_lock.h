#pragma once

#include <filesystem>
#include <string>

namespace vireo {

/// Keeps other processes from working in a folder for as long as it lives, even if this one is
/// killed. Throws DataError when another one does: "another process is `doing` this folder".
class FolderLock {
 public:
  FolderLock(const std::filesystem::path& folder, const std::string& doing);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace vireo
