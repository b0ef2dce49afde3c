#include "datasets/layouts.h"

#include <algorithm>

#include "datasets/dataset_json.h"
#include "vision/core/error.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;
using Format = DataConfig::Format;

constexpr size_t kListedEntries = 8;

bool holds(const fs::path& folder, const char* name) {
  std::error_code ignored;
  return fs::exists(folder / name, ignored);
}

// dataset.json, which nnU-Net and the Decathlon fill differently.
std::optional<Format> described(const fs::path& folder) {
  if (!holds(folder, "dataset.json")) return std::nullopt;
  const DatasetJson description(folder / "dataset.json");
  if (description.has("channel_names") || description.has("file_ending")) return Format::kNnunet;
  if (description.has("training") || description.has("modality")) return Format::kMsd;
  throw DataError(description.path(),
                  "has neither \"channel_names\" and \"file_ending\" (nnU-Net) nor \"modality\" "
                  "and \"training\" (Medical Segmentation Decathlon)");
}

std::optional<Evidence> look_for_nnunet(const fs::path& folder) {
  if (described(folder) != Format::kNnunet) return std::nullopt;
  return Evidence{"dataset.json with nnU-Net's channel_names or file_ending",
                  {"dataset.json", "imagesTr", "labelsTr"}};
}

std::optional<Evidence> look_for_msd(const fs::path& folder) {
  if (described(folder) == Format::kMsd)
    return Evidence{"dataset.json with the Decathlon's modality or training",
                    {"dataset.json", "imagesTr", "labelsTr"}};
  if (!holds(folder, "dataset.json") && holds(folder, "imagesTr") && holds(folder, "labelsTr"))
    return Evidence{"imagesTr/ and labelsTr/ without a dataset.json", {"imagesTr", "labelsTr"}};
  return std::nullopt;
}

std::string quoted(const Layout& layout) {
  return "\"" + layout.name() + "\"";
}

// The first few entries of a folder, for people.
std::string contents(const fs::path& folder) {
  std::vector<std::string> folders, files;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.')) continue;
    if (entry.is_directory(failed))
      folders.push_back(name + "/");
    else
      files.push_back(name);
  }
  const auto listed = [](std::vector<std::string>& names, const char* one, const char* many) {
    std::sort(names.begin(), names.end());
    std::string text = std::to_string(names.size()) + " " + (names.size() == 1 ? one : many);
    for (size_t i = 0; i < std::min(names.size(), kListedEntries); ++i)
      text += (i ? ", " : " (") + names[i];
    return text + (names.size() > kListedEntries ? ", ...)" : names.empty() ? "" : ")");
  };
  return listed(folders, "folder", "folders") + " and " + listed(files, "file", "files");
}

// A folder below that is known, for want of one here.
std::string known_below(const fs::path& folder) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (!entry.is_directory(failed) || entry.path().filename().string().starts_with('.')) continue;
    for (const Layout& layout : layouts()) {
      try {
        if (layout.look(entry.path()))
          return "\n  " + entry.path().filename().string() + "/ in it looks like " +
                 quoted(layout) + ": give that folder as [data] folder";
      } catch (const DataError&) {
      }
    }
  }
  return "";
}

bool is_part_of(const Evidence& inner, const Evidence& outer) {
  return std::includes(
      outer.found.begin(), outer.found.end(), inner.found.begin(), inner.found.end());
}

}  // namespace

const std::string& Layout::name() const {
  return DataConfig::format_names()[static_cast<size_t>(format)];
}

const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {Format::kNnunet,
       "dataset.json with channel_names, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz (nnU-Net)",
       look_for_nnunet,
       read_nnunet},
      {Format::kMsd,
       "imagesTr/ and labelsTr/, dataset.json with modality (Medical Segmentation Decathlon)",
       look_for_msd,
       read_msd},
      {Format::kArrays,
       "train_npz/ and test_vol_h5/, ACDC_training_slices/, train_slices/ and val_volumes/, "
       "train/, valid/ and test/, or data/slices/ and data/ of .npz and .h5",
       look_for_arrays,
       read_arrays},
      {Format::kAcdc,
       "patient001/Info.cfg, also below training/ and testing/ (ACDC as given out)",
       look_for_acdc,
       read_acdc},
      {Format::kIsic,
       "ISIC..._Training_Input/ or _Data/ with ..._GroundTruth/ISIC_0000000_segmentation.png",
       look_for_isic,
       read_isic},
      {Format::kKvasir,
       "images/ and masks/ with kavsir_bboxes.json (Kvasir-SEG)",
       look_for_kvasir,
       read_kvasir},
      {Format::kCvc,
       "Original/ and Ground Truth/, also below PNG/ or TIF/ (CVC-ClinicDB)",
       look_for_cvc,
       read_cvc},
      {Format::kBusi,
       "benign/ and malignant/ with \"benign (1)_mask.png\" (BUSI)",
       look_for_busi,
       read_busi},
      {Format::kGlas, "train_1.bmp with train_1_anno.bmp (GLAS)", look_for_glas, read_glas},
      {Format::kPairs,
       "pictures and masks in images/ and masks/ (labels/, gt/, ...; others are named by [data] "
       "image_folder and mask_folder), in train/, val/ and test/ with such folders, or side by "
       "side as X.png and X_mask.png",
       look_for_pairs,
       read_pairs}};
  return all;
}

const Layout& layout_of(Format format) {
  return *std::find_if(
      layouts().begin(), layouts().end(), [&](const Layout& one) { return one.format == format; });
}

std::pair<const Layout*, std::string> recognise(const fs::path& folder) {
  std::vector<std::pair<const Layout*, Evidence>> candidates;
  for (const Layout& layout : layouts())
    if (auto evidence = layout.look(folder)) candidates.emplace_back(&layout, std::move(*evidence));
  // The later layout is the more general one.
  for (size_t i = candidates.size(); i-- > 1;)
    for (size_t j = 0; j < i; ++j)
      if (is_part_of(candidates[i].second, candidates[j].second)) {
        candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(i));
        break;
      }
  if (candidates.size() == 1) return {candidates[0].first, candidates[0].second.reason};
  if (candidates.empty()) {
    std::string text = "is no data set that is known. Looked for:";
    for (const Layout& layout : layouts()) text += "\n  " + layout.name() + ": " + layout.expected;
    throw DataError(folder, text + "\nFound: " + contents(folder) + known_below(folder));
  }
  std::string text;
  for (const auto& [layout, evidence] : candidates)
    text += (text.empty() ? "" : " and as ") + quoted(*layout) + " (" + evidence.reason + ")";
  throw DataError(folder,
                  "can be read as " + text + ". Say which: [data] format = " +
                      quoted(*candidates[0].first) + ", or --format");
}

}  // namespace vireo::source
