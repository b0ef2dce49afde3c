#include "datasets/source.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>

#include "datasets/array_file.h"
#include "datasets/dataset_json.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {

namespace fs = std::filesystem;

namespace source {

fs::path inside(const fs::path& folder, const std::string& relative, const fs::path& origin) {
  const fs::path path = fs::path(relative).lexically_normal();
  if (relative.empty() || path.is_absolute() || *path.begin() == "..")
    throw DataError(origin, "the path \"" + relative + "\" does not lie in the data set's folder");
  return folder / path;
}

std::vector<fs::path> image_files(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with('.') || image_extension(name).empty()) continue;
    if (entry.is_regular_file(failed)) files.push_back(entry.path());
  }
  if (failed) throw DataError(folder, "cannot be listed: " + failed.message());
  std::sort(files.begin(), files.end());
  return files;
}

void labels_from_config(const DataConfig& config, DatasetSource& source) {
  if (config.label_names.empty())
    throw DataError(source.folder,
                    "has no dataset.json that names the classes; name them in the configuration, "
                    "for example [data] labels = [\"background\", \"vessel\"]");
  for (size_t i = 0; i < config.label_names.size(); ++i) {
    const auto number = static_cast<int64_t>(i);
    const int64_t value = config.label_values.empty() ? number : config.label_values[i];
    source.labels.push_back({config.label_names[i], value, default_color(number)});
  }
  source.values_assumed = config.label_values.empty();
}

std::vector<std::string> read_list(const fs::path& path) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  std::istringstream lines(read_text(path));
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back()))) line.pop_back();
    if (line.empty()) continue;
    const std::string where = "line " + std::to_string(number) + ": \"" + line + "\" ";
    if (line.find('/') != std::string::npos || line.starts_with('.'))
      throw DataError(path, where + "is a path; a case name was expected");
    const SliceName name = slice_name(is_array_file(line) ? array_stem(line) : image_stem(line));
    if (seen.insert(name.case_name).second)
      names.push_back(name.case_name);
    else if (name.slice < 0)
      throw DataError(path, where + "is listed twice");
  }
  if (names.empty()) throw DataError(path, "lists no cases");
  return names;
}

}  // namespace source

