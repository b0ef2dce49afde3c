#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

// The bytes of picture files before they are decoded.
namespace vireo::io {

inline constexpr std::string_view kPngSignature = "\x89PNG\r\n\x1a\n";
inline constexpr std::string_view kJpegSignature = "\xff\xd8";

/// The first four bytes as a number.
uint32_t big_endian(std::string_view bytes);

/// Calls body(marker, the file from that marker on) for the segments before a JPEG's pixels.
template <class Body>
void for_each_jpeg_segment(std::string_view bytes, const Body& body) {
  bytes.remove_prefix(kJpegSignature.size());
  while (bytes.size() > 9 && bytes[0] == '\xff' && bytes[1] != '\xda') {
    if (bytes[1] == '\xff') {  // filling
      bytes.remove_prefix(1);
      continue;
    }
    body(static_cast<unsigned char>(bytes[1]), bytes);
    const size_t length = 2 + (big_endian(bytes) & 0xffff);
    bytes.remove_prefix(std::min(length, bytes.size()));
  }
}

/// Whether size, precision and components follow.
bool is_jpeg_frame(unsigned char marker);

/// Throws DataError when a PNG's chunks (lengths, checksums, end) or a JPEG's frame and end mark
/// are not sound, or when a PNG, JPEG, BMP or TIFF file declares more pixels than its bytes can
/// hold or than 2^30.
void check_picture(const std::filesystem::path& path, const std::string& bytes);

/// Lowers a TIFF file's rows in a strip to those of the picture, which means the same: decoders
/// take memory for as many as it says.
void bound_strips(const std::filesystem::path& path, std::string& bytes);

}  // namespace vireo::io
