#include "vision/io/picture_file.h"

#include <algorithm>
#include <cstring>

#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <zlib.h>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"
#include "vision/io/picture_bytes.h"

namespace vireo::io {
namespace {

namespace fs = std::filesystem;

StoredType type_of(const fs::path& path, int depth) {
  switch (depth) {
    case CV_8U:
      return StoredType::kUint8;
    case CV_8S:
      return StoredType::kInt8;
    case CV_16U:
      return StoredType::kUint16;
    case CV_16S:
      return StoredType::kInt16;
    case CV_32S:
      return StoredType::kInt32;
    case CV_32F:
      return StoredType::kFloat32;
    case CV_64F:
      return StoredType::kFloat64;
    default:
      throw DataError(path, "has a pixel type that is not read");
  }
}

// Whether the content begins as one of the formats that are read. OpenCV would hand others to
// libraries of which GDCM, in Debian's build, ends the program where it does not like a file.
bool begins_as_picture(const std::string& bytes) {
  using namespace std::string_literals;
  for (const std::string& start :
       {"\x89PNG"s, "\xff\xd8"s, "II*\0"s, "MM\0*"s, "II+\0"s, "MM\0+"s, "BM"s})
    if (bytes.starts_with(start)) return true;
  return false;
}

cv::Mat decode(const fs::path& path, const std::string& bytes, int flags) {
  if (!begins_as_picture(bytes))
    throw DataError(path,
                    "cannot be decoded as a " + image_extension(path).substr(1) +
                        " picture: it begins as no PNG, JPEG, TIFF or BMP file. Is it another "
                        "format under this name?");
  cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
  cv::Mat picture;
  try {
    const cv::Mat encoded(
        1, static_cast<int>(bytes.size()), CV_8U, const_cast<char*>(bytes.data()));
    picture = cv::imdecode(encoded, flags);
  } catch (const cv::Exception& error) {
    throw DataError(path, "cannot be decoded; OpenCV says: " + error.err);
  }
  if (picture.empty())
    throw DataError(path,
                    "cannot be decoded as a " + image_extension(path).substr(1) +
                        " picture. Is it damaged, or another format under this name?");
  switch (picture.channels()) {
    case 1:
      return picture;
    case 3:
      cv::cvtColor(picture, picture, cv::COLOR_BGR2RGB);
      return picture;
    case 4:
      cv::cvtColor(picture, picture, cv::COLOR_BGRA2RGB);
      return picture;
    default:
      throw DataError(path,
                      "has " + std::to_string(picture.channels()) +
                          " channels; grey, RGB and RGBA pictures are read");
  }
}

void put_big_endian(std::string& bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<char>(value >> (24 - 8 * i));
}

// Behind the signature: length, "IHDR", width, height, then these; the chunk's checksum at 29.
constexpr size_t kPngSize = 16, kPngDepth = 24, kPngColorType = 25, kPngHeaderEnd = 33;

bool has_png_palette(std::string_view bytes) {
  return bytes.starts_with(kPngSignature) && bytes.size() > kPngHeaderEnd &&
         bytes[kPngColorType] == 3;
}

// The same pixels with their palette forgotten: a grey picture of the indices. Palette and grey
// PNGs differ in nothing but the header's colour type and the chunks that tell the colours.
std::string without_palette(const std::string& bytes) {
  std::string grey = bytes.substr(0, kPngHeaderEnd);
  grey[kPngColorType] = 0;
  const auto* header = reinterpret_cast<const Bytef*>(grey.data()) + 12;
  put_big_endian(grey, kPngHeaderEnd - 4, static_cast<uint32_t>(::crc32(0, header, 17)));
  for (size_t at = kPngHeaderEnd; at < bytes.size();) {
    const std::string_view rest = std::string_view(bytes).substr(at);
    const size_t length = 12 + size_t{big_endian(rest)};
    const std::string_view type = rest.substr(4, 4);
    if (type == "IDAT" || type == "IEND") grey += rest.substr(0, length);
    if (type == "IEND") break;
    at += length;
  }
  return grey;
}

StoredImage stored_picture(const fs::path& path, const cv::Mat& picture) {
  StoredImage image;
  image.type = type_of(path, picture.depth());
  image.components = picture.channels();
  image.geometry.size_zyx = {1, picture.rows, picture.cols};
  if (image.type == StoredType::kUint8) image.full_scale = 255;
  if (image.type == StoredType::kUint16) image.full_scale = 65535;
  const size_t row = static_cast<size_t>(picture.cols) * picture.elemSize();
  image.bytes = allocate(path, row * static_cast<size_t>(picture.rows));
  for (int y = 0; y < picture.rows; ++y)
    std::memcpy(image.bytes.get() + static_cast<size_t>(y) * row, picture.ptr(y), row);
  return image;
}

std::string checked_bytes(const fs::path& path) {
  std::string bytes = read_text(path, size_t{1} << 31);
  check_picture(path, bytes);
  bound_strips(path, bytes);
  return bytes;
}

}  // namespace

PictureHeader read_picture_header(const fs::path& path) {
  const std::string bytes = checked_bytes(path);
  const auto number = [&](std::string_view at, int octets) {
    int64_t value = 0;
    for (int i = 0; i < octets; ++i) value = value << 8 | static_cast<unsigned char>(at[i]);
    return value;
  };
  if (bytes.starts_with(kPngSignature)) {
    const std::string_view size = std::string_view(bytes).substr(kPngSize);
    return {number(size.substr(4), 4),
            number(size, 4),
            bytes[kPngColorType] == 0 ? 1 : 3,
            bytes[kPngDepth] == 16 ? StoredType::kUint16 : StoredType::kUint8};
  }
  PictureHeader header;
  if (bytes.starts_with("\xff\xd8"))
    for_each_jpeg_segment(bytes, [&](unsigned char marker, std::string_view segment) {
      if (is_jpeg_frame(marker) && header.height == 0)
        header = {number(segment.substr(5), 2),
                  number(segment.substr(7), 2),
                  segment[9] == 1 ? 1 : 3,
                  StoredType::kUint8};
    });
  if (header.height > 0) return header;
  const cv::Mat picture = decode(path, bytes, cv::IMREAD_UNCHANGED);
  return {picture.rows, picture.cols, picture.channels(), type_of(path, picture.depth())};
}

StoredImage read_picture(const fs::path& path) {
  return stored_picture(path, decode(path, checked_bytes(path), cv::IMREAD_UNCHANGED));
}

StoredImage read_label_picture(const fs::path& path) {
  const std::string bytes = checked_bytes(path);
  if (!has_png_palette(bytes))
    return stored_picture(path, decode(path, bytes, cv::IMREAD_UNCHANGED));
  cv::Mat indices = decode(path, without_palette(bytes), cv::IMREAD_UNCHANGED);
  // Fewer than eight bits are spread over 0..255 when they are decoded.
  const int depth = bytes[kPngDepth];
  if (depth < 8) indices /= 255 / ((1 << depth) - 1);
  return stored_picture(path, indices);
}

StoredImage read_upright_picture(const fs::path& path) {
  return stored_picture(
      path, decode(path, checked_bytes(path), cv::IMREAD_ANYCOLOR | cv::IMREAD_ANYDEPTH));
}

void write_picture(const fs::path& path,
                   const void* values,
                   StoredType type,
                   int64_t components,
                   const Geometry& geometry) {
  const auto& size = geometry.size_zyx;
  const int depth = type == StoredType::kUint8 ? CV_8U : CV_16U;
  if ((type != StoredType::kUint8 && type != StoredType::kUint16) || size[0] != 1 ||
      (components != 1 && components != 3))
    throw DataError(path,
                    "a picture holds one slice of 8- or 16-bit grey or colour; write a volume as "
                    ".nii.gz");
  cv::Mat picture(static_cast<int>(size[1]),
                  static_cast<int>(size[2]),
                  CV_MAKETYPE(depth, static_cast<int>(components)),
                  const_cast<void*>(values));
  cv::Mat bgr;
  if (components == 3) cv::cvtColor(picture, bgr, cv::COLOR_RGB2BGR);
  try {
    if (!cv::imwrite(path.string(), components == 3 ? bgr : picture))
      throw DataError(path, "cannot be written; is the disk full?");
  } catch (const cv::Exception& error) {
    throw DataError(path, "cannot be written; OpenCV says: " + error.err);
  }
}

}  // namespace vireo::io
