#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <CLI/CLI.hpp>

#include "apps/engine/case_validation.h"
#include "apps/engine/device.h"
#include "apps/engine/segmentation_task.h"
#include "apps/engine/trainer.h"
#include "apps/verbs.h"
#include "datasets/data_config.h"
#include "datasets/prepared_cache.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#ifdef VIREO_WITH_IO
#include "apps/engine/progress_plot.h"
#include "datasets/prepare_dataset.h"
#endif

namespace vireo {
namespace {

namespace fs = std::filesystem;

struct TrainOptions {
  std::string config, output;
  std::vector<std::string> overrides;
  int64_t fold = -1;
  bool deterministic = false, restart = false, resume = false, quiet = false;
};

// Everything that the configuration says, checked as a whole before any work begins.
struct Plan {
  ConfigTable table;
  DataConfig data;
  TrainingConfig training;
  ValidationConfig validation;
  SegmentationTask::Settings segmentation;
  fs::path folder;
};

Plan read_plan(const TrainOptions& options) {
  std::vector<std::string> overrides = options.overrides;
  if (options.fold >= 0) overrides.push_back("train.fold=" + std::to_string(options.fold));
  if (options.deterministic) overrides.push_back("train.deterministic=true");
  Plan plan{ConfigTable::from_file(options.config, overrides), {}, {}, {}, {}, {}};
  plan.table.choice("task", "segmentation", {"segmentation"});
  plan.data = DataConfig::from_table(plan.table.table("data"), run_folder(options.config, -1));
  plan.training = TrainingConfig::from_config(plan.table.table("train"));
  plan.validation = ValidationConfig::from_config(plan.table.table("validation"));
  plan.segmentation = SegmentationTask::Settings::from_config(plan.table);
  plan.segmentation.batches.seed = plan.training.seed;
  plan.segmentation.validation_slices_per_case = plan.validation.slices_per_case;
  // The real shape is known only from the data; any will do to find mistakes in the table.
  ConfigTable model = plan.table.table("model");
  create_model(model, {3, 2});
  plan.table.finish();
  plan.folder =
      options.output.empty() ? run_folder(options.config, options.fold) : fs::path(options.output);
  return plan;
}

PreparedCache open_cache(const DataConfig& data) {
#ifdef VIREO_WITH_IO
  // Where the raw data set has gone, a cache made from it still serves.
  if (fs::exists(data.folder) || !fs::exists(data.cache)) {
    const InterruptGuard guard;
    if (!prepare_dataset(data).already_done) log_info("prepared " + data.cache.string());
  }
#else
  if (!fs::exists(data.cache))
    throw DataError(
        data.cache,
        "there is no prepared cache, and this program was built without what reads raw "
        "images; run `vireo prepare` with a full build and copy its cache here, or give "
        "its place with --set data.cache=FOLDER");
#endif
  return PreparedCache::open(data.cache);
}

std::vector<CachedCase> load(const PreparedCache& cache, const std::vector<std::string>& names) {
  std::vector<CachedCase> cases;
  for (const std::string& name : names) cases.push_back(cache.load(name));
  return cases;
}

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * share);
  return text;
}

