#include <algorithm>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>

#include "apps/engine/classifier.h"
#include "apps/engine/device.h"
#include "apps/engine/prediction.h"
#include "apps/engine/prediction_memory.h"
#include "apps/engine/trained_model.h"
#include "apps/pictures.h"
#include "apps/verbs.h"
#include "kernels/process_memory.h"
#include "models/cost.h"
#include "models/inference.h"
#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {
namespace {

constexpr const char* kPredictFooter = R"(Examples
  vireo predict --model runs/segmentation/liver/rwkv_unet_t/checkpoint_best.safetensors scans/ labels/
  vireo predict --model checkpoint_best.safetensors study/ results/ --also dicom-seg,rtstruct

Input: a NIfTI, NRRD, MetaImage, DICOM, PNG, JPEG, TIFF or BMP file, or a folder of them. Files named
CASE_0000.nii.gz, CASE_0001.nii.gz, ... are the channels of one case, as in nnU-Net; others are
cases by themselves.

A folder of DICOM files, with those below it, is taken apart into series; each is a case, named after
its folder. Slices are ordered by position. Duplicates, gaps and gantry tilt are refused, with the
slices listed, unless --allow names them: duplicates (of slices at one place the first is kept),
resample-gaps (linear in between, on even steps), tilt (slices are shifted to a straight stack).

--also writes further files per case: CASE.seg.dcm (DICOM SEG) and CASE.rtstruct.dcm (RTSTRUCT), for
DICOM input; CASE.seg.nrrd (3D Slicer); CASE_pictures/ with masks and overlays, slice by slice.

Output, per case: CASE.nii.gz (.nrrd, .mha or .png for such inputs) on exactly the input's grid,
holding the data set's label values. Per run: statistics.json (millilitres and intensities per
label), manifest.json (hashes, settings, timings, peak memory, problems, warnings), preview.png.
Of the files' headers none of these says anything, and folders are left out; cases and the files made
of them are called what the input files, or the folders of DICOM series, are called.

--continue takes over a case when manifest.json says that the same weights, settings and input
made its label file, that file is unchanged, and what was written beside it is there; without it
every case is predicted anew.

Memory: before a case starts a line tells what it will take at most and what is allowed. The program
and the weights (about 0.5 GiB), the image (2 bytes per voxel where it holds whole numbers as CT does,
else 4), and the most of: decoding it; 1 byte per voxel and --batch-memory for the network; 3 bytes per
voxel for the label files (with --also dicom-seg a quarter more per class; with --probabilities 6, and
on the disk 4 per class). Where --max-memory is near, fewer slices go through the network at once;
a case that cannot be done in it is refused.

A classifier's input is a file or a folder with those below it; it leaves predictions.csv and
predictions.json with the probabilities of all classes.

Exit code 0: all cases done; 1: some or all failed, listed at the end; 2: usage.)";

struct PredictArguments {
  PredictionOptions prediction;
  bool tta = false, no_tta = false, no_preview = false, quiet = false;
  double batch_memory_gib = 0.5, max_memory_gib = 0;
  int threads = 0;
  std::vector<std::string> allowed, also;
  std::string device = "auto";
  bool evidence = false;
  double temperature = 1;
  std::string precision = "fp32";
};

// This process's own command line.
std::vector<std::string> command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(in, word, '\0');) words.push_back(word);
  return words;
}

// For the manifest: without folders, whose names may be patients'.
std::vector<std::string> neutral_command_line(const PredictionOptions& options) {
  std::vector<std::string> words = command_line();
  for (std::string& word : words) {
    const size_t value = word.starts_with("--") ? word.find('=') + 1 : 0;
    if (word == options.input)
      word = "INPUT";
    else if (word == options.output)
      word = "OUTPUT_FOLDER";
    else if (word.find('/') != std::string::npos)
      word.replace(value, std::string::npos, std::filesystem::path(word.substr(value)).filename());
  }
  return words;
}

// By a pass over a small image; what LibTorch's libraries take beside it is allowed for.
int64_t measured_activation_bytes_per_pixel(Model& model) {
  constexpr int64_t kSide = 64;
  const ModelCost cost = measure_cost(model, {1, model.input_channels(), kSide, kSide}, false);
  return cost.inference_peak_bytes * 5 / 4 / (kSide * kSide);
}

