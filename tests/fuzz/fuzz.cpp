#include "tests/fuzz/fuzz.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <ATen/Parallel.h>
#include <unistd.h>
#include <zlib.h>

#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo::fuzz {
namespace {

namespace fs = std::filesystem;

std::string little_endian(size_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(i < 8 ? value >> (8 * i) : 0);
  return text;
}

}  // namespace

const fs::path& scratch() {
  static const fs::path folder = [] {
    const fs::path made = fs::temp_directory_path() / ("vireo-fuzz-" + std::to_string(::getpid()));
    fs::create_directories(made);
    return made;
  }();
  return folder;
}

fs::path write_bytes(const std::string& name, std::string_view bytes) {
  const fs::path path = scratch() / name;
  fs::create_directories(path.parent_path());
  // A new file: maps of the old one, should a tensor still look into it, stay whole.
  fs::remove(path);
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

void read_or_refuse(const std::function<void()>& read) {
  try {
    read();
  } catch (const DataError& error) {
    if (std::string_view(error.what()).starts_with(scratch().string())) return;
    std::fprintf(stderr, "a refusal that does not name the file: %s\n", error.what());
    std::abort();
  } catch (const Error&) {
  }
}

void look_at(const at::Tensor& values) {
  const at::Tensor whole = values.contiguous();
  const auto* bytes = static_cast<const volatile unsigned char*>(whole.const_data_ptr());
  for (size_t i = 0; i < whole.nbytes(); ++i) static_cast<void>(bytes[i]);
}

std::string zip_of(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string archive, directory;
  for (const auto& [name, content] : files) {
    const auto crc = ::crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size());
    const std::string common = little_endian(20, 2) + little_endian(0, 8) + little_endian(crc, 4) +
                               little_endian(content.size(), 4) + little_endian(content.size(), 4) +
                               little_endian(name.size(), 2) + little_endian(0, 2);
    directory += "PK\1\2" + little_endian(20, 2) + common + little_endian(0, 10) +
                 little_endian(archive.size(), 4) + name;
    archive += "PK\3\4" + common + name + content;
  }
  return archive + directory + "PK\5\6" + little_endian(0, 4) + little_endian(files.size(), 2) +
         little_endian(files.size(), 2) + little_endian(directory.size(), 4) +
         little_endian(archive.size(), 4) + little_endian(0, 2);
}

}  // namespace vireo::fuzz

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  at::set_num_threads(1);
  vireo::set_log_quiet(true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  vireo::fuzz::one_input({reinterpret_cast<const char*>(data), size});
  return 0;
}
