#pragma once

#include <cstdint>
#include <string>

#include <zlib.h>

// PNG files byte by byte, of kinds that no writer makes.
namespace vireo::test {

inline std::string png_word(uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift);
  return text;
}

inline std::string png_chunk(const std::string& type, const std::string& content) {
  const std::string checked = type + content;
  const auto sum =
      ::crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()));
  return png_word(static_cast<uint32_t>(content.size())) + checked +
         png_word(static_cast<uint32_t>(sum));
}

/// `rows`: as stored, before compression, the byte of each row's filter in front; `more`: chunks
/// between header and pixels.
inline std::string png_file(uint32_t height,
                            uint32_t width,
                            int depth,
                            int color_type,
                            const std::string& rows,
                            const std::string& more = "") {
  std::string packed(::compressBound(rows.size()), '\0');
  uLongf length = packed.size();
  ::compress(reinterpret_cast<Bytef*>(packed.data()),
             &length,
             reinterpret_cast<const Bytef*>(rows.data()),
             rows.size());
  packed.resize(length);
  std::string header = png_word(width) + png_word(height);
  header += static_cast<char>(depth);
  header += static_cast<char>(color_type);
  header += std::string(3, '\0');
  std::string file = "\x89PNG\r\n\x1a\n";
  file += png_chunk("IHDR", header);
  file += more;
  file += png_chunk("IDAT", packed);
  file += png_chunk("IEND", "");
  return file;
}

}  // namespace vireo::test
