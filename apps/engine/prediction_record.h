#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace vireo {

/// Seconds spent on each part of prediction.
struct PredictionTimes {
  double read = 0;     ///< hashing, decompressing
  double prepare = 0;  ///< turning, normalising, resampling
  double network = 0;
  double resample = 0;    ///< probabilities to the file's grid, and the most probable class
  double statistics = 0;  ///< of the labels, and the preview
  double write = 0;       ///< compressing

  double total() const { return read + prepare + network + resample + statistics + write; }
  PredictionTimes& operator+=(const PredictionTimes& other);
  nlohmann::json to_json() const;
  /// A line per part with its share, for the terminal.
  std::string table(int64_t cases) const;
};

struct FileHash {
  std::string file;  ///< the name alone
  std::string sha256;
};

/// What is known of one predicted case.
struct CaseRecord {
  std::string name;
  std::vector<FileHash> inputs;
  std::string output;  ///< label file, relative to the output folder
  std::string output_sha256;
  std::vector<std::string> also;  ///< what was written beside it, likewise
  std::array<int64_t, 3> size_xyz{};
  std::array<double, 3> spacing_mm_xyz{};
  nlohmann::json statistics;  ///< per label
  int64_t memory_estimate_bytes = 0;
  PredictionTimes times;
};

/// The output folder's manifest.json and statistics.json: rewritten whole and atomically as cases
/// are done, so that a stopped run can be continued. Files are recorded by name, without folders.
class PredictionRecord {
 public:
  /// `run` holds what identifies the run: tool, version, command, device, and "settings" and
  /// "models", on which the predictions depend. `input_folder` is left out of texts.
  PredictionRecord(std::filesystem::path folder,
                   std::filesystem::path input_folder,
                   nlohmann::json run);

  /// Takes over the cases of an earlier run into the same folder whose models and settings were the
  /// same. A missing or broken manifest is as good as none.
  void load_earlier();
  /// The earlier record of a case with these inputs whose label file is still what was written, and
  /// whose other files are there; nullptr otherwise.
  const CaseRecord* done(const std::string& name, const std::vector<FileHash>& inputs) const;

  void add(CaseRecord one);
  /// Lines for the manifest, in which they name files without `folder`.
  void add_problem(const std::string& line);
  void set_warnings(const std::vector<std::string>& lines);
  /// Names of label files that an earlier run left in the folder, whatever its settings.
  static std::vector<std::string> earlier_outputs(const std::filesystem::path& folder);
  /// Writes both files if `now`, or if some seconds went by since the last time. Cases of an
  /// earlier run that this one has not come to are kept while their label files are there.
  void save(bool now);

 private:
  std::string without_folders(std::string line) const;

  std::filesystem::path folder_, input_folder_;
  nlohmann::json run_;
  std::map<std::string, CaseRecord> cases_, earlier_;
  std::vector<std::string> problems_, warnings_;
  double last_saved_ = 0, started_ = 0;
};

}  // namespace vireo
