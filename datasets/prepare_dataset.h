#pragma once

#include <filesystem>

#include "datasets/data_config.h"

namespace vireo {

struct PrepareOptions {
  bool force = false;                      ///< make everything anew
  int64_t shard_bytes = int64_t{1} << 28;  ///< of the files that hold pictures with classes
};

struct PrepareReport {
  bool already_done = false;
  int64_t cases = 0;
  int64_t kept = 0;  ///< of them from an earlier, interrupted run
  int64_t folds = 0;
  double seconds = 0;
};

/// Reads and checks a whole data set, takes its fingerprint, and writes config.cache, with
/// dataset_fingerprint.json in it.
///
/// Returns at once when the cache already holds what this would make from these files (told by
/// their names, sizes and times). A cache that is being made anew is none until it is complete;
/// case files of an interrupted run are kept. Only one process works on a cache at a time.
///
/// Throws DataError listing every problem of the set, and Interrupted (interrupt.h).
PrepareReport prepare_dataset(const DataConfig& config, const PrepareOptions& options = {});

}  // namespace vireo
