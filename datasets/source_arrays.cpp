#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <string_view>

#include "datasets/array_file.h"
#include "datasets/layouts.h"
#include "datasets/picture_set.h"
#include "datasets/source.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;

// Folders of published sets, and which part of the set they hold.
struct KnownFolder {
  const char* name;
  Part part;
  const char* beside = nullptr;  // counts only where this folder holds arrays, too
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
                                         {"val", Part::kVal},
                                         {"test", Part::kTest},
                                         {"data/slices", Part::kTrain},
                                         {"data", Part::kTrain},
                                         {"slices", Part::kTrain},
                                         {"", Part::kTrain, "slices"}};
constexpr size_t kListedGaps = 4;

std::vector<fs::path> array_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && is_array_file(entry.path()) &&
        !entry.path().filename().string().starts_with('.'))
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// The folders that a set has, with their files.
std::vector<std::pair<KnownFolder, std::vector<fs::path>>> known_folders(const fs::path& folder) {
  std::vector<std::pair<KnownFolder, std::vector<fs::path>>> found;
  const auto files_in = [&](const char* name) {
    const fs::path path = *name ? folder / name : folder;
    return fs::is_directory(path) ? array_files(path) : std::vector<fs::path>();
  };
  for (const KnownFolder& known : kArrayFolders) {
    if (known.beside && files_in(known.beside).empty()) continue;
    auto files = files_in(known.name);
    if (!files.empty()) found.emplace_back(known, std::move(files));
  }
  return found;
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isdigit(c) != 0;
  });
}

// Drops `ending`; whether it was there.
bool drop(std::string& text, const char* ending) {
  if (!text.ends_with(ending)) return false;
  text.resize(text.size() - std::string_view(ending).size());
  return true;
}

// ACDC's patients.
std::vector<fs::path> patients_in(const fs::path& folder) {
  std::vector<fs::path> patients;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed))
    if (entry.path().filename().string().starts_with("patient") &&
        fs::exists(entry.path() / "Info.cfg"))
      patients.push_back(entry.path());
  return patients;
}

// The frames of a patient that have labels, and those that should have.
std::vector<SourceCase> labelled_frames(const fs::path& patient, std::vector<Problem>& problems) {
  std::vector<SourceCase> cases;
  for (const fs::path& file : image_files(patient)) {
    const std::string name = image_stem(file);
    if (name.find("_frame") == std::string::npos || name.ends_with("_gt")) continue;
    const fs::path labels = patient / (name + "_gt" + image_extension(file));
    if (fs::exists(labels))
      cases.push_back({name, {file}, labels});
    else
      problems.push_back({file, "has no partner " + labels.filename().string(), name});
  }
  return cases;
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

std::string patient_of(const std::string& case_name) {
  std::string patient = case_name;
  if (drop(patient, "_ED") || drop(patient, "_ES")) {
    drop(patient, "_volume");
  } else {
    const size_t at = patient.rfind("_frame");
    if (at == std::string::npos || !is_number(patient.substr(at + 6))) return case_name;
    patient.resize(at);
  }
  for (const char* word : {"patient", "case"}) {
    if (!patient.starts_with(word)) continue;
    std::string number = patient.substr(std::string_view(word).size());
    if (number.starts_with('_')) number.erase(0, 1);
    if (is_number(number)) return patient;
  }
  return case_name;
}

void warn_of_missing_slices(const DatasetSource& source) {
  std::string text;
  size_t cases = 0;
  for (const SourceCase& one : source.cases) {
    int64_t before = -1;
    for (const fs::path& file : one.images) {
      if (!is_array_file(file)) break;
      const int64_t slice = slice_name(array_stem(file)).slice;
      if (before >= 0 && slice > before + 1) {
        if (++cases <= kListedGaps)
          text += (cases > 1 ? ", " : "") + one.name + " (none between " + std::to_string(before) +
                  " and " + std::to_string(slice) + ")";
        break;
      }
      before = slice;
    }
  }
  if (cases == 0) return;
  if (cases > kListedGaps) text += " and " + std::to_string(cases - kListedGaps) + " more";
  log_warning(source.folder.string() + ": slices are missing within " + std::to_string(cases) +
              (cases == 1 ? " case: " : " cases: ") + text +
              "; the slices on both sides are taken for neighbours. Was the set copied whole?");
}

std::optional<Evidence> look_for_arrays(const fs::path& folder) {
  Evidence evidence;
  for (const auto& [known, files] : known_folders(folder)) {
    evidence.reason += (evidence.reason.empty() ? "" : ", ") +
                       (fs::path(known.name) / files[0].filename()).string();
    evidence.found.insert(*known.name ? known.name : "files");
  }
  if (evidence.found.empty()) return std::nullopt;
  return evidence;
}

void read_arrays(const DataConfig& config, DatasetSource& source) {
  source.format = "arrays";
  labels_from_config(config, source);
  const auto folders = known_folders(source.folder);
  if (folders.empty())
    throw DataError(source.folder,
                    std::string("holds no .npz or .h5 files in folders that are known: ") +
                        layout_of(DataConfig::Format::kArrays).expected);
  std::map<std::string, SourceCase> cases;
  Fold fold;
  std::vector<std::string> tests;
  for (const auto& [known, files] : folders) {
    std::map<std::string, std::map<int64_t, fs::path>> groups;
    for (const fs::path& file : files) {
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
      (known.part == Part::kTest  ? tests
       : known.part == Part::kVal ? fold.val
                                  : fold.train)
          .push_back(name);
    }
  }
  if (fold.val.empty() && !fold.train.empty() && !tests.empty()) {
    source.notes.push_back("there is no validation part: the " + std::to_string(tests.size()) +
                           " cases of the test part are held out");
    std::swap(fold.val, tests);
  }
  const std::set<std::string> kept(tests.begin(), tests.end());
  for (auto& [name, one] : cases)
    (kept.contains(name) ? source.test_cases : source.cases).push_back(std::move(one));
  if (!fold.train.empty() && !fold.val.empty()) source.folds = {fold};
}

// patient001/patient001_frame01.nii.gz with patient001_frame01_gt.nii.gz, as the challenge gives
// them out: all in one folder, or in training/ and testing/. Info.cfg names the frames at the end
// of diastole and systole.
std::optional<Evidence> look_for_acdc(const fs::path& folder) {
  if (!patients_in(folder).empty())
    return Evidence{"folders of patients with Info.cfg", {"patients"}};
  if (!patients_in(folder / "training").empty())
    return Evidence{"training/ with folders of patients with Info.cfg", {"training", "testing"}};
  return std::nullopt;
}

void read_acdc(const DataConfig& config, DatasetSource& source) {
  source.format = "acdc";
  labels_from_config(
      config, source, {"background", "right ventricle", "myocardium", "left ventricle"});
  const bool parted = patients_in(source.folder).empty();
  const auto add = [](std::vector<SourceCase>& to, std::vector<SourceCase> cases) {
    std::move(cases.begin(), cases.end(), std::back_inserter(to));
  };
  for (const fs::path& patient : patients_in(parted ? source.folder / "training" : source.folder))
    add(source.cases, labelled_frames(patient, source.problems));
  if (!parted) return;
  // The challenge gave its testing part out without labels at first.
  std::vector<Problem> unlabelled;
  for (const fs::path& patient : patients_in(source.folder / "testing"))
    add(source.test_cases, labelled_frames(patient, unlabelled));
  if (!unlabelled.empty())
    source.notes.push_back(std::to_string(unlabelled.size()) +
                           " scans in testing/ have no labels and are left out");
}

}  // namespace vireo::source
