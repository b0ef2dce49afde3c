#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

// Pictures with classes, as training and evaluation see them, and the prepared cache that holds
// them. Needs neither ITK nor OpenCV.
namespace vireo {

enum class Part : uint8_t { kTrain = 0, kVal = 1, kTest = 2 };

struct PictureItem {
  std::string name;      ///< path below the data set's folder, or the place in its arrays
  int64_t label = 0;     ///< class; unused for multi-label
  int64_t patient = -1;  ///< items of one patient share a number; -1: not known
  Part part = Part::kTrain;
  int64_t fold = -1;  ///< the fold that holds this item out; -1: none does
};

struct PictureSet {
  std::string name;
  std::vector<std::string> class_names;
  bool multi_label = false;
  int64_t channels = 3;          ///< 1 or 3
  std::vector<double> mean, sd;  ///< per channel over the training part, of values in 0..1
  std::vector<PictureItem> items;
  std::vector<uint8_t> labels;  ///< multi-label: [items, classes], 0 or 1
  /// The item's picture, uint8 [H, W, channels]. Thread-safe; throws DataError.
  std::function<at::Tensor(int64_t item)> picture;

  int64_t class_count() const { return static_cast<int64_t>(class_names.size()); }
  bool holds(int64_t item, int64_t label) const {
    const auto i = static_cast<size_t>(item);
    return multi_label ? labels[i * class_names.size() + static_cast<size_t>(label)] != 0
                       : items[i].label == label;
  }
  /// 1 where the data set has a validation part; else that of the k-fold split.
  int64_t fold_count() const;
  std::vector<int64_t> training_items(int64_t fold) const;
  std::vector<int64_t> validation_items(int64_t fold) const;
  std::vector<int64_t> test_items() const;
};

/// Splits the training items without a validation part into `folds`, patients kept whole.
void split_by_patient(PictureSet& set, int64_t folds, uint32_t seed);

/// How a set's cache keeps its pictures: decoded in the cache, or as files where they are.
struct PictureStorage {
  bool decoded = true;
  std::filesystem::path folder;                   ///< of the files, where not decoded
  std::vector<int64_t> shards, offsets;           ///< decoded: where each item's pixels begin
  std::vector<std::array<int64_t, 3>> sizes_hwc;  ///< decoded: rows, columns, channels
  std::vector<int64_t> slices;                    ///< files: slice of a volume, -1: a picture
  std::string depth;                              ///< files: how deep pixels become 8 bits
};

/// Decodes a file of a set that was not decoded: uint8 [H, W, 1 or 3].
using PictureDecoder = std::function<at::Tensor(
    const std::filesystem::path& file, int64_t slice, const std::string& depth)>;

/// Opens what write_picture_cache left. Sets of files need `decode`. Throws DataError when the
/// folder is no complete cache or its parts disagree.
PictureSet open_picture_cache(const std::filesystem::path& folder, PictureDecoder decode = {});

/// Whether a folder is a complete picture cache made from `inputs` (any, when empty).
bool is_picture_cache(const std::filesystem::path& folder, const std::string& inputs = "");

std::filesystem::path picture_shard(const std::filesystem::path& folder, int64_t number);

/// Completes a cache whose shards ("pixels", uint8) lie in `folder` already.
void write_picture_cache(const std::filesystem::path& folder,
                         const PictureSet& set,
                         const PictureStorage& storage,
                         const std::string& inputs);

/// uint8 [H, W, 1 or 3] with `channels` channels: grey is repeated, colour becomes its luminance.
at::Tensor with_channels(const at::Tensor& picture, int64_t channels);

}  // namespace vireo
