#include <map>
#include <set>

#include "datasets/source.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;

// Endings that published sets put behind the case's name in mask files.
constexpr const char* kMaskSuffixes[] = {"", "_segmentation", "_mask"};

fs::path mask_folder(const DatasetSource& source) {
  const fs::path masks = source.folder / "masks", labels = source.folder / "labels";
  if (fs::is_directory(masks) && fs::is_directory(labels))
    throw DataError(source.folder, "holds both masks/ and labels/; keep one of them");
  if (fs::is_directory(masks)) return masks;
  if (fs::is_directory(labels)) return labels;
  throw DataError(source.folder, "holds neither masks/ nor labels/");
}

// Files by name without extension; a name that two files share is a problem.
std::map<std::string, fs::path> by_stem(const fs::path& folder, DatasetSource& source) {
  std::map<std::string, fs::path> files;
  for (const fs::path& file : image_files(folder)) {
    const auto [place, added] = files.emplace(image_stem(file), file);
    if (!added)
      source.problems.push_back(
          {file, "has the same name as " + place->second.filename().string(), image_stem(file)});
  }
  return files;
}

}  // namespace

void read_pairs(const DataConfig& config, DatasetSource& source) {
  source.format = "pairs";
  labels_from_config(config, source);
  const fs::path image_folder = source.folder / "images";
  if (!fs::is_directory(image_folder)) throw DataError(image_folder, "does not exist");
  const fs::path masks_folder = mask_folder(source);
  const auto images = by_stem(image_folder, source);
  const auto masks = by_stem(masks_folder, source);

  std::set<std::string> used;
  for (const auto& [name, image] : images) {
    const fs::path* mask = nullptr;
    for (const char* suffix : kMaskSuffixes) {
      const auto found = masks.find(name + suffix);
      if (found == masks.end() || mask) continue;
      mask = &found->second;
      used.insert(found->first);
    }
    if (mask)
      source.cases.push_back({name, {image}, *mask});
    else
      source.problems.push_back(
          {image, "has no partner in " + masks_folder.filename().string() + "/", name});
  }
  for (const auto& [name, mask] : masks)
    if (!used.contains(name)) source.problems.push_back({mask, "has no partner in images/", name});
}

}  // namespace vireo::source
