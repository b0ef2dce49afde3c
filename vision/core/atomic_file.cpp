#include "vision/core/atomic_file.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>

#include <fcntl.h>
#include <unistd.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporaryPrefix = ".vireo-tmp-";

std::string system_reason() {
  return std::strerror(errno);
}

void sync_to_disk(const fs::path& path, int flags) {
  const int file = ::open(path.c_str(), flags);
  if (file < 0) throw DataError(path, "cannot be opened to be synced: " + system_reason());
  const int status = ::fsync(file);
  const std::string reason = system_reason();
  ::close(file);
  if (status != 0) throw DataError(path, "cannot be written to disk: " + reason);
}

fs::path temporary_beside(const fs::path& path) {
  static std::atomic<int> counter{0};
  const std::string name = std::string(kTemporaryPrefix) + std::to_string(::getpid()) + "-" +
                           std::to_string(counter++) + "-" + path.filename().string();
  return path.parent_path() / name;
}

}  // namespace

void write_file_atomically(const fs::path& path,
                           const std::function<void(const fs::path&)>& write) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw DataError(folder, "cannot be created: " + failed.message());

  const fs::path temporary = temporary_beside(folder / path.filename());
  try {
    write(temporary);
    sync_to_disk(temporary, O_RDONLY);
    fs::rename(temporary, path, failed);
    if (failed) throw DataError(path, "cannot be replaced: " + failed.message());
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  sync_to_disk(folder, O_RDONLY | O_DIRECTORY);
}

void write_text_atomically(const fs::path& path, std::string_view text) {
  write_file_atomically(path, [&](const fs::path& temporary) {
    std::ofstream out(temporary, std::ios::binary);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    out.close();
    if (!out) throw DataError(path, "cannot be written: " + system_reason());
  });
}

std::string read_text(const fs::path& path, size_t limit_bytes) {
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  if (!fs::exists(status)) throw DataError(path, "does not exist");
  if (fs::is_directory(status)) throw DataError(path, "is a folder; a file was expected");
  std::ifstream in(path, std::ios::binary);
  if (!in) throw DataError(path, "cannot be opened: " + system_reason());
  std::string text;
  char chunk[1 << 16];
  while (in.read(chunk, sizeof chunk), in.gcount() > 0) {
    text.append(chunk, static_cast<size_t>(in.gcount()));
    if (text.size() > limit_bytes)
      throw DataError(path,
                      "is larger than the " + std::to_string(limit_bytes) + " bytes expected");
  }
  if (in.bad()) throw DataError(path, "cannot be read: " + system_reason());
  return text;
}

void remove_temporary_files(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().filename().string().starts_with(kTemporaryPrefix))
      fs::remove(entry.path(), ignored);
}

}  // namespace vireo
