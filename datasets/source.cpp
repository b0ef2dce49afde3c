#include "datasets/source.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>
#include <tuple>

#include <nlohmann/json.hpp>

#include "datasets/array_file.h"
#include "datasets/dataset_json.h"
#include "datasets/enclosure.h"
#include "datasets/layouts.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {

namespace fs = std::filesystem;

namespace source {

fs::path inside(const fs::path& folder,
                const std::string& relative,
                const fs::path& origin,
                const std::string& where) {
  const fs::path path = fs::path(relative).lexically_normal();
  if (relative.empty() || path.is_absolute() || *path.begin() == ".." ||
      relative.find('\0') != std::string::npos)
    throw DataError(origin,
                    where + (where.empty() ? "" : ": ") + "the path \"" + relative +
                        "\" does not lie in the data set's folder");
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

void labels_from_config(const DataConfig& config,
                        DatasetSource& source,
                        const std::vector<std::string>& usual) {
  const auto& names = config.label_names.empty() ? usual : config.label_names;
  if (names.empty())
    throw DataError(source.folder,
                    "has no dataset.json that names the classes; name them in the configuration, "
                    "for example [data] labels = [\"background\", \"vessel\"]");
  for (size_t i = 0; i < names.size(); ++i) {
    const auto number = static_cast<int64_t>(i);
    const int64_t value = config.label_values.empty() ? number : config.label_values[i];
    source.labels.push_back({names[i], value, default_color(number)});
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

// What describes the set may not be a link to somewhere else.
void check_descriptions(const DataConfig& config, const fs::path& folder, source::Enclosure& held) {
  std::vector<fs::path> names = {"dataset.json", "splits_final.json", "train.txt", "val.txt"};
  for (const fs::path& list : {config.train_list, config.val_list})
    if (!list.empty() && list.is_relative()) names.push_back(list);
  for (const fs::path& name : names)
    if (std::error_code ignored; fs::is_symlink(folder / name, ignored)) held.check(folder / name);
}

void report_escapes(DatasetSource& source, source::Enclosure& held) {
  for (const auto* cases : {&source.cases, &source.test_cases})
    for (const SourceCase& one : *cases) {
      std::vector<fs::path> files = one.images;
      const auto masks = one.mask_files();
      files.insert(files.end(), masks.begin(), masks.end());
      for (const fs::path& file : files)
        if (const std::string what = held.escape(file); !what.empty())
          source.problems.push_back({file, what, one.name});
    }
}

void sort_by_name(std::vector<SourceCase>& cases) {
  std::sort(
      cases.begin(), cases.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
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

  // Lists part the set anew; of the layout's test part they may choose.
  const std::vector<SourceCase> tests = source.test_cases;
  if (!splits.empty() || !train.empty()) {
    source.cases.insert(source.cases.end(), tests.begin(), tests.end());
    source.test_cases.clear();
    source.folds.clear();
    sort_by_name(source.cases);
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
  for (const SourceCase& test : tests)
    if (!chosen.contains(test.name) && (!splits.empty() || !train.empty())) {
      source.test_cases.push_back(test);
      std::erase_if(source.cases, [&](const SourceCase& one) { return one.name == test.name; });
    }
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

std::vector<fs::path> SourceCase::mask_files() const {
  std::vector<fs::path> files = {labels};
  files.insert(files.end(), more_masks.begin(), more_masks.end());
  return files;
}

std::vector<Fold> folds_of(const DataConfig& config, const DatasetSource& source) {
  if (!source.folds.empty()) return source.folds;
  return make_folds(names_of(source), config.folds, static_cast<uint32_t>(config.split_seed));
}

DatasetSource read_source(const DataConfig& config) {
  DatasetSource source;
  source.folder = find_folder(config);
  source::Enclosure held(source.folder, config.allow_links);
  check_descriptions(config, source.folder, held);
  const auto& known = source::layouts();
  const source::Layout* layout = nullptr;
  if (config.format == DataConfig::Format::kAuto) {
    std::string reason;
    std::tie(layout, reason) = source::recognise(source.folder);
    source.notes.push_back(source.folder.string() + " is read as \"" + layout->name() +
                           "\": " + reason);
  } else {
    layout = &*std::find_if(
        known.begin(), known.end(), [&](const auto& one) { return one.format == config.format; });
  }
  layout->read(config, source);
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
  sort_by_name(source.cases);
  sort_by_name(source.test_cases);
  if (source.cases.empty() && source.problems.empty())
    throw DataError(source.folder, "holds no training cases");
  read_folds(config, source);
  report_escapes(source, held);
  return source;
}

}  // namespace vireo
