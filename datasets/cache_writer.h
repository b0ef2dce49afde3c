#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "datasets/preparation.h"
#include "datasets/splits.h"

// How a prepared cache is written (prepared_cache.h reads it):
//
//   cache.json                  manifest, written last: without it the folder is not a cache
//   cases/CASE.safetensors      "image", "labels"; grid and stamp in the metadata
//   splits_final.json           the folds, for people and other programs
//
// A case file appears whole or not at all, and carries the stamp of what it was made from, so that
// an interrupted preparation can go on where it stopped.
namespace vireo {

/// A written case file, as the manifest lists it.
struct CaseEntry {
  std::string name;
  uint64_t bytes = 0;
  std::string sha256;
};

std::filesystem::path cache_manifest(const std::filesystem::path& folder);
std::filesystem::path cache_case_file(const std::filesystem::path& folder, const std::string& name);

/// Writes one case. `stamp` tells what it was made from, by which find_cached_case knows it again.
CaseEntry write_cached_case(const std::filesystem::path& folder,
                            const PreparedCase& prepared,
                            int64_t class_count,
                            const std::string& stamp);

/// The case file of an earlier run if it is whole and has this stamp.
std::optional<CaseEntry> find_cached_case(const std::filesystem::path& folder,
                                          const std::string& name,
                                          const std::string& stamp);

/// Completes the cache. `inputs` identifies what the whole cache was made from (cached_inputs).
void write_cache_manifest(const std::filesystem::path& folder,
                          const Preparation& preparation,
                          const std::vector<CaseEntry>& cases,
                          const std::vector<Fold>& folds,
                          const std::string& inputs);

/// `inputs` of a complete cache; empty when the folder is none.
std::string cached_inputs(const std::filesystem::path& folder);

/// All of it at once, for data that is at hand.
void write_prepared_cache(const std::filesystem::path& folder,
                          const Preparation& preparation,
                          const std::vector<PreparedCase>& cases,
                          const std::vector<Fold>& folds);

}  // namespace vireo
