#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/engine/input_cases.h"
#include "apps/engine/prediction_record.h"
#include "apps/engine/segmentation_outputs.h"
#include "apps/engine/sliding_window.h"
#include "apps/engine/trained_model.h"

namespace vireo {

struct PredictionOptions {
  std::filesystem::path input;   ///< an image file or a folder of them (see input_cases.h)
  std::filesystem::path output;  ///< a folder, made if need be
  InferenceOptions inference;
  /// Cases are predicted in slabs that keep this process below; what cannot is refused. 0: what is
  /// in use, and 90 % of what is free when the case starts.
  int64_t max_memory_bytes = 0;
  bool plain_names = false;    ///< no channel numbers in file names
  DicomAllowances dicom;       ///< what is mended where slices are no regular grid
  bool probabilities = false;  ///< also CASE_probabilities.nii.gz, float32, one channel per class
  bool labels_json = false;    ///< also CASE.labels.json: names, values and colours
  SegmentationOutputs also;    ///< further files per case
  bool preview = true;
  bool keep_done = false;  ///< take over cases that an earlier, equal run finished
  std::vector<std::filesystem::path> model_files;  ///< for the manifest
  std::vector<std::string> command_line;           ///< for the manifest
  std::string version;
};

struct PredictionSummary {
  int64_t predicted = 0, kept = 0;
  PredictionTimes times;
  std::vector<std::string> problems;  ///< a line per case that failed
};

/// Segments every case of `options.input`. Writes per case a label map on exactly the input's grid,
/// in the input's format (NIfTI as .nii.gz, pictures as .png), holding the label values of the
/// models' preparation; and manifest.json, statistics.json and preview.png. A case that fails is
/// listed among the problems and the others go on. Throws Error for what concerns all cases (models
/// that do not go together, an unreadable input folder, outputs that would overwrite inputs) and
/// Interrupted, the record saved, when the user asked to stop.
PredictionSummary predict(const std::vector<TrainedModel>& models,
                          const PredictionOptions& options);

}  // namespace vireo
