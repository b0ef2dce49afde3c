#include <chrono>
#include <csignal>
#include <fstream>
#include <numeric>
#include <random>
#include <thread>

#include <ATen/ATen.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include "apps/engine/checkpoint.h"
#include "apps/engine/classification_task.h"
#include "apps/engine/segmentation_task.h"
#include "apps/engine/trained_model.h"
#include "apps/engine/trainer.h"
#include "apps/engine/training_config.h"
#include "datasets/cache_writer.h"
#include "datasets/data_config.h"
#include "datasets/picture_data_config.h"
#include "tests/support/made_cases.h"
#include "tests/support/made_pictures.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/log.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

// A prepared cache and a configuration that trains a very small RWKV-UNet on it.
fs::path make_project(const fs::path& folder) {
  Preparation preparation;
  preparation.dataset_name = "Made";
  preparation.channels = {{"MR", ChannelNormalization::Kind::kNone}};
  preparation.labels = {{"background", 0}, {"bright", 1}, {"dark", 2}};
  std::vector<PreparedCase> cases;
  Fold fold;
  for (const CachedCase& made : test::made_cases(6)) {
    PreparedCase prepared;
    prepared.name = made.name;
    prepared.image = made.image;
    prepared.labels = made.labels;
    prepared.geometry = made.geometry;
    prepared.native = made.native;
    cases.push_back(prepared);
    (cases.size() <= 4 ? fold.train : fold.val).push_back(made.name);
  }
  write_prepared_cache(folder / "cache", preparation, cases, {fold});
  const fs::path config = folder / "tiny.toml";
  write_text_atomically(config,
                        R"(
[data]
folder = "nowhere"
cache = ")" + (folder / "cache").string() +
                            R"("
[model]
name = "rwkv_unet"
depths = [1, 1, 2, 2]
dims = [8, 8, 12, 16]
expansions = [1, 1, 1, 2]
stem_width = 8
[batches]
window = [24, 20]
batch_size = 6
neighbours = 1
[augment]
mirror_x = 0.5
rotation_degrees = { probability = 0.5, range = [-20, 20] }
[train]
epochs = 8
learning_rate = 1e-2
ema_decay = 0.9
device = "cpu"
)");
  return config;
}

std::string command(const fs::path& config, const fs::path& run, const std::string& more = "") {
  return test::program().string() + " train " + config.string() + " --output " + run.string() +
         " --deterministic --quiet " + more;
}

json records(const fs::path& run) {
  json list = json::array();
  std::ifstream in(run / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) {
    list.push_back(json::parse(line));
    list.back().erase("seconds");
  }
  return list;
}

// Starts the command and kills it outright after `seconds`; true when it had ended by itself.
bool run_and_kill(const std::string& text, double seconds) {
  const pid_t child = ::fork();
  if (child == 0) {
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(null, STDERR_FILENO);
    ::execl("/bin/sh", "sh", "-c", ("exec " + text).c_str(), nullptr);
    ::_exit(127);
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    if (::waitpid(child, nullptr, WNOHANG) == child) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return false;
}

TEST(Train, LeavesEverythingThatWasPromised) {
  const fs::path folder = test::scratch_folder(), run = folder / "run";
  const fs::path config = make_project(folder);
  // Enough steps for the running statistics to follow the weights.
  const auto result = test::run_command(command(config, run, "--set batches.batches_per_epoch=20"));
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, HasSubstr((run / "checkpoint_best.safetensors").string()));
  for (const char* name : {"config.toml",
                           "metrics.jsonl",
                           "checkpoint_best.safetensors",
                           "checkpoint_latest.safetensors",
                           "validation/summary.json"})
    EXPECT_TRUE(fs::exists(run / name)) << name;
  EXPECT_EQ(records(run).size(), 8u);
  const json summary = json::parse(read_text(run / "validation" / "summary.json"));
  EXPECT_GT(summary.at("foreground_mean").at("Dice").get<double>(), 0.6);
  EXPECT_EQ(summary.at("metric_per_case").size(), 2u);

  const TrainedModel trained = load_trained_model(run / "checkpoint_best.safetensors");
  EXPECT_EQ(trained.neighbours, 1);
  EXPECT_EQ(trained.window_yx, (std::array<int64_t, 2>{24, 20}));
  EXPECT_EQ(trained.mirrored_yx, (std::array<bool, 2>{false, true}));
  EXPECT_EQ(trained.preparation.labels.at(2).name, "dark");
  EXPECT_THAT(trained.config_toml, HasSubstr("rotation_degrees"));
}