void run(const PredictArguments& arguments) {
  PredictionOptions options = arguments.prediction;
  set_log_quiet(arguments.quiet);
  if (arguments.threads > 0) at::set_num_threads(arguments.threads);
  options.preview = !arguments.no_preview;
  options.dicom = DicomAllowances::from_names(arguments.allowed);
  options.also.choose(arguments.also);
  if (arguments.tta) options.inference.mirroring = true;
  if (arguments.no_tta) options.inference.mirroring = false;
  options.inference.device = choose_device(arguments.device);
  options.inference.precision = precision_named(arguments.precision);
  options.inference.memory_bytes =
      static_cast<int64_t>(arguments.batch_memory_gib * static_cast<double>(1 << 30));
  options.max_memory_bytes =
      static_cast<int64_t>(arguments.max_memory_gib * static_cast<double>(1 << 30));
  options.version = VIREO_VERSION;

  const auto& files = options.model_files;
  if (std::any_of(files.begin(), files.end(), is_classifier)) {
    if (files.size() > 1)
      throw UsageError("several classifiers are not averaged; give --model once");
    PicturePrediction request{files[0], options.input, options.output, arguments.device};
    if (options.inference.batch > 0) request.batch_size = options.inference.batch;
    request.temperature = arguments.temperature;
    request.evidence = arguments.evidence;
    request.precision = options.inference.precision;
    return predict_pictures(request);
  }
  std::vector<TrainedModel> models;
  for (const auto& file : options.model_files) {
    models.push_back(load_trained_model(file));
    TrainedModel& trained = models.back();
    trained.model->to(options.inference.device);
    trained.model = prepare_for_inference(trained.model, options.inference.precision);
    trained.activation_bytes_per_pixel = measured_activation_bytes_per_pixel(*trained.model);
  }
  const PredictionSummary summary = predict(models, options);

  if (summary.predicted > 0)
    log_info("time\n" + summary.times.table(summary.predicted) + "\n  peak memory " +
             memory_text(peak_memory_bytes()));
  std::cout << summary.predicted << " case(s) segmented into " << options.output.string();
  if (summary.kept > 0) std::cout << ", " << summary.kept << " kept from before";
  std::cout << std::endl;
  if (summary.problems.empty()) return;
  std::string message = std::to_string(summary.problems.size()) + " case(s) failed:";
  for (const std::string& problem : summary.problems) message += "\n  " + problem;
  throw Error(message);
}

}  // namespace

void add_predict(CLI::App& app) {
  auto arguments = std::make_shared<PredictArguments>();
  CLI::App* verb = app.add_subcommand("predict", "Segment or classify images with trained models");
  PredictionOptions& prediction = arguments->prediction;
  InferenceOptions& inference = prediction.inference;

  verb->add_option("-m,--model",
                   prediction.model_files,
                   "A checkpoint; several (give --model again) are averaged")
      ->required()
      ->allow_extra_args(false);
  verb->add_option("INPUT", prediction.input, "An image file, or a folder of them")->required();
  verb->add_option("OUTPUT_FOLDER", prediction.output, "Where the results go")->required();
  auto* tta = verb->add_flag(
      "--tta", arguments->tta, "Average over mirrored copies (default: where training mirrored)");
  verb->add_flag("--no-tta", arguments->no_tta, "Do not mirror: up to 4 times faster")
      ->excludes(tta);
  verb->add_option("--overlap", inference.overlap, "Overlap of neighbouring windows")
      ->check(CLI::Range(0.0, 0.95))
      ->capture_default_str();
  verb->add_option("--batch",
                   inference.batch,
                   "Slices per batch (default: as many as --batch-memory allows)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--batch-memory", arguments->batch_memory_gib, "Working memory of a batch, GiB")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--max-memory",
                   arguments->max_memory_gib,
                   "Keep the whole program below this, GiB (default: 90 % of what is free)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--threads", arguments->threads, "Processor threads (default: all cores)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--device", arguments->device, "Where the network runs")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  verb->add_option("--precision",
                   arguments->precision,
                   "Of the network on the CPU: fp32; bf16 (16 bits); int8 (weights of 8 bits)")
      ->check(CLI::IsMember({"fp32", "bf16", "int8"}))
      ->capture_default_str();
  verb->add_flag("--probabilities",
                 prediction.probabilities,
                 "Also CASE_probabilities.nii.gz: float32, one channel per class");
  verb->add_flag("--labels-json",
                 prediction.labels_json,
                 "Also CASE.labels.json: the labels' names, values and colours");
  verb->add_flag("--plain-names",
                 prediction.plain_names,
                 "Every file is a case, whatever number ends its name");
  verb->add_option(
          "--allow", arguments->allowed, "DICOM: what to mend instead of refusing (see below)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"duplicates", "resample-gaps", "tilt"}));
  verb->add_option("--also",
                   arguments->also,
                   "Further files per case: dicom-seg, rtstruct, seg-nrrd, pictures")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"dicom-seg", "rtstruct", "seg-nrrd", "pictures"}));
  verb->add_option("--segments",
                   prediction.also.metadata_file,
                   "What the labels are, for these: a JSON file of dcmqi's schema")
      ->check(CLI::ExistingFile);
  verb->add_flag("--deflate", prediction.also.deflate, "Compress the DICOM SEG");
  verb->add_flag("--continue", prediction.keep_done, "Keep the cases that are already done");
  verb->add_flag("--no-preview", arguments->no_preview, "Write no preview.png");
  verb->add_option("--temperature",
                   arguments->temperature,
                   "Classification: divides the network's answers (from `vireo evaluate`)")
      ->check(CLI::Range(0.01, 100.0))
      ->capture_default_str();
  verb->add_flag(
      "--evidence",
      arguments->evidence,
      "Classification: also evidence/NAME.png, what spoke for the class, and preview.png");
  verb->add_flag("-q,--quiet", arguments->quiet, "Print warnings and errors only");
  verb->footer(kPredictFooter);
  verb->callback([arguments] {
    arguments->prediction.command_line = neutral_command_line(arguments->prediction);
    run(*arguments);
  });
}

}  // namespace vireo
