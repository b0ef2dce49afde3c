#pragma once

#include "vision/io/stored_image.h"

// NRRD and MetaImage through ITK. ITK's exceptions and its talk on stderr stay in here.
namespace vireo::io {

struct ItkHeader {
  Geometry geometry;
  int64_t channels = 1;
  StoredType type = StoredType::kUint8;
};
ItkHeader read_itk_header(const std::filesystem::path& path);

StoredImage read_itk(const std::filesystem::path& path);

/// Writes voxels [z][y][x][components] to `path` itself, compressed.
void write_itk(const std::filesystem::path& path,
               const void* voxels,
               StoredType type,
               int64_t components,
               const Geometry& geometry);

}  // namespace vireo::io
