#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "vision/core/config_table.h"

namespace vireo {

/// The [data] table of a classification: where pictures and classes are and how they are prepared.
struct PictureDataConfig {
  enum class Format { kAuto, kFolders, kCsv, kLists, kMedmnist };

  std::filesystem::path folder;  ///< or the .npz file
  Format format = Format::kAuto;
  std::string name;                      ///< empty: the folder's name
  std::vector<std::string> class_names;  ///< empty: what the data set says
  bool multi_label = false;

  /// Follow symbolic links that lead out of the folder; else they are refused.
  bool allow_links = false;

  /// The table and the lists lie in the folder, or where an absolute path says; the paths in them
  /// lie in the folder.
  std::filesystem::path csv;
  /// Column names; empty: the usual ones are looked for.
  std::string path_column, patient_column, split_column;
  std::vector<std::string> label_columns;  ///< one; for multi-label one per class
  std::filesystem::path train_list, val_list, test_list;

  bool decoded = true;         ///< decoded pixels in the cache; else the files stay where they are
  int64_t channels = 0;        ///< 0: 3 where any picture has colour
  std::string depth = "auto";  ///< auto, full_scale, stretch: how deep pixels become 8 bits
  int64_t short_side = 0;      ///< larger pictures are reduced to it; 0: kept as they are
  bool skip_broken = true;     ///< leave broken files out, with a warning; else refuse

  int64_t folds = 5;
  int64_t split_seed = 12345;
  std::filesystem::path cache;
  int64_t workers = 0;  ///< 0: all cores

  /// Reads and finishes the table. Throws ConfigError.
  static PictureDataConfig from_table(ConfigTable table, const std::filesystem::path& run_folder);
  /// Everything that has a say in what a cache holds.
  std::string recipe() const;
};

}  // namespace vireo
