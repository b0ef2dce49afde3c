#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "vision/io/stored_image.h"

// PNG, JPEG, TIFF and BMP through OpenCV.
namespace vireo::io {

struct PictureHeader {
  int64_t height = 0, width = 0;
  int64_t components = 1;  ///< as read_picture gives them
  StoredType type = StoredType::kUint8;
};

/// What read_picture() will give. PNG and JPEG tell it without being decoded.
PictureHeader read_picture_header(const std::filesystem::path& path);

/// Reads grey (1 component) or colour (3 components, R, G, B); palettes are expanded, alpha
/// dropped.
StoredImage read_picture(const std::filesystem::path& path);

/// The same for a label map: of a PNG with a palette the indices, which are the classes, whatever
/// colours the palette gives them.
StoredImage read_label_picture(const std::filesystem::path& path);

/// The same for a photograph: turned upright as its EXIF orientation says. (Label maps lie on the
/// pixels as stored, which is why read_picture leaves them so.)
StoredImage read_upright_picture(const std::filesystem::path& path);

/// Writes uint8 or uint16 values [y][x][components], 1 or 3 components, to `path` itself.
void write_picture(const std::filesystem::path& path,
                   const void* values,
                   StoredType type,
                   int64_t components,
                   const Geometry& geometry);

}  // namespace vireo::io
