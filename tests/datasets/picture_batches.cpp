#include "datasets/picture_batches.h"

#include <set>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/support/made_pictures.h"
#include "tests/support/refusal.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

PicturePreprocessing preprocessing() {
  PicturePreprocessing p;
  p.size_yx = {12, 12};
  p.mean = {0.5};
  p.sd = {0.25};
  return p;
}

std::vector<int64_t> all_items(const PictureSet& set) {
  std::vector<int64_t> items(set.items.size());
  std::iota(items.begin(), items.end(), int64_t{0});
  return items;
}

TEST(PictureBatches, ShowEveryPictureOnceBeforeAnyComesAgain) {
  const PictureSet set = test::made_pictures(30);
  PictureSet counting = set;
  std::multiset<int64_t> seen;
  counting.picture = [&](int64_t item) {
    seen.insert(item);
    return set.picture(item);
  };
  const PictureBatches batches(
      counting, all_items(set), preprocessing(), {}, {.batch_size = 10, .seed = 4});
  for (int64_t i = 0; i < 6; ++i) batches.make(i);
  for (int64_t item = 0; item < 30; ++item) EXPECT_EQ(seen.count(item), 2u) << item;
}

TEST(PictureBatches, AreFunctionsOfTheirIndexWithSoftTargets) {
  const PictureSet set = test::made_pictures(30);
  const PictureBatches batches(set,
                               all_items(set),
                               preprocessing(),
                               {},
                               {.batch_size = 6, .label_smoothing = 0.3, .seed = 4});
  const Batch a = batches.make(3), b = batches.make(3);
  EXPECT_TRUE(a.image.equal(b.image));
  EXPECT_TRUE(a.target.equal(b.target));
  EXPECT_FALSE(a.image.equal(batches.make(4).image));
  EXPECT_EQ(a.image.sizes(), (at::IntArrayRef{6, 1, 12, 12}));
  EXPECT_TRUE(a.target.sum(1).allclose(at::ones({6})));
  EXPECT_NEAR(a.target.max().item<double>(), 0.8, 1e-6);
}

TEST(PictureBatches, BalanceTheClassesWhenAskedTo) {
  PictureSet set = test::made_pictures(60);
  for (size_t i = 0; i < 60; ++i) set.items[i].label = i < 6 ? 2 : static_cast<int64_t>(i % 2);
  const PictureBatches batches(
      set, all_items(set), preprocessing(), {}, {.batch_size = 300, .balanced = true, .seed = 4});
  const at::Tensor shares = batches.make(0).target.mean(0);
  for (int64_t k = 0; k < 3; ++k) EXPECT_NEAR(shares[k].item<double>(), 1.0 / 3, 0.1);
}

TEST(PictureBatches, PutAnotherPictureInAMissingOnesPlace) {
  set_log_quiet(false);
  PictureSet set = test::made_pictures(8);
  const auto whole = set.picture;
  set.picture = [whole](int64_t item) {
    if (item == 3) throw DataError("gone.png", "does not exist");
    return whole(item);
  };
  const PictureBatches batches(
      set, all_items(set), preprocessing(), {}, {.batch_size = 8, .seed = 1});
  testing::internal::CaptureStderr();
  EXPECT_NO_THROW(batches.make(0));
  EXPECT_NO_THROW(batches.make(1));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("gone.png: does not exist; another picture"));
  EXPECT_EQ(said.find("gone.png"), said.rfind("gone.png")) << "warned about once";
}

TEST(PictureRows, ShowEveryPictureInOrder) {
  const PictureSet set = test::made_pictures(10);
  const PictureRows rows(set, {7, 2, 5}, preprocessing(), 2);
  EXPECT_EQ(rows.batch_count(), 2);
  EXPECT_EQ(rows.make(0).target[1].argmax().item<int64_t>(), set.items[2].label);
  EXPECT_EQ(rows.make(1).image.size(0), 1);
}

TEST(PictureSet, SplitsPatientsAsAWhole) {
  PictureSet set = test::made_pictures(60);
  for (size_t i = 0; i < 60; ++i) set.items[i].patient = static_cast<int64_t>(i / 3);
  set.items[59].part = Part::kTest;
  split_by_patient(set, 5, 12345);
  EXPECT_EQ(set.fold_count(), 5);
  EXPECT_EQ(set.items[59].fold, -1);
  std::set<int64_t> held_out;
  for (int64_t fold = 0; fold < 5; ++fold) {
    std::set<int64_t> patients;
    for (const int64_t item : set.validation_items(fold)) {
      patients.insert(set.items[static_cast<size_t>(item)].patient);
      EXPECT_TRUE(held_out.insert(item).second);
    }
    for (const int64_t item : set.training_items(fold))
      EXPECT_FALSE(patients.contains(set.items[static_cast<size_t>(item)].patient));
  }
  EXPECT_EQ(held_out.size(), 59u);
}

