#include <filesystem>
#include <iomanip>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <CLI/CLI.hpp>

#include "apps/engine/case_validation.h"
#include "apps/engine/checkpoint.h"
#include "apps/engine/classification_task.h"
#include "apps/engine/device.h"
#include "apps/engine/segmentation_task.h"
#include "apps/engine/trainer.h"
#include "apps/verbs.h"
#include "datasets/data_config.h"
#include "datasets/picture_data_config.h"
#include "datasets/prepared_cache.h"
#include "models/weights/pretrained.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/core/safetensors.h"
#ifdef VIREO_WITH_IO
#include "apps/engine/progress_plot.h"
#include "datasets/picture_reader.h"
#include "datasets/prepare_dataset.h"
#include "datasets/prepare_pictures.h"
#endif

namespace vireo {
namespace {

namespace fs = std::filesystem;

struct TrainOptions {
  std::string config, output, pretrained;
  std::vector<std::string> overrides;
  int64_t fold = -1;
  bool deterministic = false, restart = false, resume = false, quiet = false;
};

// Everything that the configuration says, checked as a whole before any work begins.
struct Plan {
  ConfigTable table;
  bool classifies = false;
  DataConfig data;
  PictureDataConfig pictures;
  TrainingConfig training;
  ValidationConfig validation;
  SegmentationTask::Settings segmentation;
  ClassificationTask::Settings classification;
  fs::path folder;
};

PretrainedReport start_from(const fs::path& path, Model& model) {
  std::map<std::string, at::Tensor> state;
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto format = file.metadata().find("format");
  if (format != file.metadata().end() && format->second == "vireo-checkpoint") {
    Checkpoint checkpoint = read_checkpoint(path);
    state =
        checkpoint.average.empty() ? std::move(checkpoint.model) : std::move(checkpoint.average);
  } else {
    state = file.tensors();
  }
  return load_pretrained(model, std::move(state), path.string());
}

void check_task(ConfigTable& model, bool classifies, bool wanted) {
  if (classifies == wanted) return;
  const auto kind = [](bool classifier) -> std::string {
    return classifier ? "a classifier (one answer per picture)"
                      : "a segmentation network (an answer for every pixel)";
  };
  const auto task = [](bool classification) -> std::string {
    return classification ? "task = \"classification\"" : "task = \"segmentation\"";
  };
  model.fail("name",
             "\"" + model.text("name") + "\" is " + kind(classifies) + ", and " + task(wanted) +
                 " needs " + kind(wanted) + "; choose another model (`vireo info` lists them) or " +
                 "set " + task(classifies));
}

Plan read_plan(const TrainOptions& options) {
  std::vector<std::string> overrides = options.overrides;
  if (options.fold >= 0) overrides.push_back("train.fold=" + std::to_string(options.fold));
  if (options.deterministic) overrides.push_back("train.deterministic=true");
  if (!options.pretrained.empty()) {
    std::ostringstream text;
    text << "train.pretrained=" << std::quoted(options.pretrained);
    overrides.push_back(text.str());
  }
  Plan plan{ConfigTable::from_file(options.config, overrides), false, {}, {}, {}, {}, {}, {}, {}};
  const fs::path run = run_folder(options.config, -1);
  plan.classifies = plan.table.choice("task", "segmentation", {"segmentation", "classification"}) ==
                    "classification";
  plan.training = TrainingConfig::from_config(plan.table.table("train"));
  if (plan.classifies) {
    plan.pictures = PictureDataConfig::from_table(plan.table.table("data"), run);
    plan.validation = ValidationConfig::from_config(plan.table.table("validation"));
    plan.classification = ClassificationTask::Settings::from_config(plan.table);
    plan.classification.batches.seed = plan.training.seed;
  } else {
    plan.data = DataConfig::from_table(plan.table.table("data"), run);
    plan.validation = ValidationConfig::from_config(plan.table.table("validation"));
    plan.segmentation = SegmentationTask::Settings::from_config(plan.table);
    plan.segmentation.batches.seed = plan.training.seed;
    plan.segmentation.validation_slices_per_case = plan.validation.slices_per_case;
  }
  // The real shape is known only from the data; any will do to find mistakes in the table, and
  // weights to start from that are not of this network.
  ConfigTable model = plan.table.table("model");
  const std::shared_ptr<Model> trial = create_model(model, {3, 2});
  check_task(model, trial->classifies(), plan.classifies);
  plan.table.finish();
  if (!plan.training.pretrained.empty()) start_from(plan.training.pretrained, *trial);
  plan.folder =
      options.output.empty() ? run_folder(options.config, options.fold) : fs::path(options.output);
  return plan;
}

#ifdef VIREO_WITH_IO
// Where the raw data set has gone, a cache made from it still serves.
template <typename Config, typename Prepare>
void prepare_if_needed(const Config& data, const Prepare& prepare) {
  if (!fs::exists(data.folder) && fs::exists(data.cache)) return;
  const InterruptGuard guard;
  if (!prepare(data, PrepareOptions{}).already_done) log_info("prepared " + data.cache.string());
}
#else
void need_cache(const fs::path& cache) {
  if (fs::exists(cache)) return;
  throw DataError(cache,
                  "there is no prepared cache, and this program was built without what reads raw "
                  "images; run `vireo prepare` with a full build and copy its cache here, or give "
                  "its place with --set data.cache=FOLDER");
}
#endif

PreparedCache open_cache(const DataConfig& data) {
#ifdef VIREO_WITH_IO
  prepare_if_needed(data, prepare_dataset);
#else
  need_cache(data.cache);
#endif
  return PreparedCache::open(data.cache);
}

PictureSet open_pictures(const PictureDataConfig& data) {
#ifdef VIREO_WITH_IO
  prepare_if_needed(data, prepare_pictures);
  return open_picture_cache(data.cache, read_classified_picture);
#else
  need_cache(data.cache);
  return open_picture_cache(data.cache);
#endif
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

void check_fold(int64_t fold, int64_t count, const fs::path& cache) {
  if (fold >= count)
    throw UsageError("fold " + std::to_string(fold) + " does not exist: " + cache.string() +
                     " has " + std::to_string(count) + ", numbered from 0");
}

// Trains the task, whatever it is; `what` says on what.
void run_training(const TrainOptions& options, Plan& plan, Task& task, const std::string& what) {
  const at::Device device = choose_device(plan.training.device);
  at::manual_seed(plan.training.seed);
  ConfigTable model_table = plan.table.table("model");
  const std::shared_ptr<Model> model = create_model(model_table, task.model_shape());
  if (const fs::path& file = plan.training.pretrained; !file.empty())
    log_info("starting from " + file.string() + ": " + start_from(file, *model).text());

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
  log_info("training on " + what + ", " + std::to_string(task.batches_per_epoch()) +
           " batches per epoch, on " + device.str() + "; files go to " + plan.folder.string());
  const TrainingResult result = train(task, model, plan.training, plan.validation, run);
  log_info("trained " + std::to_string(result.epochs) + " epochs in " +
           duration_text(result.seconds) + " (" + percent(result.waiting_share) +
           " of it waiting for batches); " + result.reason);
  std::cout << best_checkpoint(plan.folder).string() << "\n";
}

void train_segmentation(const TrainOptions& options, Plan& plan) {
  const PreparedCache cache = open_cache(plan.data);
  const int64_t fold = plan.training.fold;
  check_fold(fold, cache.fold_count(), cache.folder());
  const auto training = cache.training_cases(fold), held_out = cache.validation_cases(fold);
  SegmentationTask task(
      cache.preparation(), load(cache, training), load(cache, held_out), plan.segmentation);
  run_training(options,
               plan,
               task,
               std::to_string(training.size()) + " cases (" + std::to_string(held_out.size()) +
                   " held out)");
  if (plan.validation.whole_cases && !held_out.empty()) {
    const InterruptGuard guard;
    const Summary summary = validate_cases(best_checkpoint(plan.folder),
                                           cache,
                                           held_out,
                                           choose_device(plan.training.device),
                                           plan.folder / "validation");
    std::cout << to_table(summary);
  }
}

void train_classification(const TrainOptions& options, Plan& plan) {
  const PictureSet set = open_pictures(plan.pictures);
  const int64_t fold = plan.training.fold;
  check_fold(fold, set.fold_count(), plan.pictures.cache);
  const auto training = set.training_items(fold), held_out = set.validation_items(fold);
  ClassificationTask task(set, training, held_out, plan.classification);
  run_training(options,
               plan,
               task,
               std::to_string(training.size()) + " pictures of " +
                   std::to_string(set.class_count()) + " classes (" +
                   std::to_string(held_out.size()) + " held out)");
}

void train_model(const TrainOptions& options) {
  set_log_quiet(options.quiet);
  Plan plan = read_plan(options);
  if (plan.classifies)
    train_classification(options, plan);
  else
    train_segmentation(options, plan);
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
  verb->add_option(
          "--pretrained",
          options->pretrained,
          "Weights (.safetensors) to start from: this network's, or for rwkv_unet those of "
          "a classifier rwkv_unet_encoder (train.pretrained)")
      ->type_name("FILE");
  auto* restart = verb->add_flag("--restart", options->restart, "Forget an earlier run");
  verb->add_flag("--resume", options->resume, "Go on with an unfinished run (the default)")
      ->excludes(restart);
  verb->add_option("--output", options->output, "Folder of the run (default runs/<CONFIG's path>)")
      ->type_name("FOLDER");
  verb->add_flag("--quiet", options->quiet, "Print warnings and errors only");
  verb->footer(
      "Example:\n"
      "  vireo train configs/segmentation/phantom/rwkv_unet_t.toml --max-minutes 5\n"
      "  vireo train configs/segmentation/phantom/rwkv_unet_t.toml --pretrained encoder.safetensors"
      "\n\n"
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
