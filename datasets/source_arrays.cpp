#include <algorithm>
#include <map>
#include <set>

#include "datasets/array_file.h"
#include "datasets/layouts.h"
#include "datasets/picture_set.h"
#include "datasets/source.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;

// Folders of published sets, and which part of the set they hold.
struct KnownFolder {
  const char* name;
  Part part;
};
constexpr KnownFolder kArrayFolders[] = {{"train_npz", Part::kTrain},
                                         {"test_vol_h5", Part::kVal},
                                         {"ACDC_training_slices", Part::kTrain},
                                         {"ACDC_training_volumes", Part::kTrain},
                                         {"train_slices", Part::kTrain},
                                         {"val_volumes", Part::kVal},
                                         {"test_volumes", Part::kTest},
                                         {"train", Part::kTrain},
                                         {"valid", Part::kVal},
                                         {"val", Part::kVal}};

std::vector<fs::path> array_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && is_array_file(entry.path()) &&
        !entry.path().filename().string().starts_with('.'))
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

SliceName slice_name(const std::string& stem) {
  const size_t at = stem.rfind("slice");
  if (at == std::string::npos) return {stem, -1};
  size_t digits = stem.size();
  while (digits > at + 5 && std::isdigit(static_cast<unsigned char>(stem[digits - 1]))) --digits;
  if (digits == stem.size() || stem.size() - digits > 9) return {stem, -1};
  const auto trimmed = [](std::string text) {
    while (!text.empty() && (text.back() == '_' || text.back() == '-')) text.pop_back();
    while (!text.empty() && (text.front() == '_' || text.front() == '-')) text.erase(0, 1);
    return text;
  };
  const std::string before = trimmed(stem.substr(0, at));
  const std::string between = trimmed(stem.substr(at + 5, digits - at - 5));
  return {before + (before.empty() || between.empty() ? "" : "_") + between,
          std::stoll(stem.substr(digits))};
}

std::optional<Evidence> look_for_arrays(const fs::path& folder) {
  Evidence evidence;
  for (const auto& known : kArrayFolders) {
    if (!fs::is_directory(folder / known.name)) continue;
    const auto files = array_files(folder / known.name);
    if (files.empty()) continue;
    evidence.reason += (evidence.reason.empty() ? "" : ", ") + std::string(known.name) + "/" +
                       files[0].filename().string();
    evidence.found.insert(known.name);
  }
  if (evidence.found.empty()) return std::nullopt;
  return evidence;
}

void read_arrays(const DataConfig& config, DatasetSource& source) {
  source.format = "arrays";
  labels_from_config(config, source);
  std::map<std::string, SourceCase> cases;
  Fold fold;
  std::set<std::string> tests;
  for (const auto& [folder, part] : kArrayFolders) {
    if (!fs::is_directory(source.folder / folder)) continue;
    std::map<std::string, std::map<int64_t, fs::path>> groups;
    for (const fs::path& file : array_files(source.folder / folder)) {
      const SliceName name = slice_name(array_stem(file));
      const auto [place, added] = groups[name.case_name].emplace(name.slice, file);
      if (!added)
        source.problems.push_back(
            {file, "is the same slice as " + place->second.filename().string(), name.case_name});
    }
    for (const auto& [name, slices] : groups) {
      SourceCase one{name, {}, slices.begin()->second};
      for (const auto& [number, file] : slices) one.images.push_back(file);
      const auto [place, added] = cases.emplace(name, one);
      // The same case as slices and as a volume: the volume is the whole of it.
      if (!added && slices.begin()->first < 0) place->second = one;
      if (!added) continue;
      if (part == Part::kTest)
        tests.insert(name);
      else
        (part == Part::kVal ? fold.val : fold.train).push_back(name);
    }
  }
  for (auto& [name, one] : cases)
    (tests.contains(name) ? source.test_cases : source.cases).push_back(std::move(one));
  if (!fold.train.empty() && !fold.val.empty()) source.folds = {fold};
}

// patient001/patient001_frame01.nii.gz with patient001_frame01_gt.nii.gz, as the challenge gives
// them out. Info.cfg names the frames at the end of diastole and systole.
std::optional<Evidence> look_for_acdc(const fs::path& folder) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("patient") && fs::exists(entry.path() / "Info.cfg"))
      return Evidence{"folders of patients with Info.cfg", {"patients"}};
  }
  return std::nullopt;
}

void read_acdc(const DataConfig& config, DatasetSource& source) {
  source.format = "acdc";
  labels_from_config(
      config, source, {"background", "right ventricle", "myocardium", "left ventricle"});
  for (const auto& patient : fs::directory_iterator(source.folder)) {
    if (!patient.is_directory() || !fs::exists(patient.path() / "Info.cfg")) continue;
    for (const fs::path& file : image_files(patient.path())) {
      const std::string name = image_stem(file);
      if (name.find("_frame") == std::string::npos || name.ends_with("_gt")) continue;
      const fs::path labels = patient.path() / (name + "_gt" + image_extension(file));
      if (fs::exists(labels))
        source.cases.push_back({name, {file}, labels});
      else
        source.problems.push_back({file, "has no partner " + labels.filename().string(), name});
    }
  }
}

}  // namespace vireo::source
