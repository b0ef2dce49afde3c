#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "apps/engine/training_config.h"
#include "apps/verbs.h"
#include "datasets/prepare_dataset.h"
#include "datasets/prepare_pictures.h"
#include "vision/core/config_table.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"

namespace vireo {
namespace {

struct PreparationRequest {
  std::string config, format;
  std::vector<std::string> overrides;
  bool force = false, quiet = false;
  int64_t workers = -1;
};

PrepareReport run_preparation(const PreparationRequest& options, std::filesystem::path& cache) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.format.empty()) overrides.push_back("data.format=" + options.format);
  ConfigTable table = ConfigTable::from_file(options.config, overrides);
  const std::filesystem::path run = run_folder(options.config, -1);
  const InterruptGuard guard;
  const auto prepare_with = [&](auto config, const auto& prepare) {
    if (options.workers >= 0) config.workers = options.workers;
    cache = config.cache;
    return prepare(config, PrepareOptions{options.force});
  };
  if (table.choice("task", "segmentation", {"segmentation", "classification"}) == "classification")
    return prepare_with(PictureDataConfig::from_table(table.table("data"), run), prepare_pictures);
  return prepare_with(DataConfig::from_table(table.table("data"), run), prepare_dataset);
}

void prepare(const PreparationRequest& options) {
  set_log_quiet(options.quiet);
  std::filesystem::path cache;
  const PrepareReport report = run_preparation(options, cache);
  if (report.already_done) {
    log_info("already prepared; nothing in the data set or its configuration has changed");
  } else {
    const std::string kept =
        report.kept > 0 ? " (" + std::to_string(report.kept) + " of them were there)" : "";
    log_info("prepared " + std::to_string(report.cases) + " cases" + kept + " in " +
             duration_text(report.seconds));
  }
  std::cout << cache.string() << ": " << report.cases << " cases, " << report.folds
            << (report.folds == 1 ? " fold" : " folds") << "\n";
}

}  // namespace

void add_prepare(CLI::App& app) {
  CLI::App* verb = app.add_subcommand(
      "prepare", "Check a data set and turn it into a cache that training reads quickly");
  auto options = std::make_shared<PreparationRequest>();
  verb->add_option("config", options->config, "Configuration (.toml); its [data] table is read")
      ->required()
      ->type_name("CONFIG");
  verb->add_option("--set", options->overrides, "Override a key: --set data.folder=/data/liver")
      ->type_name("KEY=VALUE");
  verb->add_option("--format",
                   options->format,
                   "What kind of data set it is, instead of data.format; auto says which and why")
      ->type_name("NAME");
  verb->add_flag("--force", options->force, "Prepare everything anew");
  verb->add_option("--workers", options->workers, "Cases prepared at a time (0: one per core)")
      ->check(CLI::Range(0, 1024));
  verb->add_flag("--quiet", options->quiet, "Print warnings and errors only");
  verb->footer(
      "Example:\n"
      "  vireo prepare configs/segmentation/msd_hippocampus/rwkv_unet_t.toml\n\n"
      "Data sets for segmentation, by --format:\n"
      "  nnunet  dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz\n"
      "  msd     Medical Segmentation Decathlon: imagesTr/ (4-D), labelsTr/, dataset.json\n"
      "  arrays  Synapse and ACDC as .npz and HDF5 slices and volumes\n"
      "  acdc    ACDC as given out: patient001/Info.cfg\n"
      "  isic    ISIC 2016, 2017, 2018: ..._Training_Data/ or _Input/ with ..._GroundTruth/\n"
      "  kvasir  Kvasir-SEG: images/ and masks/ of JPEG\n"
      "  cvc     CVC-ClinicDB: Original/ and Ground Truth/\n"
      "  busi    benign/, malignant/, normal/; several masks of a picture are united\n"
      "  glas    train_1.bmp with train_1_anno.bmp; objects are numbered\n"
      "  pairs   images/ with masks/, or X.png beside X_mask.png\n"
      "auto (the default) recognises each and says which and why. For classification: folders of\n"
      "classes (folders), tables (csv), lists (lists) and MedMNIST archives (medmnist).\n\n"
      "Every problem of the data set is listed at once. An interrupted run continues where it\n"
      "stopped; a finished one is not repeated unless files or configuration have changed.");
  verb->callback([options] { prepare(*options); });
}

}  // namespace vireo
