#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "vision/core/atomic_file.h"

namespace vireo::test {

/// Puts an EXIF block into a JPEG that says how the camera was held: 1 (upright) to 8.
inline void set_exif_orientation(const std::filesystem::path& path, int orientation) {
  std::string exif(
      "\xff\xe1\0\x22"
      "Exif\0\0MM\0\x2a\0\0\0\x8\0\1\1\x12\0\3\0\0\0\1\0\0\0\0\0\0\0\0",
      36);
  exif[29] = static_cast<char>(orientation);
  std::string bytes = read_text(path);
  std::ofstream(path, std::ios::binary) << bytes.insert(2, exif);
}

}  // namespace vireo::test
