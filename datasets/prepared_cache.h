#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "datasets/preparation.h"

namespace vireo {

/// One case of a prepared cache, read lazily through a memory map.
struct CachedCase {
  std::string name;
  std::string sha256;  ///< of the file
  at::Tensor image;    ///< float32 [C, D, H, W], read-only view of the file
  at::Tensor labels;   ///< uint8 [D, H, W]
  Geometry geometry;
  Geometry native;
  std::array<int, 3> axis_order{0, 1, 2};
  /// For each foreground class, the slices (indices along D) that hold it.
  std::vector<std::vector<int64_t>> slices_of_class;
};

/// A data set as `vireo prepare` leaves it: `cache.json` (description, cases, checksums, splits)
/// and one safetensors file per case. Needs neither ITK nor OpenCV. A folder without a complete
/// cache.json is not a cache: an interrupted prepare is never read.
class PreparedCache {
 public:
  /// Throws DataError when the folder is not a complete cache or a file's size or header disagrees
  /// with the manifest. `verify_checksums` also reads every byte.
  static PreparedCache open(const std::filesystem::path& folder, bool verify_checksums = false);

  const std::filesystem::path& folder() const;
  const Preparation& preparation() const;
  std::vector<std::string> case_names() const;
  CachedCase load(const std::string& case_name) const;
  /// Number of stored folds, and the names of a fold's part. Fold lists are those of the data set's
  /// splits_final.json or list files where it has them, else seeded k-fold by case.
  int64_t fold_count() const;
  std::vector<std::string> training_cases(int64_t fold) const;
  std::vector<std::string> validation_cases(int64_t fold) const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace vireo