void train_model(const TrainOptions& options) {
  set_log_quiet(options.quiet);
  Plan plan = read_plan(options);
  const at::Device device = choose_device(plan.training.device);
  const PreparedCache cache = open_cache(plan.data);
  const int64_t fold = plan.training.fold;
  if (fold >= cache.fold_count())
    throw UsageError("fold " + std::to_string(fold) +
                     " does not exist: " + cache.folder().string() + " has " +
                     std::to_string(cache.fold_count()) + ", numbered from 0");
  const auto training = cache.training_cases(fold), held_out = cache.validation_cases(fold);

  SegmentationTask task(
      cache.preparation(), load(cache, training), load(cache, held_out), plan.segmentation);
  at::manual_seed(plan.training.seed);
  ConfigTable model_table = plan.table.table("model");
  const std::shared_ptr<Model> model = create_model(model_table, task.model_shape());

  TrainingRun run;
  run.folder = plan.folder;
  run.config_toml = plan.table.resolved_text();
  run.model_toml = model_table.resolved_text();
  run.restart = options.restart;
#ifdef VIREO_WITH_IO
  run.epoch_done = [&](const nlohmann::json& history) {
    draw_progress(history, plan.folder / "progress.png");
  };
#else
  log_info(
      "progress.png is not drawn: built without image files; the numbers are in metrics.jsonl");
#endif
  log_info("training on " + std::to_string(training.size()) + " cases, " +
           std::to_string(task.batches_per_epoch()) + " batches per epoch, on " + device.str() +
           "; " + std::to_string(held_out.size()) + " cases held out; files go to " +
           plan.folder.string());
  const TrainingResult result = train(task, model, plan.training, plan.validation, run);
  log_info("trained " + std::to_string(result.epochs) + " epochs in " +
           duration_text(result.seconds) + " (" + percent(result.waiting_share) +
           " of it waiting for batches); " + result.reason);

  std::cout << best_checkpoint(plan.folder).string() << "\n";
  if (plan.validation.whole_cases && !held_out.empty()) {
    const InterruptGuard guard;
    const Summary summary = validate_cases(
        best_checkpoint(plan.folder), cache, held_out, device, plan.folder / "validation");
    std::cout << to_table(summary);
  }
}

}  // namespace

void add_train(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("train", "Train a network as a configuration describes it");
  auto options = std::make_shared<TrainOptions>();
  const auto setting =
      [&](const std::string& flag, const std::string& key, const std::string& help) {
        verb->add_option_function<std::string>(
                flag,
                [options, key](const std::string& value) {
                  options->overrides.push_back("train." + key + "=" + value);
                },
                help + " (train." + key + ")")
            ->type_name("N")
            ->check(CLI::NonNegativeNumber);
      };
  verb->add_option("config", options->config, "Configuration (.toml)")
      ->required()
      ->type_name("CONFIG");
  verb->add_option("--set", options->overrides, "Override a key: --set train.learning_rate=1e-3")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  setting("--epochs", "epochs", "Length of training");
  setting("--patience", "patience", "Stop after this many epochs without a better score; 0: never");
  setting("--max-minutes",
          "max_minutes",
          "Time budget; the learning rate reaches its end with it; 0: none");
  setting("--seed", "seed", "Seed of all randomness");
  verb->add_flag("--deterministic", options->deterministic, "Same result bit for bit every time");
  verb->add_option("--fold", options->fold, "Fold of the data set's splits, from 0")
      ->check(CLI::Range(0, 1000));
  auto* restart = verb->add_flag("--restart", options->restart, "Forget an earlier run");
  verb->add_flag("--resume", options->resume, "Go on with an unfinished run (the default)")
      ->excludes(restart);
  verb->add_option("--output", options->output, "Folder of the run (default runs/<CONFIG's path>)")
      ->type_name("FOLDER");
  verb->add_flag("--quiet", options->quiet, "Print warnings and errors only");
  verb->footer(
      "Example:\n"
      "  vireo train configs/segmentation/phantom/rwkv_unet_t.toml --max-minutes 5\n\n"
      "Prepares the data set first where that has not been done. Leaves in the run's folder:\n"
      "  config.toml                     the complete configuration\n"
      "  metrics.jsonl, progress.png     a record per epoch, and its curves\n"
      "  checkpoint_best.safetensors     for `vireo predict --model`\n"
      "  checkpoint_latest.safetensors   to go on from: an interrupted run continues when the "
      "same\n"
      "                                  command is given again\n"
      "  validation/summary.json         scores of whole held-out cases");
  verb->callback([options] { train_model(*options); });
}

}  // namespace vireo
