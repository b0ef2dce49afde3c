#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "datasets/mask_names.h"
#include "datasets/picture_set.h"
#include "datasets/source.h"

namespace vireo::source {

/// Pictures and their masks in two folders, or in one.
struct PictureFolders {
  std::filesystem::path pictures, masks;
  Part part = Part::kTrain;
};

/// Image files by name without extension.
using FilesByName = std::map<std::string, std::filesystem::path>;

/// Puts pictures and masks together to cases and these to the parts of a set.
class PicturePairs {
 public:
  explicit PicturePairs(MaskNames names) : names_(std::move(names)) {}

  /// Pairs what lies in these folders; names that hold one of `passed_over` are neither.
  void add(const PictureFolders& folders, const std::vector<std::string>& passed_over = {});
  /// Pairs files of two folders that were listed already. What has no partner is a problem.
  void add(const FilesByName& pictures, const FilesByName& masks, const PictureFolders& folders);

  /// Hands over cases, folds, problems and notes. Where two parts have pictures of one name, the
  /// part's name comes before all. Without a validation part the test part is held out; beside one
  /// it is not prepared.
  void finish(const MaskRule& rule, DatasetSource& source);

 private:
  struct Found {
    std::vector<SourceCase> cases;
    std::vector<Problem> problems;
  };
  MaskNames names_;
  std::map<Part, Found> parts_;
  int64_t second_observers_ = 0;
  std::vector<std::string> notes_;
};

/// The rule that the configuration asks for, else `usual`. The classes must be known.
MaskRule mask_rule(const DataConfig& config, MaskRule::Kind usual, DatasetSource& source);

/// Files of a folder by name; of two with one name the second is a problem.
FilesByName files_by_name(const std::filesystem::path& folder, std::vector<Problem>& problems);

/// Of files that lie side by side, those that are masks of others.
FilesByName take_masks(FilesByName& files, const MaskNames& names);

/// Folders below `folder`, visible ones, in alphabetical order.
std::vector<std::filesystem::path> folders_in(const std::filesystem::path& folder);

/// A name in small letters, without spaces, "_" and "-".
std::string bare_name(const std::filesystem::path& path);

}  // namespace vireo::source
