#include "datasets/prepare_dataset.h"

#include <atomic>
#include <chrono>
#include <set>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/cache_writer.h"
#include "datasets/case_scan.h"
#include "datasets/fingerprint.h"
#include "datasets/prepared_cache.h"
#include "datasets/source.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/core/parallel_tasks.h"
#include "vision/core/progress.h"
#include "vision/core/sha256.h"
#include "vision/image/orientation.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// Raised whenever the same files and configuration would give another cache.
constexpr const char* kRecipeVersion = "vireo.prepare 2";

// The cache's folder, held against other processes for as long as this lives; a killed process lets
// go by itself.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder) {
    std::error_code failed;
    fs::create_directories(folder / "cases", failed);
    if (failed) throw DataError(folder, "cannot be created: " + failed.message());
    file_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file_ < 0) throw DataError(folder, "cannot be opened");
    if (::flock(file_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(file_);
    throw DataError(folder, "another `vireo prepare` is at work on this cache");
  }
  ~FolderLock() { ::close(file_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_ = -1;
};

// Name, size and time of a file: what tells that it has changed.
std::string file_stamp(const fs::path& folder, const fs::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) return file.string() + " absent\n";
  return file.lexically_relative(folder).string() + " " + std::to_string(status.st_size) + " " +
         std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec) +
         "\n";
}

std::string case_stamp(const fs::path& folder, const SourceCase& one) {
  std::string text = one.name + "\n" + one.rule.text() + "\n";
  for (const fs::path& file : one.images) text += file_stamp(folder, file);
  for (const fs::path& file : one.mask_files()) text += file_stamp(folder, file);
  return text;
}

std::string inputs_of(const DataConfig& config, const DatasetSource& source) {
  Sha256 hash;
  const auto add = [&](const std::string& text) { hash.update(text.data(), text.size()); };
  add(std::string(kRecipeVersion) + "\n" + config.recipe() + "\n");
  add(fs::absolute(source.folder).lexically_normal().string() + "\n");
  for (const fs::path& file : source.descriptions)
    add(file.filename().string() + " " + sha256_of_file(file) + "\n");
  for (const SourceCase& one : source.cases) add(case_stamp(source.folder, one));
  return hash.hex_digest();
}

// Whether the cache is whole and was made from these inputs.
bool is_complete(const fs::path& cache, const std::string& inputs) {
  if (cached_inputs(cache) != inputs) return false;
  try {
    PreparedCache::open(cache);
    return true;
  } catch (const DataError& error) {
    log_warning("the cache is not whole and is mended (" + std::string(error.what()) + ")");
    return false;
  }
}

std::vector<CaseScan> scan_cases(const DatasetSource& source, int64_t workers) {
  std::vector<CaseScan> scans(source.cases.size());
  const auto count = static_cast<int64_t>(scans.size());
  Progress progress("check  ", count);
  run_parallel(count, workers, [&](int64_t i) {
    const auto index = static_cast<size_t>(i);
    scans[index] = scan_case(source.cases[index], source.ignore_value);
    progress.advance();
  });
  return scans;
}

// What earlier runs left and this one will not use.
void remove_strangers(const fs::path& folder, const DatasetSource& source) {
  remove_temporary_files(folder);
  remove_temporary_files(folder / "cases");
  std::set<fs::path> ours;
  for (const SourceCase& one : source.cases) ours.insert(cache_case_file(folder, one.name));
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder / "cases"))
    if (!ours.contains(entry.path())) fs::remove(entry.path(), ignored);
}

}  // namespace

PrepareReport prepare_dataset(const DataConfig& config, const PrepareOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  DatasetSource source = read_source(config);
  for (const std::string& note : source.notes) log_info(note);
  const FolderLock lock(config.cache);
  const std::string inputs = inputs_of(config, source);
  PrepareReport report;
  report.cases = static_cast<int64_t>(source.cases.size());
  const auto finish = [&] {
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report;
  };
  if (!options.force && source.problems.empty() && is_complete(config.cache, inputs)) {
    report.already_done = true;
    report.kept = report.cases;
    report.folds = static_cast<int64_t>(folds_of(config, source).size());
    return finish();
  }

  const std::vector<CaseScan> scans = scan_cases(source, config.workers);
  check_dataset(config, scans, source);
  throw_problems(source);
  const Fingerprint fingerprint = take_fingerprint(source, scans);
  const Preparation preparation = plan_preparation(config, source, scans, fingerprint);

  // From here on the folder is no cache until its manifest is back.
  std::error_code failed;
  fs::remove(cache_manifest(config.cache), failed);
  if (failed) throw DataError(cache_manifest(config.cache), "cannot be removed");
  remove_strangers(config.cache, source);
  write_text_atomically(config.cache / "dataset_fingerprint.json",
                        fingerprint_json(fingerprint, source, scans).dump(1) + "\n");

  const std::string recipe = std::string(kRecipeVersion) + "\n" + preparation.to_json().dump();
  std::vector<CaseEntry> entries(source.cases.size());
  std::atomic<int64_t> kept{0};
  Progress progress("prepare", report.cases);
  run_parallel(report.cases, config.workers, [&](int64_t i) {
    const SourceCase& one = source.cases[static_cast<size_t>(i)];
    const std::string stamp = sha256(recipe + "\n" + case_stamp(source.folder, one));
    const auto found =
        options.force ? std::nullopt : find_cached_case(config.cache, one.name, stamp);
    if (found) {
      entries[static_cast<size_t>(i)] = *found;
      ++kept;
    } else {
      RawCase raw = read_case(one);
      const Reorientation turn = reorientation(raw.image.geometry, preparation.orientation_xyz);
      raw = {reoriented(raw.image, turn), reoriented(raw.labels, turn)};
      const PreparedCase prepared = prepare_case(one.name, raw.image, raw.labels, preparation);
      entries[static_cast<size_t>(i)] =
          write_cached_case(config.cache, prepared, preparation.class_count(), stamp);
    }
    progress.advance();
  });
  progress.finish();

  const std::vector<Fold> folds = folds_of(config, source);
  write_cache_manifest(config.cache, preparation, entries, folds, inputs);
  report.kept = kept;
  report.folds = static_cast<int64_t>(folds.size());
  return finish();
}

}  // namespace vireo
