#include "apps/engine/evaluation_files.h"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include <nlohmann/json.hpp>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr size_t kListedNames = 20;  // of a long list, in messages

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  std::string part;
  while (std::getline(in, part, separator)) parts.push_back(part);
  return parts;
}

int64_t label_value(const std::string& text, const std::string& whole) {
  size_t used = 0;
  int64_t value = -1;
  try {
    value = std::stoll(text, &used);
  } catch (const std::exception&) {
  }
  if (used != text.size() || value < 1)
    throw UsageError(
        "--labels " + whole + ": \"" + text +
        "\" is no label value; expected a dataset.json, or names such as liver,spleen or "
        "liver=1,kidneys=2+3");
  return value;
}

LabelDeclaration labels_from_names(const std::string& text) {
  LabelDeclaration declared;
  for (const std::string& entry : split(text, ',')) {
    const size_t equals = entry.find('=');
    ScoredClass scored{entry.substr(0, equals), {}};
    if (scored.name.empty()) throw UsageError("--labels " + text + ": a label without a name");
    if (equals == std::string::npos)
      scored.values.push_back(static_cast<int64_t>(declared.classes.size()) + 1);
    else
      for (const std::string& value : split(entry.substr(equals + 1), '+'))
        scored.values.push_back(label_value(value, text));
    if (scored.values.empty())
      throw UsageError("--labels " + text + ": " + scored.name + " has no value");
    declared.classes.push_back(std::move(scored));
  }
  return declared;
}

LabelDeclaration labels_from_file(const fs::path& path) {
  const auto json = parse_ordered_json(read_text(path, size_t{64} << 20), path);
  if (!json.is_object() || !json.contains("labels") || !json["labels"].is_object())
    throw DataError(path, "has no \"labels\" such as {\"background\": 0, \"liver\": 1}");
  const auto value_of = [&](const std::string& name, const nlohmann::ordered_json& value) {
    if (value.is_number_integer() && value >= 0) return value.get<int64_t>();
    throw DataError(path,
                    "label \"" + name + "\" is " + value.dump() + "; a whole number was expected");
  };
  LabelDeclaration declared;
  for (const auto& [name, value] : json["labels"].items()) {
    // The MSD's files have it the other way round: {"1": "liver"}.
    if (value.is_string()) {
      const int64_t number = label_value(name == "0" ? "1" : name, name);
      if (name != "0") declared.classes.push_back({value.get<std::string>(), {number}});
      continue;
    }
    ScoredClass scored{name, {}};
    if (value.is_array())
      for (const auto& member : value) scored.values.push_back(value_of(name, member));
    else
      scored.values.push_back(value_of(name, value));
    if (name == "ignore")
      declared.ignore_value = scored.values.at(0);
    else if (!scored.values.empty() && scored.values != std::vector<int64_t>{0})
      declared.classes.push_back(std::move(scored));
  }
  return declared;
}

bool is_label_file(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  // What `vireo predict` leaves beside its labels.
  if (name == "preview.png" && fs::exists(entry.path().parent_path() / "statistics.json"))
    return false;
  return entry.is_regular_file() && !name.starts_with(".") &&
         !image_extension(entry.path()).empty();
}

std::map<std::string, std::vector<fs::path>> files_by_name(const fs::path& folder) {
  std::map<std::string, std::vector<fs::path>> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (is_label_file(entry)) files[image_stem(entry.path())].push_back(entry.path());
  for (auto& [name, paths] : files) std::sort(paths.begin(), paths.end());
  return files;
}

// Of several files of one name, the one whose extension is `extension`; else it is not clear which.
fs::path only_one(const std::vector<fs::path>& paths, const std::string& extension) {
  if (paths.size() == 1) return paths.front();
  for (const fs::path& path : paths)
    if (image_extension(path) == extension) return path;
  throw DataError(paths[0],
                  "and " + paths[1].filename().string() +
                      " have the same name: keep one of them in the folder");
}

fs::path image_of(const std::map<std::string, std::vector<fs::path>>& images,
                  const std::string& name) {
  for (const std::string& candidate : {name + "_0000", name})
    if (const auto found = images.find(candidate); found != images.end())
      return found->second.front();
  return {};
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kListedNames); ++i)
    text += (i ? ", " : "") + names[i];
  if (names.size() > kListedNames)
    text += " and " + std::to_string(names.size() - kListedNames) + " more";
  return text;
}

