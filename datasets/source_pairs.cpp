#include <algorithm>

#include "datasets/layouts.h"
#include "datasets/picture_pairs.h"
#include "datasets/picture_source.h"
#include "vision/core/error.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPictureFolders[] = {"images", "image", "imgs", "img"};
constexpr const char* kMaskFolders[] = {"masks",
                                        "mask",
                                        "labels",
                                        "label",
                                        "annotations",
                                        "annotation",
                                        "segmentations",
                                        "segmentation",
                                        "gt",
                                        "groundtruth",
                                        "1stmanual"};

template <typename Names>
std::vector<fs::path> named_folders(const fs::path& folder, const Names& names) {
  std::vector<fs::path> found;
  for (const fs::path& one : folders_in(folder))
    if (std::find(std::begin(names), std::end(names), bare_name(one)) != std::end(names))
      found.push_back(one);
  return found;
}

std::string below(const fs::path& folder, const fs::path& path) {
  return path.lexically_relative(folder).string() + "/";
}

// The one of several, or none.
fs::path only(const fs::path& folder, const std::vector<fs::path>& found, const char* key) {
  if (found.empty()) return {};
  if (found.size() > 1)
    throw DataError(folder,
                    "holds both " + below(folder, found[0]) + " and " + below(folder, found[1]) +
                        "; keep one of them, or say which with [data] " + key);
  return found[0];
}

// Parts of a set, each with a folder of pictures and one of masks.
std::vector<std::pair<fs::path, Part>> parts_in(const fs::path& folder) {
  std::vector<std::pair<fs::path, Part>> parts;
  for (const fs::path& one : folders_in(folder))
    if (const auto part = part_named(one.filename().string()))
      if (!named_folders(one, kPictureFolders).empty() && !named_folders(one, kMaskFolders).empty())
        parts.emplace_back(one, *part);
  return parts;
}

PictureFolders two_folders(const DataConfig& config, const fs::path& folder, Part part) {
  const auto chosen = [&](const fs::path& given, const auto& usual, const char* key) {
    const fs::path found = given.empty()
                               ? only(folder, named_folders(folder, usual), key)
                               : inside(folder, given.string(), std::string("[data] ") + key);
    if (!found.empty() && !fs::is_directory(found)) throw DataError(found, "is no folder");
    return found;
  };
  const PictureFolders folders{chosen(config.image_folder, kPictureFolders, "image_folder"),
                               chosen(config.mask_folder, kMaskFolders, "mask_folder"),
                               part};
  if (folders.pictures.empty())
    throw DataError(folder, "holds no images/; [data] image_folder names the pictures' folder");
  if (folders.masks.empty())
    throw DataError(folder,
                    "holds neither masks/ nor labels/; [data] mask_folder names the masks' folder");
  return folders;
}

// Masks beside most of the pictures.
bool lies_side_by_side(const fs::path& folder) {
  std::vector<Problem> ignored;
  FilesByName pictures = files_by_name(folder, ignored);
  const size_t masks = take_masks(pictures, MaskNames()).size();
  return masks > 0 && 2 * masks >= pictures.size();
}

}  // namespace

std::optional<Evidence> look_for_pairs(const fs::path& folder) {
  const auto pictures = named_folders(folder, kPictureFolders);
  const auto masks = named_folders(folder, kMaskFolders);
  if (!pictures.empty() && !masks.empty()) {
    const std::string a = pictures[0].filename().string(), b = masks[0].filename().string();
    return Evidence{a + "/ with " + b + "/", {a, b}};
  }
  if (const auto parts = parts_in(folder); !parts.empty()) {
    Evidence evidence;
    for (const auto& [path, part] : parts) {
      const std::string name = path.filename().string();
      evidence.reason += (evidence.reason.empty() ? "" : ", ") + name + "/";
      evidence.found.insert(name);
    }
    evidence.reason += " with pictures and masks";
    return evidence;
  }
  if (lies_side_by_side(folder)) return Evidence{"pictures with masks beside them", {"files"}};
  return std::nullopt;
}

void read_pairs(const DataConfig& config, DatasetSource& source) {
  source.format = "pairs";
  labels_from_config(config, source);
  PicturePairs pairs((MaskNames(config.mask_name)));
  const fs::path& folder = source.folder;
  const bool chosen = !config.image_folder.empty() || !config.mask_folder.empty();
  const auto parts = chosen ? decltype(parts_in(folder)){} : parts_in(folder);
  const bool two = chosen || !named_folders(folder, kPictureFolders).empty();
  if (two)
    pairs.add(two_folders(config, folder, Part::kTrain));
  else if (!parts.empty())
    for (const auto& [path, part] : parts) pairs.add(two_folders(config, path, part));
  else if (!image_files(folder).empty())
    pairs.add({folder, folder});
  else
    two_folders(config, folder, Part::kTrain);  // says what is missing
  pairs.finish(mask_rule(config, MaskRule::Kind::kValues, source), source);
}

}  // namespace vireo::source
