#include "datasets/exif_orientation.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <initializer_list>
#include <string>
#include <string_view>

namespace vireo {
namespace {

constexpr unsigned kApplicationData1 = 0xe1, kScan = 0xda, kEnd = 0xd9;
constexpr std::string_view kExif("Exif\0\0", 6);
constexpr uint32_t kOrientationTag = 0x0112;
constexpr size_t kFirstDirectory = 4, kEntry = 12;

// The TIFF header, its first directory, and there the entry with the orientation.
int orientation_in(std::string_view tiff) {
  const bool big = tiff.starts_with("MM");
  const auto number = [&](size_t at, size_t bytes) {
    uint32_t value = 0;
    if (at > tiff.size() || bytes > tiff.size() - at) return value;
    for (size_t i = 0; i < bytes; ++i)
      value = value << 8 | static_cast<unsigned char>(tiff[at + (big ? i : bytes - 1 - i)]);
    return value;
  };
  const size_t directory = number(kFirstDirectory, 4);
  for (uint32_t i = 0; i < number(directory, 2); ++i) {
    const size_t entry = directory + 2 + kEntry * i;
    if (number(entry, 2) != kOrientationTag) continue;
    const uint32_t value = number(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace

int exif_orientation(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  char start[2];
  if (!file.read(start, 2) || std::string_view(start, 2) != "\xff\xd8") return 1;
  for (;;) {
    unsigned char head[4];
    if (!file.read(reinterpret_cast<char*>(head), 4)) return 1;
    const size_t length = size_t{head[2]} << 8 | head[3];
    if (head[0] != 0xff || head[1] == kScan || head[1] == kEnd || length < 2) return 1;
    std::string segment(length - 2, '\0');
    if (!file.read(segment.data(), static_cast<std::streamsize>(segment.size()))) return 1;
    if (head[1] == kApplicationData1 && segment.starts_with(kExif))
      return orientation_in(std::string_view(segment).substr(kExif.size()));
  }
}

Reorientation upright(int exif_orientation) {
  Reorientation turn;
  if (exif_orientation >= 5) turn.order_zyx = {0, 2, 1};
  const auto is_one_of = [&](std::initializer_list<int> codes) {
    return std::find(codes.begin(), codes.end(), exif_orientation) != codes.end();
  };
  turn.flipped_zyx = {false, is_one_of({3, 4, 7, 8}), is_one_of({2, 3, 6, 7})};
  return turn;
}

}  // namespace vireo
