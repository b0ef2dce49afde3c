#include "vision/io/picture_bytes.h"

#include <cstdlib>
#include <vector>

#include <zlib.h>

#include "vision/core/error.h"

namespace vireo::io {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostPixels = uint64_t{1} << 30;
// Uncompressed bytes for each of the file's, beyond what is always allowed. Deflate reaches 1032,
// Zstandard and fax encodings more, of pictures of one colour.
constexpr uint64_t kMostBytesPerByte = 2048;
constexpr uint64_t kAlwaysAllowedBytes = uint64_t{128} << 20;

struct DeclaredSize {
  uint64_t width = 0, height = 0, bits_per_pixel = 0;
};

void check_size(const fs::path& path, size_t file_bytes, const DeclaredSize& size) {
  const std::string declared =
      "declares " + std::to_string(size.width) + " x " + std::to_string(size.height) + " pixels";
  // Divided, so that nothing overflows.
  if (size.width == 0 || size.height == 0 || size.height > kMostPixels / size.width)
    throw DataError(path, declared + "; from one to 2^30 are read");
  if (size.width * size.height * std::max<uint64_t>(1, size.bits_per_pixel) / 8 >
      kAlwaysAllowedBytes + kMostBytesPerByte * file_bytes)
    throw DataError(
        path, declared + "; a file of " + std::to_string(file_bytes) + " bytes cannot hold them");
}

[[noreturn]] void cut_off(const fs::path& path, const std::string& what) {
  throw DataError(path, "is cut off or damaged: " + what + ". Copy or download it again");
}

// Per pixel, of a bit depth and a colour type.
uint64_t png_bits(char depth, char color_type) {
  const uint64_t samples = color_type == 2 ? 3 : color_type == 4 ? 2 : color_type == 6 ? 4 : 1;
  return samples * static_cast<unsigned char>(depth);
}

void check_png(const fs::path& path, std::string_view bytes) {
  const size_t file_bytes = bytes.size();
  bytes.remove_prefix(kPngSignature.size());
  bool first = true;
  while (true) {
    if (bytes.size() < 12) cut_off(path, "the PNG ends without its end mark");
    const size_t length = big_endian(bytes);
    if (length > bytes.size() - 12) cut_off(path, "a PNG chunk is longer than the file");
    const std::string_view checked = bytes.substr(4, 4 + length);
    const auto* data = reinterpret_cast<const Bytef*>(checked.data());
    if (::crc32(0, data, static_cast<uInt>(checked.size())) != big_endian(bytes.substr(8 + length)))
      cut_off(path,
              "the checksum of PNG chunk \"" + std::string(checked.substr(0, 4)) + "\" is wrong");
    if (first && (!checked.starts_with("IHDR") || length != 13))
      cut_off(path, "the PNG does not begin with its header");
    if (first)
      check_size(path,
                 file_bytes,
                 {big_endian(checked.substr(4)),
                  big_endian(checked.substr(8)),
                  png_bits(checked[12], checked[13])});
    if (checked.starts_with("IEND")) return;
    first = false;
    bytes.remove_prefix(12 + length);
  }
}

void check_jpeg(const fs::path& path, std::string_view bytes) {
  // Some cameras append padding after the end mark; none of them a kilobyte of it.
  const std::string_view tail = bytes.substr(bytes.size() > 1024 ? bytes.size() - 1024 : 0);
  if (tail.find("\xff\xd9") == std::string_view::npos) cut_off(path, "the JPEG has no end mark");
  // The segments before the pixels. Four inks are stored inverted where Adobe's segment says who
  // wrote them, which is what the decoder takes for granted.
  bool four_inks = false, of_adobe = false, has_frame = false;
  for_each_jpeg_segment(bytes, [&](unsigned char marker, std::string_view segment) {
    if (is_jpeg_frame(marker)) {
      has_frame = true;
      check_size(path,
                 bytes.size(),
                 {big_endian(segment.substr(6)) >> 8 & 0xffff,
                  big_endian(segment.substr(4)) >> 8 & 0xffff,
                  uint64_t{8} * static_cast<unsigned char>(segment[9])});
    }
    four_inks = four_inks || (is_jpeg_frame(marker) && segment[9] == 4);
    of_adobe = of_adobe || (marker == 0xee && segment.substr(4).starts_with("Adobe"));
  });
  if (!has_frame) cut_off(path, "no frame header precedes the JPEG's pixels");
  if (four_inks && !of_adobe)
    throw DataError(path,
                    "is a CMYK JPEG that does not say whether its inks are stored inverted (it has "
                    "no Adobe segment). Convert it to RGB");
}

uint64_t little_endian(std::string_view bytes, size_t at, size_t count) {
  uint64_t value = 0;
  for (size_t i = 0; i < count && at + i < bytes.size(); ++i)
    value |= uint64_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return value;
}

// The header's first form has sizes of 16 bits; in later ones a height below 0 counts from above.
void check_bmp(const fs::path& path, std::string_view bytes) {
  constexpr size_t kHeaderSize = 14, kWidth = 18, kHeight = 22, kFirstForm = 12;
  if (bytes.size() < kHeight + 4) cut_off(path, "the BMP ends within its header");
  const size_t octets = little_endian(bytes, kHeaderSize, 4) == kFirstForm ? 2 : 4;
  const auto number = [&](size_t at) {
    const auto value = static_cast<int32_t>(little_endian(bytes, at, octets));
    return static_cast<uint64_t>(std::abs(int64_t{value}));
  };
  check_size(path, bytes.size(), {number(kWidth), number(kWidth + octets), 32});
}

// The first directory of a TIFF file, classic or big, in either order of bytes.
class TiffDirectory {
 public:
  struct Entry {
    uint64_t tag = 0, value = 0;
    size_t place = 0, value_size = 0;  // of its first value
  };

