#include "datasets/phantom.h"

#include <atomic>
#include <exception>
#include <iostream>
#include <mutex>

#include <ATen/Parallel.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/engine/slice_picture.h"
#include "apps/pictures.h"
#include "apps/verbs.h"
#include "datasets/phantom_anatomy.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/io/canvas.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPreviewCases = 8;
constexpr int64_t kPreviewPx = 288;

struct PhantomRequest {
  fs::path folder;
  int64_t cases = 24, test_cases = 6;
  PhantomOptions options;
  std::vector<int64_t> size_zyx;
  std::vector<double> spacing_zyx;
  bool overwrite = false;
};

std::string case_name(int64_t index) {
  std::string number = std::to_string(index + 1);
  if (number.size() < 3) number.insert(0, 3 - number.size(), '0');
  return "phantom_" + number;
}

nlohmann::ordered_json description(const PhantomRequest& request) {
  nlohmann::ordered_json json;
  json["name"] = "Phantom";
  json["description"] = "Made-up CT scans of upper abdomens, drawn by vireo phantom";
  json["channel_names"] = {{"0", "CT"}};
  nlohmann::ordered_json labels;
  const std::vector<std::string> names = phantom_label_names();
  for (size_t value = 0; value < names.size(); ++value) labels[names[value]] = value;
  json["labels"] = labels;
  json["numTraining"] = request.cases;
  json["numTest"] = request.test_cases;
  json["file_ending"] = ".nii.gz";
  json["phantom"] = request.options.to_json();
  return json;
}

// Whether the folder already holds exactly what is asked for.
bool is_done(const PhantomRequest& request) {
  const fs::path path = request.folder / "dataset.json";
  if (!fs::exists(path)) return false;
  const auto found = nlohmann::ordered_json::parse(read_text(path), nullptr, false);
  return found == description(request);
}

// The slice with most of the kidneys, plain and with the organs drawn in.
Canvas preview(const PhantomCase& made, const std::string& name) {
  const Geometry& grid = made.image.geometry;
  const at::Tensor labels = made.labels.values[0];
  const PictureSlice slice = heaviest_slice(labels.eq(kPhantomKidney), grid);
  Canvas plain = draw_slice(made.image.values, {}, grid, slice, kPreviewPx);
  plain.draw_text(6, 16, name, 8, {235, 235, 235});
  return tile(
      {plain, draw_slice(made.image.values, labels, grid, slice, kPreviewPx)}, 2, 2, {0, 0, 0});
}

void write_case(const PhantomRequest& request, int64_t index, const PhantomCase& made) {
  const std::string part = index < request.cases ? "Tr" : "Ts", name = case_name(index);
  write_image(request.folder / ("images" + part) / (name + "_0000.nii.gz"),
              made.image.values,
              made.image.geometry);
  write_labels(request.folder / ("labels" + part) / (name + ".nii.gz"),
               made.labels.values[0],
               made.labels.geometry);
}

void make_all(const PhantomRequest& request) {
  const int64_t total = request.cases + request.test_cases;
  std::vector<Canvas> previews(static_cast<size_t>(std::min(total, kPreviewCases)), Canvas(1, 1));
  InterruptGuard guard;
  Progress progress("phantom", total);
  std::atomic<int64_t> next{0};
  // One task per thread, each taking the next case; what LibTorch does inside stays on its thread.
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t index = next++; index < total; index = next++) {
      throw_if_interrupted("run the same command with --overwrite to make the data anew");
      const PhantomCase made = make_phantom(index, request.options);
      write_case(request, index, made);
      if (index < kPreviewCases)
        previews[static_cast<size_t>(index)] = preview(made, case_name(index));
      progress.advance();
    }
  });
  progress.finish();
  tile(previews, 2, 6, {0, 0, 0}).write_png(request.folder / "preview.png");
  // Last, so that a folder with a dataset.json is complete.
  write_text_atomically(request.folder / "dataset.json", json_document(description(request)));
}

