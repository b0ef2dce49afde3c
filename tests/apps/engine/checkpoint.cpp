#include "apps/engine/checkpoint.h"

#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "apps/engine/trained_model.h"
#include "models/weights/state_dict.h"
#include "tests/support/test_data.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

Checkpoint small(float value = 1) {
  Checkpoint c;
  c.model = {{"a.weight", at::full({3, 4}, value)}, {"count", at::full({1}, 7, at::kLong)}};
  c.average = {{"a.weight", at::full({3, 4}, value / 2)}};
  c.optimizer = {{"first_moment", at::randn({12})}};
  c.metadata = {{"epoch", "3"}, {"history", "[]"}};
  return c;
}

void flip_byte(const fs::path& path, int64_t from_end) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-from_end, std::ios::end);
  const char byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(-from_end, std::ios::end);
  file.put(byte);
}

TEST(Checkpoint, ComesBackAsItWasWritten) {
  const fs::path path = test::scratch_folder() / "c.safetensors";
  const Checkpoint written = small();
  write_checkpoint(path, written);
  const Checkpoint read = read_checkpoint(path);
  ASSERT_EQ(read.model.size(), 2u);
  EXPECT_TRUE(read.model.at("a.weight").equal(written.model.at("a.weight")));
  EXPECT_EQ(read.model.at("count").item<int64_t>(), 7);
  EXPECT_TRUE(read.average.at("a.weight").equal(written.average.at("a.weight")));
  EXPECT_TRUE(read.optimizer.at("first_moment").equal(written.optimizer.at("first_moment")));
  EXPECT_EQ(read.metadata.at("epoch"), "3");
}

TEST(Checkpoint, KeepsTheModelUnderItsOwnNamesForOtherReaders) {
  const fs::path path = test::scratch_folder() / "c.safetensors";
  write_checkpoint(path, small());
  const auto file = SafetensorsFile::open(path);
  EXPECT_TRUE(file.contains("a.weight"));
  EXPECT_TRUE(file.contains("ema.a.weight"));
  EXPECT_EQ(file.metadata().at("format"), "vireo-checkpoint");
}

TEST(Checkpoint, RefusesEveryDamagedByteOfTheTensorsAndAShorterFile) {
  const fs::path folder = test::scratch_folder(), path = folder / "c.safetensors";
  for (const int64_t from_end : {1, 9, 50, 100}) {
    write_checkpoint(path, small());
    flip_byte(path, from_end);
    EXPECT_THAT([&] { read_checkpoint(path); }, ThrowsMessage<DataError>(HasSubstr("damaged")));
  }
  write_checkpoint(path, small());
  fs::resize_file(path, fs::file_size(path) - 8);
  EXPECT_THROW(read_checkpoint(path), DataError);
}

TEST(Checkpoint, RefusesChangedMetadata) {
  const fs::path path = test::scratch_folder() / "c.safetensors";
  write_checkpoint(path, small());
  const auto file = SafetensorsFile::open(path);
  auto metadata = file.metadata();
  metadata["epoch"] = "4";
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : file.tensors()) tensors[name] = tensor.clone();
  write_safetensors(path, tensors, metadata);
  EXPECT_THAT([&] { read_checkpoint(path); }, ThrowsMessage<DataError>(HasSubstr("damaged")));
}

TEST(Checkpoint, RefusesOtherSafetensorsAndNewerFormats) {
  const fs::path path = test::scratch_folder() / "c.safetensors";
  write_safetensors(path, {{"a", at::ones({1})}});
  EXPECT_THAT([&] { read_checkpoint(path); },
              ThrowsMessage<DataError>(HasSubstr("not a Vireo checkpoint")));
  write_safetensors(
      path, {{"a", at::ones({1})}}, {{"format", "vireo-checkpoint"}, {"format_version", "99"}});
  EXPECT_THAT([&] { read_checkpoint(path); }, ThrowsMessage<DataError>(HasSubstr("version 99")));
}

TEST(Checkpoint, FallsBackToThePreviousOne) {
  const fs::path path = test::scratch_folder() / "checkpoint_latest.safetensors";
  write_checkpoint_keeping_previous(path, small(1));
  write_checkpoint_keeping_previous(path, small(2));
  EXPECT_EQ(previous_checkpoint(path).filename(), "checkpoint_latest.previous.safetensors");
  const auto value = [&] {
    return read_checkpoint_or_previous(path).model.at("a.weight")[0][0].item<float>();
  };
  EXPECT_EQ(value(), 2);
  flip_byte(path, 9);
  EXPECT_EQ(value(), 1);
  fs::remove(path);
  EXPECT_EQ(value(), 1);
  flip_byte(previous_checkpoint(path), 9);
  EXPECT_THROW(value(), DataError);
}

TEST(TrainedModel, PredictsAsTheModelThatWasSaved) {
  const fs::path path = test::scratch_folder() / "c.safetensors";
  ConfigTable table = ConfigTable::from_text("name = \"rwkv_unet_t\"", "test");
  const auto model = create_model(table, {3, 4});
  model->eval();
  Preparation preparation;
  preparation.dataset_name = "Made";
  preparation.channels = {{"MR", ChannelNormalization::Kind::kZScore}};
  preparation.labels = {{"background", 0}, {"one", 1}, {"two", 2}, {"three", 3}};
  Checkpoint c;
  c.model = state_of(*model);
  c.metadata = {{"model", table.resolved_text()},
                {"model_shape", R"({"input_channels":3,"class_count":4})"},
                {"preparation", preparation.to_json().dump()},
                {"window_yx", "[64,48]"},
                {"neighbours", "1"},
                {"mirrored_yx", "[false,true]"},
                {"config", "# all of it"}};
  write_checkpoint(path, c);

  const TrainedModel loaded = load_trained_model(path);
  const at::NoGradGuard no_grad;
  const at::Tensor image = at::randn({1, 3, 32, 48});
  EXPECT_TRUE(loaded.model->forward(image).equal(model->forward(image)));
  EXPECT_FALSE(loaded.model->is_training());
  EXPECT_EQ(loaded.window_yx, (std::array<int64_t, 2>{64, 48}));
  EXPECT_EQ(loaded.neighbours, 1);
  EXPECT_EQ(loaded.mirrored_yx, (std::array<bool, 2>{false, true}));
  EXPECT_EQ(loaded.preparation.labels.at(2).name, "two");

  // Averaged weights, where kept, are the ones to predict with.
  for (const auto& [name, tensor] : c.model)
    c.average[name] = tensor.is_floating_point() ? at::zeros_like(tensor) : tensor;
  write_checkpoint(path, c);
  EXPECT_EQ(load_trained_model(path).model->forward(image).abs().max().item<float>(), 0);

  c.metadata.erase("window_yx");
  write_checkpoint(path, c);
  EXPECT_THAT([&] { load_trained_model(path); }, ThrowsMessage<DataError>(HasSubstr("window_yx")));
}

}  // namespace
}  // namespace vireo