namespace {

// A folder as given, or below $nnUNet_raw.
fs::path find_folder(const DataConfig& config) {
  std::error_code ignored;
  if (fs::is_directory(config.folder, ignored)) return config.folder;
  const char* raw = std::getenv("nnUNet_raw");
  if (raw && *raw && config.folder.is_relative() && fs::is_directory(raw / config.folder, ignored))
    return raw / config.folder;
  throw DataError(config.folder,
                  fs::exists(config.folder, ignored)
                      ? "is not a folder; [data] folder names the data set's folder"
                      : "does not exist; [data] folder names the data set's folder (a name in "
                        "${...} is taken from the environment)");
}

DataConfig::Format recognise(const fs::path& folder) {
  const auto has = [&](const char* name) { return fs::exists(folder / name); };
  const bool decathlon_folders = has("imagesTr") && has("labelsTr");
  if (has("dataset.json")) {
    const source::DatasetJson description(folder / "dataset.json");
    if (description.has("channel_names") || description.has("file_ending"))
      return DataConfig::Format::kNnunet;
    if (description.has("training") || description.has("modality")) return DataConfig::Format::kMsd;
    throw DataError(description.path(),
                    "has neither \"channel_names\" and \"file_ending\" (nnU-Net) nor \"modality\" "
                    "and \"training\" (Medical Segmentation Decathlon)");
  }
  if (has("images") && (has("masks") || has("labels"))) return DataConfig::Format::kPairs;
  if (decathlon_folders) return DataConfig::Format::kMsd;
  if (source::has_array_folders(folder)) return DataConfig::Format::kArrays;
  if (source::has_acdc_patients(folder)) return DataConfig::Format::kAcdc;
  throw DataError(folder,
                  "is no data set that is known. Expected: dataset.json, imagesTr/ and labelsTr/ "
                  "(nnU-Net or Medical Segmentation Decathlon), images/ with masks/ or labels/, "
                  "train_npz/ and test_vol_h5/ or ACDC_training_slices/ (array files), or "
                  "patient001/Info.cfg (ACDC)");
}

std::vector<std::string> names_of(const DatasetSource& source) {
  std::vector<std::string> names;
  for (const auto& one : source.cases) names.push_back(one.name);
  return names;
}

// The files that say how the set is parted, if any.
void read_folds(const DataConfig& config, DatasetSource& source) {
  fs::path train = config.train_list, val = config.val_list, splits;
  if (!train.empty()) {
    train = source::inside(source.folder, train.string(), "[data] train_list");
    if (!val.empty()) val = source::inside(source.folder, val.string(), "[data] val_list");
  } else if (fs::exists(source.folder / "splits_final.json")) {
    splits = source.folder / "splits_final.json";
  } else if (fs::exists(source.folder / "train.txt")) {
    train = source.folder / "train.txt";
    if (fs::exists(source.folder / "val.txt")) val = source.folder / "val.txt";
  }

  if (!splits.empty()) {
    source.descriptions.push_back(splits);
    source.folds = folds_from_json(source::DatasetJson(splits).json(), splits.string());
  }
  if (!train.empty()) {
    source.descriptions.push_back(train);
    Fold fold{source::read_list(train), {}};
    if (!val.empty()) {
      source.descriptions.push_back(val);
      fold.val = source::read_list(val);
    }
    source.folds = {fold};
  }
  if (source.folds.empty()) return;

  // Lists choose the cases; what they leave out (a test part) is not prepared.
  const fs::path origin = splits.empty() ? train : splits;
  const auto all = names_of(source);
  std::set<std::string> chosen;
  for (size_t f = 0; f < source.folds.size(); ++f) {
    const Fold& fold = source.folds[f];
    for (const auto& name : fold.val)
      if (std::find(fold.train.begin(), fold.train.end(), name) != fold.train.end())
        source.problems.push_back(
            {origin, "case \"" + name + "\" is in both the training and the validation part", {}});
    for (const auto* list : {&fold.train, &fold.val}) chosen.insert(list->begin(), list->end());
  }
  const auto has_problem = [&](const std::string& name) {
    return std::any_of(source.problems.begin(), source.problems.end(), [&](const Problem& p) {
      return p.case_name == name;
    });
  };
  for (const auto& name : chosen)
    if (!std::binary_search(all.begin(), all.end(), name) && !has_problem(name))
      source.problems.push_back(
          {origin, "lists the case \"" + name + "\", which does not exist", {}});
  if (!train.empty()) {
    std::erase_if(source.cases, [&](const SourceCase& one) { return !chosen.contains(one.name); });
    std::erase_if(source.problems, [&](const Problem& problem) {
      return !problem.case_name.empty() && !chosen.contains(problem.case_name);
    });
    // One list alone says what to train on, not how to part it.
    if (val.empty()) source.folds.clear();
  }
}

}  // namespace

DatasetSource read_source(const DataConfig& config) {
  DatasetSource source;
  source.folder = find_folder(config);
  const auto format =
      config.format == DataConfig::Format::kAuto ? recognise(source.folder) : config.format;
  switch (format) {
    case DataConfig::Format::kNnunet:
      source::read_nnunet(config, source);
      break;
    case DataConfig::Format::kMsd:
      source::read_msd(config, source);
      break;
    case DataConfig::Format::kArrays:
      source::read_arrays(config, source);
      break;
    case DataConfig::Format::kAcdc:
      source::read_acdc(config, source);
      break;
    default:
      source::read_pairs(config, source);
  }
  if (!config.name.empty()) source.name = config.name;
  if (source.name.empty())
    source.name = fs::absolute(source.folder).lexically_normal().filename().string();
  if (!config.channel_names.empty()) source.channel_names = config.channel_names;
  if (config.ignore_value) source.ignore_value = config.ignore_value;
  for (size_t i = 0; i < std::min(config.label_colors.size(), source.labels.size()); ++i)
    source.labels[i].color_rgb = config.label_colors[i];

  if (source.labels.size() > kIgnoredClass)
    throw DataError(source.folder,
                    "declares " + std::to_string(source.labels.size()) +
                        " classes; at most 255 are prepared (labels are stored in 8 bits)");
  std::sort(source.cases.begin(), source.cases.end(), [](const auto& a, const auto& b) {
    return a.name < b.name;
  });
  if (source.cases.empty() && source.problems.empty())
    throw DataError(source.folder, "holds no training cases");
  read_folds(config, source);
  return source;
}

}  // namespace vireo
