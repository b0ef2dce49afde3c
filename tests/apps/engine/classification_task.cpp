#include "apps/engine/classification_task.h"

#include <cmath>
#include <numeric>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/linear.h>

#include "apps/engine/checkpoint.h"
#include "apps/engine/layer_decay.h"
#include "apps/engine/trainer.h"
#include "models/weights/pretrained.h"
#include "models/weights/state_dict.h"
#include "tests/support/made_pictures.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_classifier.h"
#include "vision/core/error.h"
#include "vision/core/log.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

std::vector<int64_t> range(int64_t begin, int64_t end) {
  std::vector<int64_t> items(static_cast<size_t>(end - begin));
  std::iota(items.begin(), items.end(), begin);
  return items;
}

ClassificationTask::Settings settings(const std::string& text = "") {
  ConfigTable table = ConfigTable::from_text(
      "[picture]\nsize = [12, 12]\n[batches]\nbatch_size = 20\n" + text, "test");
  auto s = ClassificationTask::Settings::from_config(table);
  table.finish();
  return s;
}

TrainingResult train_in(const fs::path& folder, double layer_decay = 1) {
  set_log_quiet(true);
  at::set_num_threads(1);
  const PictureSet set = test::made_pictures(180);
  ClassificationTask task(set,
                          range(0, 120),
                          range(120, 180),
                          settings("[augment]\nmixup = { probability = 0.3 }\n"
                                   "[loss]\nlabel_smoothing = 0.05\n"));
  at::manual_seed(5);
  const auto model = std::make_shared<test::TinyClassifier>(1, 3);
  TrainingConfig config;
  config.epochs = 12;
  config.device = "cpu";
  config.threads = 1;
  config.deterministic = true;
  config.schedule.base_rate = 2e-2;
  config.ema_decay = 0.9;
  config.layer_decay = layer_decay;
  TrainingRun run;
  run.folder = folder;
  run.model_toml = "name = \"tiny\"\n";
  return train(task, model, config, {}, run);
}

TEST(ClassificationTask, LearnsBarsInSecondsAndRepeatsItself) {
  const fs::path folder = test::scratch_folder();
  EXPECT_GT(train_in(folder / "a").best_score, 0.9);
  train_in(folder / "b");
  const Checkpoint a = read_checkpoint(best_checkpoint(folder / "a"));
  const Checkpoint b = read_checkpoint(best_checkpoint(folder / "b"));
  for (const auto& [name, tensor] : a.model) EXPECT_TRUE(tensor.equal(b.model.at(name))) << name;
  EXPECT_EQ(a.metadata.at("task"), "classification");
  EXPECT_THAT(a.metadata.at("classes"), HasSubstr("across"));
  EXPECT_GT(train_in(folder / "c", 0.7).best_score, 0.7);
}

TEST(ClassificationTask, LossIsTheSoftCrossEntropyWeightedByClass) {
  PictureSet set = test::made_pictures(12);
  for (size_t i = 0; i < 12; ++i) set.items[i].label = i < 8 ? 0 : i < 11 ? 1 : 2;
  const at::Tensor logits = at::tensor({0.3, -1.0, 2.0, 0.0, 0.5, 0.1}).view({2, 3});
  const at::Tensor target = at::tensor({0.2, 0.8, 0.0, 0.0, 0.0, 1.0}).view({2, 3});
  const ClassificationTask plain(set, range(0, 12), {}, settings());
  const at::Tensor logs = at::log_softmax(logits, 1);
  EXPECT_NEAR(plain.loss(logits.to(at::kFloat), {{}, target.to(at::kFloat)}).item<double>(),
              -(target * logs).sum().item<double>() / 2,
              1e-6);
  const ClassificationTask weighed(
      set, range(0, 12), {}, settings("[loss]\nclass_weights = \"inverse\"\n"));
  const at::Tensor weights = at::tensor({12 / 8.0 / 3, 12 / 3.0 / 3, 12 / 1.0 / 3});
  EXPECT_NEAR(weighed.loss(logits.to(at::kFloat), {{}, target.to(at::kFloat)}).item<double>(),
              -(target * logs * weights).sum().item<double>() / 2,
              1e-6);
}

TEST(ClassificationTask, ScoresHeldOutPicturesAsWritten) {
  const PictureSet set = test::made_pictures(9);
  ClassificationTask task(set, range(0, 9), range(0, 9), settings());
  task.begin_validation();
  Batch batch = task.validation_batch(0);
  task.add_validation(batch.target * 4, batch);
  EXPECT_EQ(task.end_validation().score, 1);
  task.begin_validation();
  EXPECT_TRUE(std::isnan(task.end_validation().score)) << "cut off before the first batch";
}

TEST(ClassificationTask, RefusesANetworkOfPixels) {
  const PictureSet set = test::made_pictures(9);
  const ClassificationTask task(set, range(0, 9), {}, settings());
  EXPECT_THAT(
      [&] {
        task.loss(at::zeros({2, 3, 4, 4}), {});
      },
      ThrowsMessage<Error>(HasSubstr("one per picture")));
}

TEST(LayerRates, FallFromTheHeadToTheEmbedding) {
  const auto rates = layer_rates({"backbone.pos_embed",
                                  "backbone.patch_embed.projection.weight",
                                  "backbone.layers.0.att.key.weight",
                                  "backbone.layers.1.att.key.weight",
                                  "backbone.ln1.weight",
                                  "head.fc.weight"},
                                 0.5);
  EXPECT_EQ(rates.at("head.fc.weight"), 1);
  EXPECT_EQ(rates.at("backbone.ln1.weight"), 1);
  EXPECT_EQ(rates.at("backbone.layers.1.att.key.weight"), 0.5);
  EXPECT_EQ(rates.at("backbone.layers.0.att.key.weight"), 0.25);
  EXPECT_EQ(rates.at("backbone.pos_embed"), 0.125);
  const auto stages =
      layer_rates({"encoder.stage0.0.w", "encoder.stage0.1.w", "encoder.stage1.0.w"}, 0.5);
  EXPECT_EQ(stages.at("encoder.stage1.0.w"), 0.5);
  EXPECT_EQ(stages.at("encoder.stage0.0.w"), 0.125);
}

TEST(Pretrained, DropsTheHeadOfOtherClassesAndReportsIt) {
  test::TinyClassifier old(1, 10), fresh(1, 3);
  const PretrainedReport report = load_pretrained(fresh, state_of(old), "old");
  const std::vector<std::string> head{"head.bias", "head.weight"};
  EXPECT_EQ(report.at_start, head);
  EXPECT_EQ(report.left_out, head);
  EXPECT_EQ(report.loaded.size(), 2u);
  EXPECT_TRUE(state_of(fresh).at("first.weight").equal(state_of(old).at("first.weight")));
  auto broken = state_of(old);
  broken.erase("first.weight");
  EXPECT_THAT([&] { load_pretrained(fresh, broken, "old"); },
              ThrowsMessage<Error>(HasSubstr("first.weight")));
}

}  // namespace
}  // namespace vireo
