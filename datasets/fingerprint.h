#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "datasets/case_scan.h"
#include "datasets/data_config.h"
#include "datasets/source.h"

namespace vireo {

/// What a data set as a whole is like. Intensities are those of the cases that train in at least
/// one fold: a validation list takes no part.
struct Fingerprint {
  struct Channel {
    std::string name;
    double lower = 0, median = 0, upper = 0;    ///< percentiles 0.5, 50, 99.5 of the foreground
    double mean = 0, sd = 1, min = 0, max = 0;  ///< of the foreground
    double overall_mean = 0, overall_sd = 1;    ///< of all voxels, pictures scaled to 0..1
  };
  std::vector<Channel> channels;
  std::vector<int64_t> class_voxels, class_cases;  ///< voxels of each class; cases that hold it
  bool pictures = false;                           ///< 8- or 16-bit pictures throughout
};

/// Checks of the set as a whole, by which `source` is completed: channel names and label values
/// that the folder does not give. Everything wrong is added to source.problems, the cases' own
/// problems included.
void check_dataset(const DataConfig& config,
                   const std::vector<CaseScan>& scans,
                   DatasetSource& source);

/// One DataError that lists every problem, if there is one.
void throw_problems(const DatasetSource& source);

Fingerprint take_fingerprint(const DatasetSource& source, const std::vector<CaseScan>& scans);

/// dataset_fingerprint.json; nnU-Net's keys ("spacings", "foreground_intensity_properties_per_
/// channel", ...) where it has them.
nlohmann::json fingerprint_json(const Fingerprint& fingerprint,
                                const DatasetSource& source,
                                const std::vector<CaseScan>& scans);

/// How the set is to be prepared.
Preparation plan_preparation(const DataConfig& config,
                             const DatasetSource& source,
                             const std::vector<CaseScan>& scans,
                             const Fingerprint& fingerprint);

}  // namespace vireo
