#include <algorithm>
#include <cctype>
#include <map>

#include "datasets/layouts.h"
#include "datasets/picture_pairs.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

// Published sets of pictures with masks of two classes.
namespace vireo::source {
namespace {

namespace fs = std::filesystem;
using Kind = MaskRule::Kind;

constexpr const char* kLesionFolders[] = {"benign", "malignant", "normal"};

bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

// "name/" of a published archive that was unpacked into a folder of its own name.
fs::path unpacked(const fs::path& folder) {
  const fs::path twin = folder / folder.filename();
  return image_files(folder).empty() && fs::is_directory(twin) ? twin : folder;
}

struct IsicFolders {
  std::map<Part, std::vector<fs::path>> pictures, truths;
};

// ISBI2016_ISIC_Part1_Training_Data, ISIC-2017_Test_v2_Part1_GroundTruth,
// ISIC2018_Task1-2_Validation_Input, ...
IsicFolders isic_folders(const fs::path& folder) {
  IsicFolders found;
  for (const fs::path& one : folders_in(folder)) {
    const std::string name = bare_name(one);
    if (!contains(name, "isic")) continue;
    const Part part = contains(name, "training")     ? Part::kTrain
                      : contains(name, "validation") ? Part::kVal
                                                     : Part::kTest;
    const bool named = part != Part::kTest || contains(name, "test");
    if (!named) continue;
    if (contains(name, "groundtruth")) {
      const bool classes = contains(name, "part2") || contains(name, "part3") ||
                           contains(name, "task2") || contains(name, "task3");
      if (!classes) found.truths[part].push_back(one);
    } else if (name.ends_with("data") || name.ends_with("input")) {
      found.pictures[part].push_back(one);
    }
  }
  return found;
}

bool has_isic_masks_beside(const fs::path& folder) {
  const auto files = image_files(folder);
  return std::any_of(files.begin(), files.end(), [](const fs::path& file) {
    const std::string name = bare_name(file);
    return name.starts_with("isic") && contains(name, "segmentation.");
  });
}

// Kvasir-SEG's names, such as cju0qkwl35piu0993l0dewei2.
bool has_kvasir_names(const fs::path& pictures) {
  const auto files = image_files(pictures);
  return !files.empty() && std::all_of(files.begin(), files.end(), [](const fs::path& file) {
    const std::string name = image_stem(file);
    return name.size() == 25 && (name.starts_with("cj") || name.starts_with("ck")) &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c); });
  });
}

std::optional<PictureFolders> cvc_folders(const fs::path& folder) {
  PictureFolders found;
  for (const fs::path& one : folders_in(folder)) {
    if (bare_name(one) == "original") found.pictures = one;
    if (bare_name(one) == "groundtruth") found.masks = one;
  }
  if (found.pictures.empty() || found.masks.empty()) return std::nullopt;
  return found;
}

// The folder of either kind of file, PNG before TIF: they hold the same pictures.
fs::path cvc_root(const fs::path& folder) {
  if (cvc_folders(folder)) return folder;
  for (const char* kind : {"PNG", "TIF"})
    if (cvc_folders(folder / kind)) return folder / kind;
  return {};
}

std::optional<Part> glas_part(const std::string& name) {
  if (name.starts_with("train_")) return Part::kTrain;
  if (name.starts_with("testA_") || name.starts_with("testB_") || name.starts_with("test_"))
    return Part::kTest;
  return std::nullopt;
}

}  // namespace

std::optional<Evidence> look_for_isic(const fs::path& folder) {
  const IsicFolders found = isic_folders(folder);
  if (found.pictures.contains(Part::kTrain) && found.truths.contains(Part::kTrain)) {
    const std::string pictures = found.pictures.at(Part::kTrain)[0].filename().string();
    const std::string truths = found.truths.at(Part::kTrain)[0].filename().string();
    return Evidence{pictures + "/ with " + truths + "/", {pictures, truths}};
  }
  if (has_isic_masks_beside(folder))
    return Evidence{"ISIC_..._segmentation.png beside the pictures", {"files"}};
  return std::nullopt;
}

void read_isic(const DataConfig& config, DatasetSource& source) {
  source.format = "isic";
  labels_from_config(config, source, {"background", "lesion"});
  const IsicFolders found = isic_folders(source.folder);
  PicturePairs pairs((MaskNames(config.mask_name)));
  const std::vector<std::string> others = {"_superpixels", "_attribute_"};
  if (found.pictures.empty()) pairs.add({source.folder, source.folder}, others);
  for (const auto& [part, pictures] : found.pictures) {
    const auto truths = found.truths.find(part);
    if (truths == found.truths.end()) {
      source.notes.push_back(pictures[0].filename().string() +
                             "/ has no truth beside it and is left out");
      continue;
    }
    for (const auto* list : {&pictures, &truths->second})
      if (list->size() > 1)
        throw DataError(source.folder,
                        "holds " + (*list)[0].filename().string() + "/ and " +
                            (*list)[1].filename().string() +
                            "/; give each year's set a folder of its own");
    pairs.add({unpacked(pictures[0]), unpacked(truths->second[0]), part}, others);
  }
  pairs.finish(mask_rule(config, Kind::kBinary, source), source);
}

