#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "datasets/preparation.h"
#include "vision/core/config_table.h"

namespace vireo {

/// The [data] table of a configuration: where a data set is and how it is prepared.
struct DataConfig {
  enum class Format {
    kAuto,
    kNnunet,
    kMsd,
    kPairs,
    kArrays,
    kAcdc,
    kIsic,
    kKvasir,
    kCvc,
    kBusi,
    kGlas
  };
  /// What the numbers in masks are (MaskRule, mask_file.h); kAuto: what the layout's masks are
  /// known to be, else label values.
  enum class Masks { kAuto, kValues, kBinary, kInstances, kColors };
  enum class Spacing { kStored, kMedian, kFixed };

  std::filesystem::path folder;  ///< `folder`, with ${NAME:-default} replaced
  Format format = Format::kAuto;
  std::string name;  ///< empty: from dataset.json or the folder's name

  /// Classes, background first, for folders without a dataset.json (`labels`, `label_values`).
  /// Without values they are 0, 1, 2, ...; masks of exactly two values 0 and 255 then count as two
  /// classes.
  std::vector<std::string> label_names;
  std::vector<int64_t> label_values;
  std::vector<std::array<uint8_t, 3>> label_colors;
  std::optional<int64_t> ignore_value;
  bool allow_empty_labels = false;

  Masks masks = Masks::kAuto;
  /// Pairs: the masks' names where the usual ones do not fit, "{}" for the picture's ("{}_L").
  std::string mask_name;
  /// Pairs: the folders of pictures and masks, relative to the folder; empty: the usual ones.
  std::filesystem::path image_folder, mask_folder;
  /// Follow symbolic links that lead out of the folder; else they are refused.
  bool allow_links = false;

  std::vector<std::string> channel_names;
  /// Per channel, or one for all; nothing: chosen by the channel's name and the kind of file.
  std::vector<std::optional<ChannelNormalization::Kind>> normalization;

  bool slice_axis_by_spacing = true;
  int slice_axis_zyx = 0;
  Spacing spacing = Spacing::kStored;
  Vector3 spacing_mm{0, 0, 0};  ///< kFixed: slice axis first; 0: as stored
  /// Height and width that every slice is brought to, whatever its own; excludes spacing_mm.
  std::optional<std::array<int64_t, 2>> slice_size;

  int64_t folds = 5;
  int64_t split_seed = 12345;
  /// Relative to the folder; empty: train.txt and val.txt where they exist.
  std::filesystem::path train_list, val_list;

  std::filesystem::path cache;  ///< the prepared cache; by default "prepared" in the run's folder
  int64_t workers = 0;          ///< 0: all cores

  /// The names of Format, in its order.
  static const std::vector<std::string>& format_names();

  /// Reads and finishes the table. Throws ConfigError.
  static DataConfig from_table(ConfigTable table, const std::filesystem::path& run_folder);

  /// Everything that has a say in what a cache holds, as JSON text: two configurations with the
  /// same text make the same cache from the same files.
  std::string recipe() const;
};

}  // namespace vireo
