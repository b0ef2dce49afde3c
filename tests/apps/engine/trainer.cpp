#include "apps/engine/trainer.h"

#include <chrono>
#include <csignal>
#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include "apps/engine/checkpoint.h"
#include "apps/engine/folder_lock.h"
#include "apps/engine/segmentation_task.h"
#include "apps/engine/training_state.h"
#include "tests/support/made_cases.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_model.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Preparation preparation() {
  Preparation p;
  p.dataset_name = "Made";
  p.channels = {{"MR", ChannelNormalization::Kind::kNone}};
  p.labels = {{"background", 0}, {"bright", 1}, {"dark", 2}};
  return p;
}

std::unique_ptr<SegmentationTask> made_task(int64_t training_cases = 4) {
  SegmentationTask::Settings s;
  s.batches.window_yx = {24, 20};
  s.batches.batch_size = 6;
  s.batches.seed = 3;
  s.augmentation.mirror_x = 0.5;
  s.augmentation.noise_sd = {0.5, 0, 0.2};
  return std::make_unique<SegmentationTask>(
      preparation(), test::made_cases(training_cases), test::made_cases(2, 100), s);
}

TrainingConfig quick(int64_t epochs) {
  TrainingConfig c;
  c.epochs = epochs;
  c.device = "cpu";
  c.threads = 1;
  c.deterministic = true;
  c.schedule.base_rate = 1e-2;
  c.ema_decay = 0.9;
  return c;
}

TrainingResult train_in(const fs::path& folder,
                        const TrainingConfig& config,
                        Task* task = nullptr,
                        const std::string& config_toml = "[train]\nseed = 1\n") {
  set_log_quiet(true);
  at::set_num_threads(1);
  const auto made = made_task();
  at::manual_seed(5);
  const auto model = std::make_shared<test::TinyModel>(1, 3);
  TrainingRun run;
  run.folder = folder;
  run.config_toml = config_toml;
  run.model_toml = "name = \"tiny\"\n";
  return train(task ? *task : *made, model, config, {}, run);
}

json records(const fs::path& folder) {
  json list = json::array();
  std::ifstream in(folder / "metrics.jsonl");
  for (std::string line; std::getline(in, line);) list.push_back(json::parse(line));
  return list;
}

void expect_same_run(const fs::path& a, const fs::path& b) {
  for (const char* name : {"checkpoint_best.safetensors", "checkpoint_latest.safetensors"}) {
    const Checkpoint ca = read_checkpoint(a / name), cb = read_checkpoint(b / name);
    for (const auto& part : {&Checkpoint::model, &Checkpoint::average, &Checkpoint::optimizer}) {
      ASSERT_EQ((ca.*part).size(), (cb.*part).size());
      for (const auto& [key, tensor] : ca.*part)
        EXPECT_TRUE(tensor.equal((cb.*part).at(key))) << name << " " << key;
    }
  }
  json ra = records(a), rb = records(b);
  for (json* list : {&ra, &rb})
    for (json& record : *list) record.erase("seconds");
  EXPECT_EQ(ra, rb);
}

// The made task with something happening when a certain batch is asked for.
class EventfulTask : public Task {
 public:
  using Event = std::function<void(int64_t, Batch&)>;
  explicit EventfulTask(Event event) : event_(std::move(event)) {}

  ModelShape model_shape() const override { return base_->model_shape(); }
  int64_t batches_per_epoch() const override { return base_->batches_per_epoch(); }
  Batch training_batch(int64_t index) const override {
    Batch batch = base_->training_batch(index);
    event_(index, batch);
    return batch;
  }
  at::Tensor loss(const at::Tensor& output, const Batch& batch) const override {
    return base_->loss(output, batch);
  }
  int64_t validation_batches() const override { return base_->validation_batches(); }
  Batch validation_batch(int64_t index) const override { return base_->validation_batch(index); }
  void begin_validation() override { base_->begin_validation(); }
  void add_validation(const at::Tensor& output, const Batch& batch) override {
    base_->add_validation(output, batch);
  }
  Validation end_validation() override { return base_->end_validation(); }
  std::string data_digest() const override { return base_->data_digest(); }
  std::map<std::string, std::string> checkpoint_metadata() const override {
    return base_->checkpoint_metadata();
  }