void run(PhantomRequest request) {
  if (!request.size_zyx.empty())
    std::copy_n(request.size_zyx.begin(), 3, request.options.size_zyx.begin());
  if (!request.spacing_zyx.empty())
    request.options.spacing_mm_zyx = {
        request.spacing_zyx[0], request.spacing_zyx[1], request.spacing_zyx[2]};
  if (is_done(request)) {
    log_info(request.folder.string() + " already holds this data set; nothing to do");
  } else {
    make_room(request.folder,
              request.overwrite,
              {"dataset.json", "preview.png", "imagesTr", "labelsTr", "imagesTs", "labelsTs"});
    make_all(request);
  }
  std::cout << request.folder.string() << ": " << request.cases << " training cases, "
            << request.test_cases << " test cases\n";
}

}  // namespace

void make_room(const fs::path& folder, bool overwrite, const std::vector<std::string>& ours) {
  if (!fs::exists(folder)) return;
  if (!fs::is_directory(folder)) throw DataError(folder, "is a file; a folder was expected");
  if (fs::is_empty(folder)) return;
  if (!overwrite)
    throw DataError(folder,
                    "is not empty and holds something else; give another folder, or --overwrite to "
                    "replace the data set in it");
  for (const std::string& name : ours) fs::remove_all(folder / name);
}

void add_phantom(CLI::App& app) {
  auto request = std::make_shared<PhantomRequest>();
  auto pictures = std::make_shared<PicturePhantom>();
  CLI::App* verb = app.add_subcommand(
      "phantom",
      "Make CT-like abdomens with outlined organs, as an nnU-Net data set, or photographs of skin "
      "lesions in four classes");
  verb->footer(
      "Leaves FOLDER/dataset.json, imagesTr, labelsTr, imagesTs, labelsTs and preview.png.\n"
      "The same options give the same bytes.\n\n"
      "Example:\n  vireo phantom data/phantom --cases 24 --test-cases 6 --seed 1\n\n"
      "With --pictures leaves FOLDER/labels.csv (path, label, patient_id, split), images and\n"
      "preview.png. The classes differ in shape and texture, not in their colours.\n\n"
      "Example:\n  vireo phantom data/phantom_pictures --pictures 5000");
  verb->add_option("FOLDER", request->folder, "Where the data set goes")->required();
  auto* count =
      verb->add_option("--pictures", pictures->pictures, "Make so many 64x64 pictures instead")
          ->check(CLI::Range(int64_t{1}, int64_t{10000000}));
  verb->add_option("--cases", request->cases, "Training cases (imagesTr)")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->excludes(count)
      ->capture_default_str();
  verb->add_option("--test-cases", request->test_cases, "Held-out cases (imagesTs)")
      ->check(CLI::Range(int64_t{0}, int64_t{100000}))
      ->excludes(count)
      ->capture_default_str();
  verb->add_option("--seed", request->options.seed, "Another seed, other patients")
      ->capture_default_str();
  verb->add_option("--size", request->size_zyx, "Voxels as slices, rows, columns [28 96 96]")
      ->expected(3)
      ->excludes(count)
      ->check(CLI::Range(int64_t{1}, int64_t{1024}));
  verb->add_option("--spacing",
                   request->spacing_zyx,
                   "mm between slices, rows, columns [per case, so that the trunk fits]")
      ->expected(3)
      ->excludes(count)
      ->check(CLI::Range(0.01, 100.0));
  verb->add_option("--noise", request->options.noise_hu, "Standard deviation of the noise in HU")
      ->check(CLI::Range(0.0, 500.0))
      ->excludes(count)
      ->capture_default_str();
  verb->add_flag("--overwrite", request->overwrite, "Replace a data set that is in FOLDER");
  verb->callback([request, pictures] {
    if (pictures->pictures == 0) return run(*request);
    pictures->folder = request->folder;
    pictures->seed = request->options.seed;
    pictures->overwrite = request->overwrite;
    make_phantom_pictures(*pictures);
  });
}

}  // namespace vireo
