#include "datasets/source.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
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
#include "vision/core/utf8.h"
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

// Lists of the training, validation and test part that lie beside the data; SSL4MIS's last.
constexpr const char* kUsualLists[][3] = {{"train.txt", "val.txt", ""},
                                          {"train_slices.list", "val.list", "test.list"}};

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
  std::vector<fs::path> names = {"dataset.json", "splits_final.json"};
  for (const auto& lists : kUsualLists)
    names.insert(names.end(), std::begin(lists), std::end(lists));
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
struct ListFiles {
  fs::path splits, train, val, test;

  bool empty() const { return splits.empty() && train.empty(); }
};

ListFiles list_files(const DataConfig& config, const fs::path& folder) {
  ListFiles files;
  const auto given = [&](const fs::path& list, const char* key) {
    return list.empty() ? list : source::inside(folder, list.string(), key);
  };
  const auto existing = [&](const char* name) {
    return *name && fs::exists(folder / name) ? folder / name : fs::path();
  };
  if (!config.train_list.empty()) {
    files.train = given(config.train_list, "[data] train_list");
    files.val = given(config.val_list, "[data] val_list");
    return files;
  }
  files.splits = existing("splits_final.json");
  for (const auto& [train, val, test] : kUsualLists) {
    if (!files.empty()) break;
    files.train = existing(train);
    if (files.train.empty()) continue;
    files.val = existing(val);
    files.test = existing(test);
  }
  return files;
}

bool has_problem(const DatasetSource& source, const std::string& case_name) {
  return std::any_of(source.problems.begin(), source.problems.end(), [&](const Problem& p) {
    return p.case_name == case_name;
  });
}

// Cases that a list names and the set does not have.
void check_listed(const std::vector<std::string>& listed,
                  const fs::path& origin,
                  std::set<std::string>& reported,
                  DatasetSource& source) {
  const auto all = names_of(source);
  for (const auto& name : listed)
    if (!std::binary_search(all.begin(), all.end(), name) && !has_problem(source, name) &&
        reported.insert(name).second)
      source.problems.push_back(
          {origin, "lists the case \"" + name + "\", which does not exist", {}});
}

// What is wrong with the folds, by the file that says so.
void check_folds(const ListFiles& files, DatasetSource& source) {
  const fs::path origin = files.splits.empty() ? files.train : files.splits;
  std::set<std::string> reported;
  for (size_t f = 0; f < source.folds.size(); ++f) {
    const Fold& fold = source.folds[f];
    if (fold.train.empty())
      source.problems.push_back(
          {origin,
           "fold " + std::to_string(f) +
               ": \"train\" lists no cases; every fold needs some to train on",
           {}});
    for (const auto& name : fold.val)
      if (std::find(fold.train.begin(), fold.train.end(), name) != fold.train.end())
        source.problems.push_back(
            {origin, "case \"" + name + "\" is in both the training and the validation part", {}});
    check_listed(fold.train, origin, reported, source);
    check_listed(fold.val, files.val.empty() ? origin : files.val, reported, source);
  }
}