 private:
  std::unique_ptr<SegmentationTask> base_ = made_task();
  Event event_;
};

TEST(Trainer, LearnsATrivialTaskInSeconds) {
  const fs::path folder = test::scratch_folder();
  const TrainingResult result = train_in(folder, quick(25));
  const json list = records(folder);
  ASSERT_EQ(list.size(), 25u);
  EXPECT_LT(list.back().at("loss").get<double>(), 0.5 * list.front().at("loss").get<double>());
  EXPECT_GT(result.best_score, 0.9);
  EXPECT_EQ(result.reason, "all epochs are done");
  EXPECT_TRUE(fs::exists(folder / "config.toml"));
}

TEST(Trainer, GoesOnBitEqualAfterSigterm) {
  const fs::path folder = test::scratch_folder();
  train_in(folder / "whole", quick(4));
  for (const int64_t at : {0, 2, 6, 13}) {
    const fs::path cut = folder / ("cut_" + std::to_string(at));
    EventfulTask task([at](int64_t index, Batch&) {
      if (index == at) std::raise(SIGTERM);
    });
    EXPECT_THAT([&] { train_in(cut, quick(4), &task); },
                ThrowsMessage<Interrupted>(HasSubstr("same command again")));
    train_in(cut, quick(4));
    expect_same_run(folder / "whole", cut);
  }
}

TEST(Trainer, GoesOnBitEqualAfterDyingAnywhere) {
  const fs::path folder = test::scratch_folder();
  train_in(folder / "whole", quick(4));
  const fs::path cut = folder / "cut";
  for (const int64_t at : {1, 4, 5, 9, 15}) {
    EventfulTask task([at](int64_t index, Batch&) {
      if (index == at) throw DataError("disk", "gone");
    });
    EXPECT_THAT([&] { train_in(cut, quick(4), &task); },
                ThrowsMessage<DataError>(HasSubstr("disk: gone")));
  }
  train_in(cut, quick(4));
  expect_same_run(folder / "whole", cut);
}

TEST(Trainer, GoesOnFromThePreviousCheckpointWhenTheLatestIsDamaged) {
  const fs::path folder = test::scratch_folder();
  train_in(folder / "whole", quick(4));
  const fs::path cut = folder / "cut";
  EventfulTask task([](int64_t index, Batch&) {
    if (index == 13) throw DataError("disk", "gone");
  });
  EXPECT_THROW(train_in(cut, quick(4), &task), DataError);
  fs::resize_file(latest_checkpoint(cut), 1000);
  train_in(cut, quick(4));
  expect_same_run(folder / "whole", cut);
}

TEST(Trainer, AFinishedRunStaysAsItIsAndCanBeMadeLonger) {
  const fs::path folder = test::scratch_folder();
  train_in(folder, quick(2));
  EXPECT_EQ(train_in(folder, quick(2)).epochs, 2);
  EXPECT_EQ(records(folder).size(), 2u);
  EXPECT_EQ(train_in(folder, quick(3)).epochs, 3);
  EXPECT_EQ(records(folder).size(), 3u);
}

TEST(Trainer, RefusesToGoOnWithOtherData) {
  const fs::path folder = test::scratch_folder();
  train_in(folder, quick(1));
  const auto other = made_task(5);
  EXPECT_THAT([&] { train_in(folder, quick(2), other.get()); },
              ThrowsMessage<Error>(::testing::AllOf(HasSubstr("holds a run on other data"),
                                                    HasSubstr("--restart"))));
  EXPECT_EQ(train_in(folder, quick(2)).epochs, 2);
}

TEST(Trainer, RefusesToGoOnWithAnotherConfiguration) {
  const fs::path folder = test::scratch_folder();
  train_in(folder, quick(1), nullptr, "[train]\nepochs = 1\nlearning_rate = 0.01\n");
  EXPECT_THAT(
      [&] { train_in(folder, quick(2), nullptr, "[train]\nepochs = 2\nlearning_rate = 0.02\n"); },
      ThrowsMessage<Error>(::testing::AllOf(HasSubstr("- [train] learning_rate = 0.01"),
                                            HasSubstr("+ [train] learning_rate = 0.02"),
                                            HasSubstr("--restart"),
                                            ::testing::Not(HasSubstr("epochs")))));
}

