#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vireo {

class NpzBytes;
class NpzStream;

/// An array of an archive, read from its first row (along the first axis) to its last, so that it
/// never has to be in memory whole.
class NpzRows {
 public:
  NpzRows(NpzRows&&) noexcept;
  ~NpzRows();

  const std::vector<int64_t>& shape() const { return shape_; }
  /// What `next` returns: uint8, int8, int16, int32, int64, float32, float64, bool. uint16 is
  /// widened to int32, uint32 to int64 and float16 to float32; uint64 becomes int64, where every
  /// value fits. Bytes may be stored in either order.
  at::ScalarType type() const { return type_; }
  /// The next `rows` rows, [rows, ...]; at most as many as are left. With the last one the checksum
  /// is compared. Throws DataError.
  at::Tensor next(int64_t rows);
  /// Passes over rows.
  void skip(int64_t rows);

 private:
  friend class NpzFile;
  NpzRows();

  std::unique_ptr<NpzStream> stream_;
  std::vector<int64_t> shape_;
  at::ScalarType stored_{}, type_{};
  int64_t mask_ = 0;
  bool swapped_ = false, column_major_ = false;
  int64_t left_ = 0, row_values_ = 1;
};

/// A NumPy archive (.npz) of any size: a ZIP or ZIP64 file, without encryption, of arrays stored or
/// deflated. Sizes are checked against the file's before anything is allocated, names and checksums
/// against the archive's directory. Pickled objects are refused.
class NpzFile {
 public:
  /// Throws DataError with what was found and what the format asks for.
  static NpzFile open(const std::filesystem::path& path);

  /// Without ".npy".
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const;
  /// The whole array, contiguous, with the types of NpzRows; it may be stored by row or by column
  /// (Fortran order). Throws DataError, also where there is no room for it (array_room.h).
  at::Tensor array(const std::string& name) const;
  /// The array's type and shape, before its values. Throws DataError, also for one by column.
  NpzRows rows(const std::string& name) const;

 private:
  struct Entry {
    std::string name;
    bool deflated = false;
    uint32_t crc = 0;
    uint64_t packed = 0, size = 0, header = 0;
  };
  friend class NpzStream;
  NpzRows stored_rows(const std::string& name) const;

  std::shared_ptr<const NpzBytes> bytes_;
  std::vector<Entry> entries_;
};

}  // namespace vireo