std::optional<Evidence> look_for_kvasir(const fs::path& folder) {
  if (!fs::is_directory(folder / "images") || !fs::is_directory(folder / "masks"))
    return std::nullopt;
  for (const char* name : {"kavsir_bboxes.json", "kvasir_bboxes.json"})
    if (fs::exists(folder / name))
      return Evidence{std::string("images/ and masks/ with ") + name, {"images", "masks"}};
  if (!has_kvasir_names(folder / "images")) return std::nullopt;
  return Evidence{"images/ and masks/ with Kvasir-SEG's names", {"images", "masks"}};
}

void read_kvasir(const DataConfig& config, DatasetSource& source) {
  source.format = "kvasir";
  labels_from_config(config, source, {"background", "polyp"});
  for (const char* name : {"images", "masks"})
    if (!fs::is_directory(source.folder / name))
      throw DataError(source.folder / name, "does not exist");
  PicturePairs pairs((MaskNames(config.mask_name)));
  pairs.add({source.folder / "images", source.folder / "masks"});
  pairs.finish(mask_rule(config, Kind::kBinary, source), source);
}

std::optional<Evidence> look_for_cvc(const fs::path& folder) {
  const fs::path root = cvc_root(folder);
  if (root.empty()) return std::nullopt;
  const PictureFolders found = *cvc_folders(root);
  const auto below = [&](const fs::path& path) { return path.lexically_relative(folder); };
  return Evidence{below(found.pictures).string() + "/ with " + below(found.masks).string() + "/",
                  {below(found.pictures).begin()->string(), below(found.masks).begin()->string()}};
}

void read_cvc(const DataConfig& config, DatasetSource& source) {
  source.format = "cvc";
  labels_from_config(config, source, {"background", "polyp"});
  const fs::path root = cvc_root(source.folder);
  if (root.empty())
    throw DataError(source.folder,
                    "holds no Original/ and Ground Truth/, nor PNG/ or TIF/ with them");
  if (root != source.folder) source.notes.push_back("read from " + root.filename().string() + "/");
  PicturePairs pairs((MaskNames(config.mask_name)));
  pairs.add(*cvc_folders(root));
  pairs.finish(mask_rule(config, Kind::kBinary, source), source);
}

std::optional<Evidence> look_for_busi(const fs::path& folder) {
  Evidence evidence;
  bool masks = false;
  for (const char* kind : kLesionFolders) {
    if (!fs::is_directory(folder / kind)) continue;
    evidence.reason += (evidence.reason.empty() ? "" : ", ") + std::string(kind) + "/";
    evidence.found.insert(kind);
    for (const fs::path& file : image_files(folder / kind))
      masks = masks || image_stem(file).ends_with("_mask");
  }
  if (!masks) return std::nullopt;
  evidence.reason += " with masks beside the pictures";
  return evidence;
}

void read_busi(const DataConfig& config, DatasetSource& source) {
  source.format = "busi";
  labels_from_config(config, source, {"background", "lesion"});
  PicturePairs pairs((MaskNames(config.mask_name)));
  for (const char* kind : kLesionFolders) {
    const fs::path folder = source.folder / kind;
    if (!fs::is_directory(folder)) continue;
    if (std::string(kind) == "normal" && !config.allow_empty_labels)
      source.notes.push_back(
          "normal/ is left out: nothing is outlined there ([data] allow_empty_labels = true takes "
          "it in)");
    else
      pairs.add({folder, folder});
  }
  pairs.finish(mask_rule(config, Kind::kBinary, source), source);
}

std::optional<Evidence> look_for_glas(const fs::path& folder) {
  for (const fs::path& file : image_files(folder)) {
    const std::string name = image_stem(file);
    if (name.ends_with("_anno") && glas_part(name))
      return Evidence{file.filename().string() + " beside its picture", {"files"}};
  }
  return std::nullopt;
}

void read_glas(const DataConfig& config, DatasetSource& source) {
  source.format = "glas";
  labels_from_config(config, source, {"background", "gland"});
  PicturePairs pairs((MaskNames(config.mask_name)));
  FilesByName files = files_by_name(source.folder, source.problems);
  std::map<Part, FilesByName> of_part;
  for (const auto& [name, file] : files) {
    if (const auto part = glas_part(name))
      of_part[*part].emplace(name, file);
    else
      source.problems.push_back(
          {file, "is neither train_N nor testA_N nor testB_N, as GLAS names its pictures", name});
  }
  for (auto& [part, pictures] : of_part) {
    const FilesByName masks = take_masks(pictures, MaskNames(config.mask_name));
    pairs.add(pictures, masks, {source.folder, source.folder, part});
  }
  pairs.finish(mask_rule(config, Kind::kInstances, source), source);
}

}  // namespace vireo::source