TEST(Trainer, RefusesAFolderInWhichAnotherProcessTrains) {
  const fs::path folder = test::scratch_folder();
  const FolderLock lock(folder, "training in");
  EXPECT_THAT([&] { train_in(folder, quick(1)); },
              ThrowsMessage<DataError>(HasSubstr("another process is training")));
}

TEST(Trainer, SkipsStepsThatAreNotFiniteAndCountsThem) {
  const fs::path folder = test::scratch_folder();
  EventfulTask task([](int64_t index, Batch& batch) {
    if (index % 4 == 1) batch.image.fill_(std::numeric_limits<float>::quiet_NaN());
  });
  train_in(folder, quick(2), &task);
  for (const json& record : records(folder)) {
    EXPECT_EQ(record.at("skipped_steps"), 1);
    EXPECT_TRUE(record.at("loss").is_number());
  }
  for (const auto& [name, tensor] : read_checkpoint(latest_checkpoint(folder)).model)
    EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
}

TEST(Trainer, GivesUpWhenNothingIsFiniteAndSaysWhatToDo) {
  EventfulTask task(
      [](int64_t, Batch& batch) { batch.image.fill_(std::numeric_limits<float>::infinity()); });
  TrainingConfig config = quick(2);
  config.bad_steps = 3;
  EXPECT_THAT([&] { train_in(test::scratch_folder(), config, &task); },
              ThrowsMessage<Error>(::testing::AllOf(HasSubstr("3 steps in a row"),
                                                    HasSubstr("train.learning_rate (now 0.01)"))));
}

TEST(Trainer, EndsWithItsTimeAndItsLearningRateDoesToo) {
  const fs::path folder = test::scratch_folder();
  TrainingConfig config = quick(1'000'000);
  config.deterministic = false;
  config.max_minutes = 2.0 / 60;
  const auto start = std::chrono::steady_clock::now();
  const TrainingResult result = train_in(folder, config);
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(result.reason, "the time budget is used up");
  EXPECT_GT(took, 1);
  EXPECT_LT(took, 5);
  const json list = records(folder);
  EXPECT_LT(list.back().at("learning_rate").get<double>(), 0.1 * config.schedule.base_rate);
  EXPECT_GT(list.front().at("learning_rate").get<double>(), 0.5 * config.schedule.base_rate);
}

TEST(Trainer, StopsWhenNothingGetsBetter) {
  TrainingConfig config = quick(1000);
  config.schedule.base_rate = 0;
  config.patience = 2;
  config.ema_decay = 0;
  const TrainingResult result = train_in(test::scratch_folder(), config);
  EXPECT_LE(result.epochs, 30);
  EXPECT_THAT(result.reason, HasSubstr("no better score for 2 epochs"));
}

TEST(Trainer, AccumulatesSeveralBatchesPerStep) {
  const fs::path folder = test::scratch_folder();
  TrainingConfig config = quick(1);
  config.accumulate = 2;
  train_in(folder, config);
  EXPECT_EQ(records(folder).front().at("iteration"), 2);  // 4 batches of 6 for 24 slices
}

TEST(TrainingConfig, RefusesATimeBudgetInADeterministicRun) {
  ConfigTable table =
      ConfigTable::from_text("[train]\ndeterministic = true\nmax_minutes = 3", "test");
  EXPECT_THAT([&] { TrainingConfig::from_config(table.table("train")); },
              ThrowsMessage<ConfigError>(HasSubstr("max_minutes")));
}

TEST(RunFolder, FollowsTheConfigurationsPath) {
  EXPECT_EQ(run_folder("configs/a/b.toml", -1), "runs/a/b");
  EXPECT_EQ(run_folder("./configs/a/b.toml", 2), "runs/a/b/fold_2");
  EXPECT_EQ(run_folder("/elsewhere/b.toml", -1), "runs/elsewhere/b");
}

}  // namespace
}  // namespace vireo