  TiffDirectory(const fs::path& path, std::string_view bytes)
      : bytes_(bytes), big_first_(bytes.starts_with("MM")) {
    const bool big_file = number(2, 2) == 43;
    const size_t offset_size = big_file ? 8 : 4, count_size = big_file ? 8 : 2;
    const uint64_t directory = number(big_file ? 8 : 4, offset_size);
    const uint64_t count = number(directory, count_size), entry_size = 4 + 2 * offset_size;
    if (directory >= bytes.size() || count > bytes.size() / entry_size)
      cut_off(path, "the TIFF ends before its directory");
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t at = directory + count_size + i * entry_size;
      Entry entry;
      entry.tag = number(at, 2);
      entry.value_size = number(at + 2, 2) == kShort ? 2 : offset_size;
      entry.place = at + 4 + offset_size;
      // What does not fit into the entry lies elsewhere.
      if (number(at + 4, offset_size) > offset_size / entry.value_size)
        entry.place = number(entry.place, offset_size);
      entry.value = number(entry.place, entry.value_size);
      entries_.push_back(entry);
    }
  }

  /// The largest of a tag's values, or `otherwise`.
  uint64_t largest(uint64_t tag, uint64_t otherwise) const {
    uint64_t found = 0;
    for (const Entry& entry : entries_)
      if (entry.tag == tag) found = std::max(found, entry.value);
    return found > 0 ? found : otherwise;
  }

  /// Puts `value` where a tag's larger ones stand.
  void lower(uint64_t tag, uint64_t value, std::string& bytes) const {
    for (const Entry& entry : entries_)
      for (size_t i = 0; entry.tag == tag && entry.value > value && i < entry.value_size; ++i)
        bytes[entry.place + (big_first_ ? entry.value_size - 1 - i : i)] =
            static_cast<char>(value >> (8 * i));
  }

 private:
  static constexpr uint64_t kShort = 3;

  // 0 beyond the end.
  uint64_t number(uint64_t at, size_t count) const {
    uint64_t value = 0;
    if (at > bytes_.size() || count > bytes_.size() - at) return value;
    if (!big_first_) return little_endian(bytes_, at, count);
    for (size_t i = 0; i < count; ++i)
      value = value << 8 | static_cast<unsigned char>(bytes_[at + i]);
    return value;
  }

  std::string_view bytes_;
  bool big_first_;
  std::vector<Entry> entries_;
};

constexpr uint64_t kTiffWidth = 256, kTiffLength = 257, kTiffBits = 258, kTiffSamples = 277,
                   kTiffRowsPerStrip = 278, kTiffTileWidth = 322, kTiffTileLength = 323;

bool is_tiff(std::string_view bytes) {
  return bytes.starts_with("II") || bytes.starts_with("MM");
}

void check_tiff(const fs::path& path, std::string_view bytes) {
  const TiffDirectory directory(path, bytes);
  const uint64_t bits = std::min<uint64_t>(directory.largest(kTiffSamples, 1), 65535) *
                        std::min<uint64_t>(directory.largest(kTiffBits, 1), 64);
  check_size(path,
             bytes.size(),
             {directory.largest(kTiffWidth, 0), directory.largest(kTiffLength, 0), bits});
  check_size(path,
             bytes.size(),
             {directory.largest(kTiffTileWidth, 1), directory.largest(kTiffTileLength, 1), bits});
}

}  // namespace

uint32_t big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

bool is_jpeg_frame(unsigned char marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

void check_picture(const fs::path& path, const std::string& bytes) {
  if (bytes.empty()) throw DataError(path, "is empty (0 bytes)");
  if (bytes.size() > size_t{0x7fffffff}) throw DataError(path, "is larger than 2 GiB");
  if (bytes.starts_with(kPngSignature)) check_png(path, bytes);
  if (bytes.starts_with(kJpegSignature)) check_jpeg(path, bytes);
  if (bytes.starts_with("BM")) check_bmp(path, bytes);
  if (is_tiff(bytes)) check_tiff(path, bytes);
}

void bound_strips(const fs::path& path, std::string& bytes) {
  if (!is_tiff(bytes)) return;
  const TiffDirectory directory(path, bytes);
  directory.lower(kTiffRowsPerStrip, directory.largest(kTiffLength, 0), bytes);
}

}  // namespace vireo::io