TEST(Train, KilledAtTenRandomMomentsItEndsWithTheSameBits) {
  const fs::path folder = test::scratch_folder();
  const fs::path config = make_project(folder);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_EQ(test::run_command(command(config, folder / "whole")).exit_code, 0);
  const double whole =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  const fs::path run = folder / "killed";
  std::mt19937 random(7);
  std::uniform_real_distribution<double> moment(0.3 * whole, 0.8 * whole);
  int kills = 0;
  while (kills < 10) {
    if (run_and_kill(command(config, run), moment(random)))
      fs::remove_all(run);  // it was done already: begin again
    else
      ++kills;
    // Whatever a kill leaves, no half-written file stands under a checkpoint's name.
    for (const char* name : {"checkpoint_latest.safetensors", "checkpoint_best.safetensors"})
      if (fs::exists(run / name)) {
        EXPECT_NO_THROW(read_checkpoint(run / name));
      }
  }
  const auto last = test::run_command(command(config, run));
  ASSERT_EQ(last.exit_code, 0) << last.errors;
  EXPECT_EQ(records(run), records(folder / "whole"));
  for (const char* name : {"checkpoint_best.safetensors", "checkpoint_latest.safetensors"}) {
    const Checkpoint a = read_checkpoint(run / name), b = read_checkpoint(folder / "whole" / name);
    for (const auto& [key, tensor] : b.model) EXPECT_TRUE(tensor.equal(a.model.at(key))) << key;
    for (const auto& [key, tensor] : b.optimizer)
      EXPECT_TRUE(tensor.equal(a.optimizer.at(key))) << key;
  }
  for (const auto& entry : fs::directory_iterator(run))
    EXPECT_NE(entry.path().filename().string().rfind(".vireo-tmp-", 0), 0u) << entry.path();
}

TEST(Train, SigtermSavesAndSaysHowToGoOn) {
  const fs::path folder = test::scratch_folder();
  const fs::path config = make_project(folder);
  const auto result =
      test::run_command("timeout -s TERM 3 " + command(config, folder / "run", "--epochs 100000"));
  EXPECT_EQ(result.exit_code, 124) << "timeout's own code; the process ended by itself";
  EXPECT_THAT(result.errors, HasSubstr("Give the same command again to go on"));
  EXPECT_TRUE(fs::exists(folder / "run" / "checkpoint_latest.safetensors"));
}

// Trains the encoder of make_project's network on generated pictures; returns its checkpoint.
fs::path train_encoder(const fs::path& folder) {
  at::set_num_threads(1);
  const PictureSet set = test::made_pictures(60);
  std::vector<int64_t> training(45), held_out(15);
  std::iota(training.begin(), training.end(), 0);
  std::iota(held_out.begin(), held_out.end(), 45);
  ConfigTable settings = ConfigTable::from_text(
      "[picture]\nsize = [16, 16]\n[batches]\nbatch_size = 15\n", "settings");
  ClassificationTask task(
      set, training, held_out, ClassificationTask::Settings::from_config(settings));
  ConfigTable table = ConfigTable::from_text(
      "name = \"rwkv_unet_encoder\"\ndepths = [1, 1, 2, 2]\ndims = [8, 8, 12, 16]\n"
      "expansions = [1, 1, 1, 2]\nstem_width = 8\n",
      "encoder");
  const auto model = create_model(table, task.model_shape());
  TrainingConfig config;
  config.epochs = 2;
  config.device = "cpu";
  config.threads = 1;
  config.ema_decay = 0.9;
  TrainingRun run;
  run.folder = folder;
  run.model_toml = table.resolved_text();
  train(task, model, config, {}, run);
  return best_checkpoint(folder);
}

