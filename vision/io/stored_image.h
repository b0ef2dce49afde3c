#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

#include "vision/image/volume.h"
#include "vision/io/image_file.h"

// Between the file formats and Volume: voxels as a file stores them, in the machine's byte order.
namespace vireo::io {

enum class StoredType {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kUint64,
  kInt64,
  kFloat32,
  kFloat64
};
size_t bytes_of(StoredType type);

struct StoredImage {
  std::unique_ptr<std::byte[]> bytes;  ///< [volumes][z][y][x][components]
  StoredType type = StoredType::kUint8;
  int64_t volumes = 1;
  int64_t components = 1;
  double slope = 1, intercept = 0;
  Geometry geometry;
  double full_scale = 0;

  int64_t channels() const { return volumes * components; }
};

/// Room for `bytes` bytes, not yet touched. Throws DataError when there is none.
std::unique_ptr<std::byte[]> allocate(const std::filesystem::path& path, size_t bytes);

/// Product of sizes; throws DataError when it exceeds what a file could hold.
size_t checked_product(const std::filesystem::path& path, std::initializer_list<int64_t> sizes);

Volume to_image(const StoredImage& stored);
/// The same values in as little memory: int16 where all are whole numbers that it holds, else
/// float32. Takes the stored voxels over where they are so already.
Volume to_compact_image(StoredImage stored);
/// What to_compact_image() takes for so many values; `as_stored`: single, unscaled components.
VoxelMemory compact_memory(StoredType type, int64_t values, bool as_stored);
Volume to_labels(const std::filesystem::path& path, const StoredImage& stored);

}  // namespace vireo::io
