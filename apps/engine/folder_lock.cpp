#include "apps/engine/folder_lock.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "vision/core/error.h"

namespace vireo {

namespace fs = std::filesystem;

FolderLock::FolderLock(const fs::path& folder, const std::string& doing) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!fs::is_directory(folder))
    throw DataError(folder,
                    error ? "the folder cannot be created: " + error.message()
                          : "is no folder; choose another one for the results");
  const fs::path file = folder / ".lock";
  descriptor_ = ::open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (descriptor_ < 0)
    throw DataError(folder, std::string("cannot be written to: ") + std::strerror(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor_);
    throw DataError(folder,
                    "another process is " + doing +
                        " this folder; wait for it, stop it, or choose another folder");
  }
}

FolderLock::~FolderLock() {
  ::close(descriptor_);
}

}  // namespace vireo
