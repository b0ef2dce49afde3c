#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vireo {

/// A NumPy archive (.npz): a ZIP file, without encryption or ZIP64, of arrays stored or deflated.
/// Sizes are checked against the file's before anything is allocated, names and checksums against
/// the archive's directory. Pickled objects are refused.
class NpzFile {
 public:
  /// Throws DataError with what was found and what the format asks for.
  static NpzFile open(const std::filesystem::path& path);

  /// Without ".npy".
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const;
  /// The array as a tensor: uint8, int8, int16, int32, int64, float32, float64, bool; uint16 as
  /// int32. Row by row (C order). Throws DataError.
  at::Tensor array(const std::string& name) const;

 private:
  struct Entry {
    std::string name;
    uint16_t method = 0;
    uint32_t crc = 0, packed = 0, size = 0, header = 0;
  };
  std::string content(const Entry& entry) const;

  std::filesystem::path path_;
  std::string bytes_;
  std::vector<Entry> entries_;
};

}  // namespace vireo
