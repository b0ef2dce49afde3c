#include "datasets/prepared_cache.h"

#include <ATen/Functions.h>
#include <nlohmann/json.hpp>

#include "datasets/cache_writer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/made_caches.h"
#include "vision/core/atomic_file.h"

// A cache of one case. The bytes are its manifest or, behind a '#', the case's file.
void vireo::fuzz::one_input(std::string_view bytes) {
  static const std::filesystem::path folder = write_small_cache(scratch() / "cache");
  static const std::string manifest = read_text(cache_manifest(folder)),
                           whole = read_text(cache_case_file(folder, "a"));
  if (bytes.starts_with('#')) {
    bytes.remove_prefix(1);
    auto fitting = nlohmann::json::parse(manifest);
    fitting["cases"][0]["bytes"] = bytes.size();
    write_bytes("cache/cache.json", fitting.dump());
    write_bytes("cache/cases/a.safetensors", bytes);
  } else {
    write_bytes("cache/cache.json", bytes);
    write_bytes("cache/cases/a.safetensors", whole);
  }
  read_or_refuse([&] {
    const PreparedCache cache = PreparedCache::open(folder);
    for (const std::string& name : cache.case_names()) {
      const CachedCase one = cache.load(name);
      look_at(one.image);
      look_at(one.labels);
    }
    for (int64_t fold = 0; fold < cache.fold_count(); ++fold) cache.training_cases(fold);
  });
  read_or_refuse([&] { cached_inputs(folder); });
}
