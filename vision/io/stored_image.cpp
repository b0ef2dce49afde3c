#include "vision/io/stored_image.h"

#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <utility>

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include "vision/core/error.h"

namespace vireo::io {
namespace {

constexpr int64_t kGrain = 1 << 16;

template <typename Function>
void with_type(StoredType type, Function&& function) {
  switch (type) {
    case StoredType::kUint8:
      return function(uint8_t{});
    case StoredType::kInt8:
      return function(int8_t{});
    case StoredType::kUint16:
      return function(uint16_t{});
    case StoredType::kInt16:
      return function(int16_t{});
    case StoredType::kUint32:
      return function(uint32_t{});
    case StoredType::kInt32:
      return function(int32_t{});
    case StoredType::kUint64:
      return function(uint64_t{});
    case StoredType::kInt64:
      return function(int64_t{});
    case StoredType::kFloat32:
      return function(float{});
    case StoredType::kFloat64:
      return function(double{});
  }
}

at::Tensor empty_like_grid(int64_t channels, const Geometry& geometry, at::ScalarType type) {
  const auto& size = geometry.size_zyx;
  return at::empty({channels, size[0], size[1], size[2]}, type);
}

// Calls visit(place, value) for every stored value, threaded: its place in [C, Z, Y, X] and,
// scaled, the value of the image.
template <typename Visit>
void for_each_value(const StoredImage& stored, const Visit& visit) {
  const int64_t voxels = stored.geometry.voxel_count(), components = stored.components;
  const bool scaled = stored.slope != 1 || stored.intercept != 0;
  with_type(stored.type, [&](auto kind) {
    using T = decltype(kind);
    const T* in = reinterpret_cast<const T*>(stored.bytes.get());
    for (int64_t volume = 0; volume < stored.volumes; ++volume) {
      at::parallel_for(0, voxels, kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t c = 0; c < components; ++c) {
          const T* from = in + volume * voxels * components + c;
          const int64_t to = (volume * components + c) * voxels;
          for (int64_t i = begin; i < end; ++i) {
            const T value = from[i * components];
            visit(to + i,
                  scaled ? static_cast<float>(stored.slope * static_cast<double>(value) +
                                              stored.intercept)
                         : static_cast<float>(value));
          }
        }
      });
    }
  });
}

bool fits_int16(float value) {
  return value >= -32768 && value <= 32767 && value == std::trunc(value);
}

template <typename T>
bool fits_label(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    // 2^31 itself: the largest int32 has no float.
    return value == std::floor(value) && value >= -0x1p31 && value < 0x1p31;
  } else {
    return std::in_range<int32_t>(value);
  }
}

[[noreturn]] void refuse_label(const std::filesystem::path& path, double value) {
  if (!std::isfinite(value))
    throw DataError(path, "holds NaN or an infinity, and labels must be whole numbers");
  throw DataError(path,
                  "holds the value " + std::to_string(value) +
                      ", and labels must be whole numbers below 2^31; is this an image, or a label "
                      "map that was interpolated?");
}

}  // namespace

size_t bytes_of(StoredType type) {
  size_t bytes = 0;
  with_type(type, [&](auto value) { bytes = sizeof value; });
  return bytes;
}

std::unique_ptr<std::byte[]> allocate(const std::filesystem::path& path, size_t bytes) {
  // new[] without an initialiser: pages are taken only as they are filled.
  auto* memory = new (std::nothrow) std::byte[bytes];
  if (!memory)
    throw DataError(path,
                    "needs " + std::to_string(bytes >> 20) + " MiB of memory, which are not free");
  return std::unique_ptr<std::byte[]>(memory);
}

size_t checked_product(const std::filesystem::path& path, std::initializer_list<int64_t> sizes) {
  size_t product = 1;
  for (const int64_t size : sizes)
    if (size < 0 || __builtin_mul_overflow(product, static_cast<size_t>(size), &product) ||
        product > size_t{1} << 48)
      throw DataError(path, "declares more voxels than any file could hold; its header is broken");
  return product;
}

Volume to_image(const StoredImage& stored) {
  Volume volume{empty_like_grid(stored.channels(), stored.geometry, at::kFloat),
                stored.geometry,
                stored.full_scale};
  float* out = volume.values.mutable_data_ptr<float>();
  for_each_value(stored, [out](int64_t place, float value) { out[place] = value; });
  return volume;
}

Volume to_compact_image(StoredImage stored) {
  const bool as_stored = stored.components == 1 && stored.slope == 1 && stored.intercept == 0;
  const bool is_float = stored.type == StoredType::kFloat32;
  if (as_stored && (is_float || stored.type == StoredType::kInt16)) {
    const auto& size = stored.geometry.size_zyx;
    std::byte* bytes = stored.bytes.release();
    return {at::from_blob(
                bytes,
                {stored.volumes, size[0], size[1], size[2]},
                [](void* taken) { delete[] static_cast<std::byte*>(taken); },
                is_float ? at::kFloat : at::kShort),
            stored.geometry,
            stored.full_scale};
  }
  {
    Volume volume{empty_like_grid(stored.channels(), stored.geometry, at::kShort),
                  stored.geometry,
                  stored.full_scale};
    int16_t* out = volume.values.mutable_data_ptr<int16_t>();
    std::atomic<bool> fits{true};
    for_each_value(stored, [&](int64_t place, float value) {
      if (fits_int16(value))
        out[place] = static_cast<int16_t>(value);
      else
        fits.store(false, std::memory_order_relaxed);
    });
    if (fits) return volume;
  }
  return to_image(stored);
}

VoxelMemory compact_memory(StoredType type, int64_t values, bool as_stored) {
  const auto width = static_cast<int64_t>(bytes_of(type));
  if (as_stored && (type == StoredType::kFloat32 || type == StoredType::kInt16))
    return {values * width, 0};
  return {values * (as_stored && width == 1 ? 2 : 4), values * width};
}

Volume to_labels(const std::filesystem::path& path, const StoredImage& stored) {
  if (stored.volumes != 1)
    throw DataError(path,
                    "has " + std::to_string(stored.volumes) +
                        " volumes; a label map has one (labels, not one mask per class)");
  Volume volume{empty_like_grid(1, stored.geometry, at::kInt), stored.geometry, stored.full_scale};
  int32_t* out = volume.values.mutable_data_ptr<int32_t>();
  const int64_t voxels = stored.geometry.voxel_count(), components = stored.components;
  const bool scaled = stored.slope != 1 || stored.intercept != 0;
  with_type(stored.type, [&](auto kind) {
    using T = decltype(kind);
    const T* in = reinterpret_cast<const T*>(stored.bytes.get());
    for (int64_t i = 0; i < voxels; ++i) {
      const T value = in[i * components];
      for (int64_t c = 1; c < components; ++c)
        if (in[i * components + c] != value)
          throw DataError(path,
                          "is a colour picture; a label map holds one number per pixel. Save the "
                          "class numbers as grey values; a data set of masks in colours is "
                          "prepared with [data] masks = \"colors\" and label_colors");
      if (scaled) {
        const double label = stored.slope * static_cast<double>(value) + stored.intercept;
        if (!fits_label(label)) refuse_label(path, label);
        out[i] = static_cast<int32_t>(label);
      } else {
        if (!fits_label(value)) refuse_label(path, static_cast<double>(value));
        out[i] = static_cast<int32_t>(value);
      }
    }
  });
  return volume;
}

}  // namespace vireo::io
