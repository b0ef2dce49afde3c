#include "datasets/picture_pairs.h"

#include <algorithm>
#include <iterator>
#include <set>

#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;

std::set<std::string> names_in(const FilesByName& files) {
  std::set<std::string> names;
  for (const auto& [name, file] : files) names.insert(names.end(), name);
  return names;
}

const char* name_of(Part part) {
  return part == Part::kTrain ? "train" : part == Part::kVal ? "val" : "test";
}

std::vector<std::string> case_names(const std::vector<SourceCase>& cases) {
  std::vector<std::string> names;
  for (const SourceCase& one : cases) names.push_back(one.name);
  return names;
}

}  // namespace

FilesByName files_by_name(const fs::path& folder, std::vector<Problem>& problems) {
  FilesByName files;
  for (const fs::path& file : image_files(folder)) {
    const auto [place, added] = files.emplace(image_stem(file), file);
    if (!added)
      problems.push_back(
          {file, "has the same name as " + place->second.filename().string(), image_stem(file)});
  }
  return files;
}

FilesByName take_masks(FilesByName& files, const MaskNames& names) {
  FilesByName masks;
  std::set<std::string> others = names_in(files);
  for (const auto& [name, file] : files) {
    others.erase(name);
    if (names.match(name, others)) masks.emplace(name, file);
    others.insert(name);
  }
  for (const auto& [name, file] : masks) files.erase(name);
  return masks;
}

std::vector<fs::path> folders_in(const fs::path& folder) {
  std::vector<fs::path> folders;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed))
    if (entry.is_directory(failed) && !entry.path().filename().string().starts_with('.'))
      folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  return folders;
}

