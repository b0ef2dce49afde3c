#include "datasets/cache_writer.h"

#include <ATen/Functions.h>
#include <nlohmann/json.hpp>

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

// For each foreground class, the slices that hold it.
json slices_of_class(const at::Tensor& labels, int64_t class_count) {
  json result = json::array();
  for (int64_t k = 1; k < class_count; ++k) {
    json slices = json::array();
    if (labels.defined()) {
      const at::Tensor holds = labels.eq(k).flatten(1).any(1).nonzero().flatten();
      for (int64_t i = 0; i < holds.numel(); ++i) slices.push_back(holds[i].item<int64_t>());
    }
    result.push_back(slices);
  }
  return result;
}

CaseEntry entry_of(const fs::path& file, const std::string& name) {
  return {name, fs::file_size(file), sha256_of_file(file)};
}

}  // namespace

fs::path cache_manifest(const fs::path& folder) {
  return folder / "cache.json";
}

fs::path cache_case_file(const fs::path& folder, const std::string& name) {
  return folder / "cases" / (name + ".safetensors");
}

CaseEntry write_cached_case(const fs::path& folder,
                            const PreparedCase& prepared,
                            int64_t class_count,
                            const std::string& stamp) {
  const fs::path file = cache_case_file(folder, prepared.name);
  const json description = {{"name", prepared.name},
                            {"geometry", to_json(prepared.geometry)},
                            {"native", to_json(prepared.native)},
                            {"axis_order", prepared.axis_order},
                            {"slices_of_class", slices_of_class(prepared.labels, class_count)}};
  write_safetensors(file,
                    {{"image", prepared.image}, {"labels", prepared.labels}},
                    {{"case", description.dump()}, {"stamp", stamp}});
  return entry_of(file, prepared.name);
}

std::optional<CaseEntry> find_cached_case(const fs::path& folder,
                                          const std::string& name,
                                          const std::string& stamp) {
  const fs::path file = cache_case_file(folder, name);
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return std::nullopt;
  try {
    const SafetensorsFile opened = SafetensorsFile::open(file);
    const auto found = opened.metadata().find("stamp");
    if (found == opened.metadata().end() || found->second != stamp) return std::nullopt;
    return entry_of(file, name);
  } catch (const DataError&) {
    return std::nullopt;
  }
}

void write_cache_manifest(const fs::path& folder,
                          const Preparation& preparation,
                          const std::vector<CaseEntry>& cases,
                          const std::vector<Fold>& folds,
                          const std::string& inputs) {
  json list = json::array();
  for (const CaseEntry& entry : cases)
    list.push_back({{"name", entry.name}, {"bytes", entry.bytes}, {"sha256", entry.sha256}});
  const json manifest = {{"format", "vireo.prepared_cache"},
                         {"version", 1},
                         {"inputs", inputs},
                         {"preparation", preparation.to_json()},
                         {"cases", list},
                         {"folds", to_json(folds)}};
  write_text_atomically(folder / "splits_final.json", to_json(folds).dump(1) + "\n");
  write_text_atomically(cache_manifest(folder), manifest.dump(1) + "\n");
}

std::string cached_inputs(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(cache_manifest(folder), ignored)) return "";
  try {
    return json_text(parse_json(read_text(cache_manifest(folder)), folder), "inputs");
  } catch (const DataError&) {
    return "";
  }
}

void write_prepared_cache(const fs::path& folder,
                          const Preparation& preparation,
                          const std::vector<PreparedCase>& cases,
                          const std::vector<Fold>& folds) {
  std::vector<CaseEntry> entries;
  for (const PreparedCase& one : cases)
    entries.push_back(write_cached_case(folder, one, preparation.class_count(), ""));
  write_cache_manifest(folder, preparation, entries, folds, "");
}

}  // namespace vireo
