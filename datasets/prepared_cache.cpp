#include "datasets/prepared_cache.h"

#include <algorithm>
#include <map>

#include <ATen/Functions.h>
#include <nlohmann/json.hpp>

#include "datasets/cache_writer.h"
#include "datasets/splits.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"
#include "vision/core/safetensors.h"
#include "vision/core/sha256.h"
#include "vision/image/geometry_json.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kPrepareAgain = "; run `vireo prepare` again";

[[noreturn]] void broken(const fs::path& path, const std::string& what) {
  throw DataError(path, what + kPrepareAgain);
}

json read_manifest(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw DataError(path.parent_path(),
                    "is not a prepared cache: it has no cache.json, which `vireo prepare` writes "
                    "last. Run it (again)");
  json manifest;
  try {
    manifest = parse_json(read_text(path), path);
  } catch (const DataError&) {
  }
  if (json_text(manifest, "format") != "vireo.prepared_cache")
    broken(path, "is not the manifest of a prepared cache");
  if (const auto version = manifest.find("version"); version == manifest.end() || *version != 1)
    throw DataError(path,
                    "has format version " + (version == manifest.end() ? "none" : version->dump()) +
                        "; this program reads version 1. Prepare the data set with this program");
  return manifest;
}

}  // namespace

struct PreparedCache::State {
  struct File {
    uint64_t bytes = 0;
    std::string sha256;
  };

  fs::path folder;
  Preparation preparation;
  std::vector<std::string> names;
  std::map<std::string, File> files;
  std::vector<Fold> folds;

  SafetensorsFile open_case(const std::string& name) const {
    const auto found = files.find(name);
    if (found == files.end()) throw DataError(folder, "the cache has no case \"" + name + "\"");
    const fs::path path = cache_case_file(folder, name);
    std::error_code failed;
    const uint64_t bytes = fs::file_size(path, failed);
    if (failed) broken(path, "is missing, though the cache's manifest lists it");
    if (bytes != found->second.bytes)
      broken(path,
             "has " + std::to_string(bytes) + " bytes; the manifest says " +
                 std::to_string(found->second.bytes));
    SafetensorsFile file = SafetensorsFile::open(path);
    const int64_t channels = static_cast<int64_t>(preparation.channels.size());
    if (!file.contains("image") || !file.contains("labels") || !file.metadata().contains("case"))
      broken(path, "does not hold an image, labels and their description");
    const at::Tensor image = file.tensor("image"), labels = file.tensor("labels");
    if (image.dim() != 4 || image.size(0) != channels || image.scalar_type() != at::kFloat ||
        labels.dim() != 3 || labels.scalar_type() != at::kByte ||
        image.sizes().slice(1) != labels.sizes())
      broken(path, "image or labels do not have the shape or type that the manifest implies");
    return file;
  }

  const Fold& fold(int64_t number) const {
    if (number < 0 || number >= static_cast<int64_t>(folds.size()))
      throw Error("fold " + std::to_string(number) + " does not exist: " + folder.string() +
                  " has " + std::to_string(folds.size()) + " (from 0)");
    return folds[static_cast<size_t>(number)];
  }
};

PreparedCache PreparedCache::open(const fs::path& folder, bool verify_checksums) {
  const fs::path path = cache_manifest(folder);
  const json manifest = read_manifest(path);
  auto state = std::make_shared<State>();
  state->folder = folder;
  try {
    state->preparation = Preparation::from_json(manifest.at("preparation"), path.string());
    state->folds = folds_from_json(manifest.at("folds"), path.string());
    for (const json& entry : manifest.at("cases")) {
      const auto name = entry.at("name").get<std::string>();
      // Names become file names: none may lead out of the folder.
      if (name.empty() || name.find('/') != std::string::npos)
        broken(path, "lists the impossible case name \"" + name + "\"");
      state->names.push_back(name);
      state->files[name] = {whole_numbers(entry.at("bytes")).get<uint64_t>(),
                            entry.at("sha256").get<std::string>()};
    }
  } catch (const json::exception&) {
    broken(path, "lacks its list of cases, folds or its preparation");
  }
  for (const Fold& fold : state->folds)
    for (const auto* list : {&fold.train, &fold.val})
      for (const std::string& name : *list)
        if (!state->files.contains(name))
          broken(path, "has a fold with the case \"" + name + "\", which it does not hold");
  for (const std::string& name : state->names) {
    state->open_case(name);
    const fs::path file = cache_case_file(folder, name);
    if (verify_checksums && sha256_of_file(file) != state->files[name].sha256)
      broken(file, "its checksum (SHA-256) is not the manifest's: the file was changed or damaged");
  }
  PreparedCache cache;
  cache.state_ = std::move(state);
  return cache;
}

const fs::path& PreparedCache::folder() const {
  return state_->folder;
}

const Preparation& PreparedCache::preparation() const {
  return state_->preparation;
}

std::vector<std::string> PreparedCache::case_names() const {
  return state_->names;
}

CachedCase PreparedCache::load(const std::string& case_name) const {
  const SafetensorsFile file = state_->open_case(case_name);
  CachedCase result;
  result.name = case_name;
  result.sha256 = state_->files.at(case_name).sha256;
  result.image = file.tensor("image");
  result.labels = file.tensor("labels");
  const std::string source = file.path().string();
  try {
    const json description = parse_json(file.metadata().at("case"), file.path());
    result.geometry = geometry_from_json(description.at("geometry"), source);
    result.native = geometry_from_json(description.at("native"), source);
    result.axis_order = whole_numbers(description.at("axis_order")).get<std::array<int, 3>>();
    result.slices_of_class =
        whole_numbers(description.at("slices_of_class")).get<std::vector<std::vector<int64_t>>>();
  } catch (const json::exception&) {
    broken(file.path(), "its description is broken");
  }
  auto sorted_axes = result.axis_order;
  std::sort(sorted_axes.begin(), sorted_axes.end());
  bool sound = sorted_axes == std::array{0, 1, 2} &&
               result.image.sizes().slice(1) == at::IntArrayRef(result.geometry.size_zyx) &&
               result.slices_of_class.size() < state_->preparation.labels.size();
  for (const auto& slices : result.slices_of_class)
    for (const int64_t slice : slices) sound = sound && slice >= 0 && slice < result.labels.size(0);
  if (!sound) broken(file.path(), "its description does not fit its image");
  return result;
}

int64_t PreparedCache::fold_count() const {
  return static_cast<int64_t>(state_->folds.size());
}

std::vector<std::string> PreparedCache::training_cases(int64_t fold) const {
  return state_->fold(fold).train;
}

std::vector<std::string> PreparedCache::validation_cases(int64_t fold) const {
  return state_->fold(fold).val;
}

}  // namespace vireo