void read_folds(const DataConfig& config, DatasetSource& source) {
  const ListFiles files = list_files(config, source.folder);
  if (files.empty()) return;

  // Lists part the set anew; of the layout's test part they may choose.
  std::set<std::string> tests, chosen;
  for (const SourceCase& one : source.test_cases) tests.insert(one.name);
  std::move(source.test_cases.begin(), source.test_cases.end(), std::back_inserter(source.cases));
  source.test_cases.clear();
  source.folds.clear();
  sort_by_name(source.cases);
  for (const fs::path& file : {files.splits, files.train, files.val, files.test})
    if (!file.empty()) source.descriptions.push_back(file);
  if (!files.splits.empty()) {
    source.folds = folds_from_json(source::DatasetJson(files.splits).json(), files.splits.string());
  } else {
    source.folds = {Fold{source::read_list(files.train), {}}};
    if (!files.val.empty()) source.folds[0].val = source::read_list(files.val);
  }
  check_folds(files, source);
  if (!files.test.empty()) {
    std::set<std::string> reported;
    const auto listed = source::read_list(files.test);
    check_listed(listed, files.test, reported, source);
    tests.insert(listed.begin(), listed.end());
  }

  // Lists choose the cases; what they leave out is not prepared.
  for (const Fold& fold : source.folds)
    for (const auto* list : {&fold.train, &fold.val}) chosen.insert(list->begin(), list->end());
  std::erase_if(source.cases, [&](const SourceCase& one) {
    if (chosen.contains(one.name) || !tests.contains(one.name)) return false;
    source.test_cases.push_back(one);
    return true;
  });
  if (files.train.empty()) return;
  std::erase_if(source.cases, [&](const SourceCase& one) { return !chosen.contains(one.name); });
  std::erase_if(source.problems, [&](const Problem& problem) {
    return !problem.case_name.empty() && !chosen.contains(problem.case_name);
  });
  // One list alone says what to train on, not how to part it.
  if (files.val.empty()) source.folds.clear();
}

// Caches, splits and checkpoints name cases in JSON.
void check_names(DatasetSource& source) {
  source.name = valid_utf8(source.name);
  for (const auto* cases : {&source.cases, &source.test_cases})
    for (const SourceCase& one : *cases)
      if (!is_utf8(one.name))
        source.problems.push_back({one.images[0], "its name is no UTF-8; rename the file", {}});
}

// What the user is told of the parts.
void note_parts(DatasetSource& source) {
  if (!source.test_cases.empty())
    source.notes.push_back("the " + std::to_string(source.test_cases.size()) +
                           " cases of the test part are not prepared; `vireo evaluate CHECKPOINT "
                           "CONFIG --part test` scores them");
  if (!source.folds.empty()) return;
  std::set<std::string> patients;
  for (const SourceCase& one : source.cases) patients.insert(source::patient_of(one.name));
  if (patients.size() > 1 && patients.size() < source.cases.size())
    source.notes.push_back(
        "the seeded folds keep patients whole: " + std::to_string(source.cases.size()) +
        " cases of " + std::to_string(patients.size()) + " patients");
}

}  // namespace

std::vector<fs::path> SourceCase::mask_files() const {
  std::vector<fs::path> files = {labels};
  files.insert(files.end(), more_masks.begin(), more_masks.end());
  return files;
}

std::vector<Fold> folds_of(const DataConfig& config, const DatasetSource& source) {
  if (!source.folds.empty()) return source.folds;
  return make_grouped_folds(
      names_of(source), source::patient_of, config.folds, static_cast<uint32_t>(config.split_seed));
}

DatasetSource read_source(const DataConfig& config) {
  DatasetSource source;
  source.folder = find_folder(config);
  source::Enclosure held(source.folder, config.allow_links);
  check_descriptions(config, source.folder, held);
  const source::Layout* layout = nullptr;
  const bool chosen = !config.image_folder.empty() || !config.mask_folder.empty();
  if (config.format == DataConfig::Format::kAuto && chosen) {
    layout = &source::layout_of(DataConfig::Format::kPairs);
    source.notes.push_back(source.folder.string() + " is read as \"" + layout->name() +
                           "\": [data] names its image_folder or mask_folder");
  } else if (config.format == DataConfig::Format::kAuto) {
    std::string reason;
    std::tie(layout, reason) = source::recognise(source.folder);
    source.notes.push_back(source.folder.string() + " is read as \"" + layout->name() +
                           "\": " + reason);
  } else {
    layout = &source::layout_of(config.format);
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
  check_names(source);
  if (source.cases.empty() && source.problems.empty())
    throw DataError(source.folder, "holds no training cases");
  read_folds(config, source);
  report_escapes(source, held);
  note_parts(source);
  source::warn_of_missing_slices(source);
  return source;
}

}  // namespace vireo