TEST(Train, StartsFromAnEncoderThatClassified) {
  set_log_quiet(true);
  const fs::path folder = test::scratch_folder(), run = folder / "run";
  const fs::path encoder = train_encoder(folder / "encoder"), config = make_project(folder);
  const auto result = test::run_command(
      test::program().string() + " train " + config.string() + " --output " + run.string() +
      " --epochs 1 --seed 5 --set train.learning_rate=0 --set train.weight_decay=0" +
      " --set train.ema_decay=0 --set validation.whole_cases=false --pretrained '" +
      encoder.string() + "'");
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.errors, HasSubstr("starting from " + encoder.string() + ": "));
  EXPECT_THAT(result.errors, HasSubstr("left at their start (ccm.*, decoder1.*"));
  EXPECT_THAT(result.errors, HasSubstr("4 of the file's head left out"));

  // Steps of nothing: the weights are those of the beginning.
  const Checkpoint before = read_checkpoint(encoder);
  const auto& trained = before.average.empty() ? before.model : before.average;
  const Checkpoint after = read_checkpoint(best_checkpoint(run));
  ConfigTable table = ConfigTable::from_text(after.metadata.at("model"), "model");
  at::manual_seed(5);
  const auto fresh = create_model(table, {3, 3});
  for (const auto& item : fresh->named_parameters()) {
    const std::string& name = item.key();
    const at::Tensor& expected =
        name.starts_with("encoder.") ? trained.at(name.substr(8)) : item.value();
    EXPECT_TRUE(after.model.at(name).equal(expected)) << name;
  }
}

TEST(Train, RefusesMistakesBeforeAnyWork) {
  const fs::path folder = test::scratch_folder();
  const fs::path config = make_project(folder);
  const auto errors = [&](const std::string& more) {
    const auto result = test::run_command(command(config, folder / "run", more));
    EXPECT_NE(result.exit_code, 0);
    return result.errors;
  };
  EXPECT_THAT(errors("--set train.learning_rat=1"), HasSubstr("learning_rate"));
  EXPECT_THAT(errors("--set augment.flip=1"), HasSubstr("augment.flip"));
  EXPECT_THAT(errors("--set model.name=unet"), HasSubstr("unknown model unet"));
  EXPECT_THAT(
      errors("--set model.name=rwkv_unet_encoder --set data.cache=/nowhere/cache"),
      HasSubstr("model.name: \"rwkv_unet_encoder\" is a classifier (one answer per picture), "
                "and task = \"segmentation\" needs a segmentation network"));
  EXPECT_THAT(errors("--pretrained nowhere.safetensors --set data.cache=/nowhere/cache"),
              HasSubstr("nowhere.safetensors"));
  write_safetensors(folder / "other.safetensors", {{"a.weight", at::zeros({2})}}, {});
  EXPECT_THAT(errors("--pretrained " + (folder / "other.safetensors").string() +
                     " --set data.cache=/nowhere/cache"),
              HasSubstr("other.safetensors: none of its 1 tensors belongs to this model: found "
                        "a.weight"));
  EXPECT_THAT(errors("--fold 3"), HasSubstr("fold 3 does not exist"));
  EXPECT_THAT(errors("--max-minutes 1"), HasSubstr("max_minutes"));
  EXPECT_THAT(errors("--set data.cache=/nowhere/cache"), HasSubstr("nowhere"));
  EXPECT_FALSE(fs::exists(folder / "run" / "metrics.jsonl"));
}

TEST(Configurations, AreCompleteAndKnowEveryKeyTheyUse) {
  int count = 0;
  const fs::path root = test::repository_file("../configs");
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.path().extension() != ".toml") continue;
    ++count;
    ConfigTable table = ConfigTable::from_file(entry.path());
    TrainingConfig::from_config(table.table("train"));
    ValidationConfig::from_config(table.table("validation"));
    const bool classifies =
        table.choice("task", "segmentation", {"segmentation", "classification"}) ==
        "classification";
    if (classifies) {
      PictureDataConfig::from_table(table.table("data"), "runs");
      ClassificationTask::Settings::from_config(table);
    } else {
      DataConfig::from_table(table.table("data"), "runs");
      SegmentationTask::Settings::from_config(table);
    }
    ConfigTable model = table.table("model");
    EXPECT_EQ(create_model(model, {3, 2})->classifies(), classifies) << entry.path();
    EXPECT_NO_THROW(table.finish()) << entry.path();
  }
  EXPECT_GE(count, 3);
}

}  // namespace
}  // namespace vireo