bool contains(const std::vector<int64_t>& values, int64_t value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

void check_declared(const fs::path& path,
                    at::Tensor& labels,
                    const std::vector<int64_t>& declared) {
  const std::vector<int64_t> found = values_in(labels);
  if (declared.empty() || found.empty()) return;
  for (const auto& [held, meant] : {std::pair<int64_t, int64_t>{255, 1}, {1, 255}})
    if (found == std::vector<int64_t>{held} && !contains(declared, held) &&
        contains(declared, meant)) {
      labels = labels.eq(held).to(labels.scalar_type()).mul_(meant);
      return;
    }
  std::vector<std::string> unknown;
  for (const int64_t value : found)
    if (!contains(declared, value)) unknown.push_back(std::to_string(value));
  if (!unknown.empty()) {
    std::vector<std::string> known;
    for (const int64_t value : declared) known.push_back(std::to_string(value));
    throw DataError(path,
                    "holds the label" + std::string(unknown.size() > 1 ? "s " : " ") +
                        listed(unknown) + ", which --labels does not declare (declared: 0, " +
                        listed(known) + ")");
  }
}

}  // namespace

LabelDeclaration declared_labels(const std::string& text) {
  LabelDeclaration declared =
      text.ends_with(".json") ? labels_from_file(text) : labels_from_names(text);
  if (declared.classes.empty()) throw UsageError("--labels " + text + ": no label but background");
  return declared;
}

std::vector<CasePair> pair_cases(const fs::path& predictions,
                                 const fs::path& truths,
                                 const fs::path& images,
                                 const std::vector<std::string>& only) {
  for (const fs::path& path : {predictions, truths})
    if (!fs::exists(path)) throw DataError(path, "does not exist");
  std::map<std::string, std::vector<fs::path>> image_files;
  if (!images.empty() && fs::is_directory(images)) image_files = files_by_name(images);
  if (!fs::is_directory(truths)) {
    if (fs::is_directory(predictions))
      throw DataError(
          predictions,
          "is a folder, but " + truths.string() + " is a file: give two files or two folders");
    const std::string name = image_stem(truths);
    return {{name,
             predictions,
             truths,
             !images.empty() && !fs::is_directory(images) ? images : image_of(image_files, name)}};
  }
  if (!fs::is_directory(predictions))
    throw DataError(
        predictions,
        "is a file, but " + truths.string() + " is a folder: give two files or two folders");

  auto predicted = files_by_name(predictions);
  auto true_files = files_by_name(truths);
  const std::set<std::string> wanted(only.begin(), only.end());
  std::vector<std::string> missing_truths, missing_predictions;
  for (const std::string& name : wanted)
    if (!true_files.contains(name)) missing_truths.push_back(name);
  if (!missing_truths.empty())
    throw DataError(truths, "has no label file for " + listed(missing_truths));

  std::vector<CasePair> pairs;
  for (const auto& [name, paths] : true_files) {
    if (!wanted.empty() && !wanted.contains(name)) continue;
    const auto found = predicted.find(name);
    if (found == predicted.end()) {
      missing_predictions.push_back(name);
      continue;
    }
    const fs::path truth = only_one(paths, image_extension(found->second.front()));
    pairs.push_back({name,
                     only_one(found->second, image_extension(truth)),
                     truth,
                     image_of(image_files, name)});
    predicted.erase(found);
  }
  if (true_files.empty()) throw DataError(truths, "holds no label files");
  if (!missing_predictions.empty())
    throw DataError(predictions,
                    "has no prediction for " + std::to_string(missing_predictions.size()) + " of " +
                        std::to_string(pairs.size() + missing_predictions.size()) +
                        " cases: " + listed(missing_predictions) +
                        ". Predict them, or name the cases to score with --cases");
  std::vector<std::string> extra;
  for (const auto& [name, paths] : predicted)
    if (wanted.empty() && !true_files.contains(name)) extra.push_back(name);
  if (!extra.empty())
    log_warning(predictions.string() + ": without a truth and left out: " + listed(extra));
  return pairs;
}

std::vector<int64_t> values_in(const at::Tensor& labels) {
  // Labels are small numbers; a table beats sorting a volume.
  constexpr int64_t kTable = 65536;
  std::vector<bool> seen(kTable, false);
  std::set<int64_t> values;
  const at::Tensor wide = labels.to(at::kInt).contiguous();
  const auto* first = wide.const_data_ptr<int32_t>();
  for (const int32_t* voxel = first; voxel != first + wide.numel(); ++voxel) {
    if (*voxel >= 0 && *voxel < kTable)
      seen[static_cast<size_t>(*voxel)] = true;
    else
      values.insert(*voxel);
  }
  for (int64_t value = 1; value < kTable; ++value)
    if (seen[static_cast<size_t>(value)]) values.insert(value);
  return {values.begin(), values.end()};
}

PairedLabels read_pair(const CasePair& pair, const std::vector<int64_t>& declared) {
  PairedLabels labels{read_labels(pair.prediction), read_labels(pair.truth)};
  const std::string differs = difference(labels.prediction.geometry, labels.truth.geometry);
  if (!differs.empty())
    throw DataError(pair.prediction,
                    "is not on the grid of " + pair.truth.string() + ": " + differs);
  check_declared(pair.prediction, labels.prediction.values, declared);
  check_declared(pair.truth, labels.truth.values, declared);
  return labels;
}

}  // namespace vireo