std::string bare_name(const fs::path& path) {
  std::string name;
  for (const char c : path.filename().string())
    if (c != ' ' && c != '_' && c != '-')
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

void PicturePairs::add(const PictureFolders& folders, const std::vector<std::string>& passed_over) {
  std::vector<Problem>& problems = parts_[folders.part].problems;
  FilesByName pictures = files_by_name(folders.pictures, problems);
  const auto is_other = [&](const auto& file) {
    return std::any_of(passed_over.begin(), passed_over.end(), [&](const std::string& part) {
      return file.first.find(part) != std::string::npos;
    });
  };
  std::erase_if(pictures, is_other);
  FilesByName masks;
  if (folders.masks == folders.pictures) {
    masks = take_masks(pictures, names_);
  } else {
    masks = files_by_name(folders.masks, problems);
    std::erase_if(masks, is_other);
  }
  add(pictures, masks, folders);
}

void PicturePairs::add(const FilesByName& pictures,
                       const FilesByName& masks,
                       const PictureFolders& folders) {
  Found& found = parts_[folders.part];
  const std::set<std::string> names = names_in(pictures);
  std::map<std::string, std::map<std::string, std::vector<fs::path>>> masks_of;  // picture, kind
  std::vector<Problem> strangers;
  std::map<std::string, std::string> by_number;
  const bool none_matches = std::none_of(masks.begin(), masks.end(), [&](const auto& mask) {
    return names_.match(mask.first, names).has_value();
  });
  if (none_matches && !names_.is_given()) by_number = pictures_by_number(names_in(masks), names);
  if (!by_number.empty())
    notes_.push_back(masks.begin()->second.filename().string() + " is taken for the mask of " +
                     pictures.at(by_number.at(masks.begin()->first)).filename().string() +
                     ", and so on by what tells the names of a folder apart");
  for (const auto& [name, file] : masks) {
    const auto number = by_number.find(name);
    const auto match = number == by_number.end() ? names_.match(name, names)
                                                 : MaskNames::Match{number->second, ""};
    if (!match)
      strangers.push_back(
          {file, "has no partner in " + folders.pictures.filename().string() + "/", name});
    else if (MaskNames::is_second_observer(match->kind))
      ++second_observers_;
    else
      masks_of[match->picture][match->kind].push_back(file);
  }
  // A folder of masks per picture.
  if (folders.masks != folders.pictures)
    for (const fs::path& folder : folders_in(folders.masks))
      if (const std::string name = folder.filename().string(); names.contains(name))
        for (const fs::path& file : image_files(folder)) masks_of[name]["/"].push_back(file);

  for (const auto& [name, picture] : pictures) {
    const auto& kinds = masks_of[name];
    if (kinds.empty()) {
      found.problems.push_back({picture,
                                "has no partner in " + folders.masks.filename().string() +
                                    "/; [data] mask_name tells how masks are named",
                                name});
      continue;
    }
    std::vector<fs::path> files = kinds.begin()->second;
    if (kinds.size() > 1) {
      std::string text;
      for (const auto& [kind, of_kind] : kinds)
        text += (text.empty() ? "" : " and ") + of_kind[0].filename().string();
      found.problems.push_back({picture,
                                "has masks of more than one kind: " + text +
                                    "; [data] mask_name says which, for example \"{}_mask\"",
                                name});
      continue;
    }
    SourceCase one{name, {picture}, files[0]};
    one.more_masks.assign(files.begin() + 1, files.end());
    found.cases.push_back(std::move(one));
  }
  std::move(strangers.begin(), strangers.end(), std::back_inserter(found.problems));
}

void PicturePairs::finish(const MaskRule& rule, DatasetSource& source) {
  std::set<std::string> seen;
  bool doubled = false;
  for (const auto& [part, found] : parts_)
    for (const SourceCase& one : found.cases) doubled |= !seen.insert(one.name).second;
  int64_t united = 0;
  for (auto& [part, found] : parts_)
    for (SourceCase& one : found.cases) {
      if (doubled) one.name = std::string(name_of(part)) + "_" + one.name;
      one.rule = rule;
      united += !one.more_masks.empty();
    }

  Found &train = parts_[Part::kTrain], &val = parts_[Part::kVal], &test = parts_[Part::kTest];
  const size_t tests = test.cases.size();
  if (val.cases.empty() && tests > 0) {
    source.notes.push_back("there is no validation part: the " + std::to_string(tests) +
                           " cases of the test part are held out");
    std::swap(val, test);
  } else {
    source.test_cases = std::move(test.cases);
  }
  source.notes.insert(source.notes.end(), notes_.begin(), notes_.end());
  if (united > 0)
    source.notes.push_back(std::to_string(united) +
                           " pictures have several masks, which are united");
  if (second_observers_ > 0)
    source.notes.push_back(std::to_string(second_observers_) +
                           " masks of a second observer are left out");
  if (!val.cases.empty()) source.folds = {{case_names(train.cases), case_names(val.cases)}};
  for (Found* found : {&train, &val}) {
    std::move(found->cases.begin(), found->cases.end(), std::back_inserter(source.cases));
    std::move(found->problems.begin(), found->problems.end(), std::back_inserter(source.problems));
  }
}

MaskRule mask_rule(const DataConfig& config, MaskRule::Kind usual, DatasetSource& source) {
  MaskRule rule;
  rule.kind = usual;
  if (config.masks != DataConfig::Masks::kAuto)
    rule.kind = static_cast<MaskRule::Kind>(static_cast<int>(config.masks) - 1);
  rule.values.clear();
  for (const Label& label : source.labels) rule.values.push_back(label.value);
  rule.colors = config.label_colors;
  const bool two = rule.kind == MaskRule::Kind::kBinary || rule.kind == MaskRule::Kind::kInstances;
  if (two && rule.values.size() != 2)
    throw DataError(source.folder,
                    "has masks that tell foreground from background; [data] labels names " +
                        std::to_string(rule.values.size()) +
                        " classes. If they hold classes, set masks = \"values\" or \"colors\"");
  // What comes out are the classes' values, whatever the files hold.
  if (rule.kind != MaskRule::Kind::kValues) source.values_assumed = false;
  return rule;
}

}  // namespace vireo::source