fs::path written_cache(const PictureSet& set) {
  const fs::path folder = test::scratch_folder();
  PictureStorage storage;
  std::vector<at::Tensor> pixels;
  int64_t offset = 0;
  for (size_t i = 0; i < set.items.size(); ++i) {
    const at::Tensor picture = set.picture(static_cast<int64_t>(i));
    storage.shards.push_back(0);
    storage.offsets.push_back(offset);
    storage.sizes_hwc.push_back({picture.size(0), picture.size(1), picture.size(2)});
    offset += picture.numel();
    pixels.push_back(picture.flatten());
  }
  write_safetensors(picture_shard(folder, 0), {{"pixels", at::cat(pixels)}});
  write_picture_cache(folder, set, storage, "inputs");
  return folder;
}

TEST(PictureCache, GivesBackWhatWasWritten) {
  PictureSet set = test::made_pictures(9);
  set.items[4].part = Part::kTest;
  set.items[5].patient = 77;
  set.multi_label = true;
  for (size_t i = 0; i < 27; ++i) set.labels.push_back(i % 4 == 0);
  const fs::path folder = written_cache(set);
  EXPECT_TRUE(is_picture_cache(folder, "inputs"));
  EXPECT_FALSE(is_picture_cache(folder, "others"));
  const PictureSet back = open_picture_cache(folder);
  EXPECT_EQ(back.class_names, set.class_names);
  EXPECT_EQ(back.labels, set.labels);
  EXPECT_EQ(back.mean, set.mean);
  ASSERT_EQ(back.items.size(), 9u);
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_EQ(back.items[i].name, set.items[i].name);
    EXPECT_EQ(back.items[i].patient, set.items[i].patient);
    EXPECT_EQ(back.items[i].part, set.items[i].part);
    EXPECT_TRUE(back.picture(static_cast<int64_t>(i)).equal(set.picture(static_cast<int64_t>(i))));
  }
}

TEST(PictureCache, IsRefusedWhenItsPartsDisagree) {
  const fs::path folder = written_cache(test::made_pictures(5));
  write_safetensors(picture_shard(folder, 0), {{"pixels", at::zeros({100}, at::kByte)}});
  EXPECT_THAT([&] { open_picture_cache(folder); },
              ThrowsMessage<DataError>(HasSubstr("outside the pixels there are")));
  fs::remove(folder / "cache.json");
  EXPECT_THAT([&] { open_picture_cache(folder); },
              ThrowsMessage<DataError>(HasSubstr("is not a prepared cache")));
}

TEST(PictureCache, IsRefusedWhenItsManifestOrIndexAreNotWhatIsWritten) {
  const PictureSet set = test::made_pictures(5);
  const fs::path folder = written_cache(set);
  const nlohmann::json manifest = nlohmann::json::parse(read_text(folder / "cache.json"));
  const auto refusal = [&] { return test::message_of([&] { open_picture_cache(folder); }); };
  const auto with = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json changed = manifest;
    changed[key] = value;
    write_text_atomically(folder / "cache.json", changed.dump());
    EXPECT_FALSE(is_picture_cache(folder, "others"));
    return refusal();
  };
  EXPECT_THAT(with("format", 1), HasSubstr("is not the manifest"));
  EXPECT_THAT(with("version", "1"), HasSubstr("another format version"));
  EXPECT_THAT(with("inputs", 1), "(no error)");
  EXPECT_THAT(with("sd", std::vector<double>(set.sd.size(), 0)), HasSubstr("impossible pictures"));

  const auto with_item = [&](const std::string& name, int64_t fold) {
    PictureSet changed = set;
    changed.items[2].name = name;
    changed.items[2].fold = fold;
    written_cache(changed);
    return refusal();
  };
  EXPECT_THAT(with_item("a.png", INT64_MAX), HasSubstr("impossible class, part or fold for a.png"));
  EXPECT_THAT(with_item("../a.png", 0), HasSubstr("outside its folder"));
  EXPECT_THAT(with_item("/a.png", 0), HasSubstr("outside its folder"));
}

TEST(WithChannels, RepeatsGreyAndTakesTheLuminanceOfColour) {
  const at::Tensor grey = at::full({2, 3, 1}, 77, at::kByte);
  EXPECT_TRUE(with_channels(with_channels(grey, 3), 1).equal(grey));
}

}  // namespace
}  // namespace vireo
