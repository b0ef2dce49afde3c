#include "datasets/prepare_dataset.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "datasets/prepared_cache.h"
#include "tests/datasets/small_sets.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = ChannelNormalization::Kind;

class PrepareDataset : public ::testing::Test {
 protected:
  DataConfig config(const std::string& more = "") const {
    auto table = ConfigTable::from_text(
        "[data]\nfolder = \"" + set.string() + "\"\nworkers = 2\n" + more, "config.toml");
    return DataConfig::from_table(table.table("data"), root / "run");
  }
  std::string refusal(const std::string& more = "") const {
    try {
      prepare_dataset(config(more));
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  PreparedCache cache() const { return PreparedCache::open(root / "run/prepared", true); }

  const fs::path root = test::scratch_folder(), set = root / "set";
};

TEST_F(PrepareDataset, PreparesAnNnunetSet) {
  test::make_nnunet_set(set, 6);
  const PrepareReport report = prepare_dataset(config());
  EXPECT_FALSE(report.already_done);
  EXPECT_EQ(report.cases, 6);
  EXPECT_EQ(report.folds, 5);
  const PreparedCache prepared = cache();
  EXPECT_EQ(prepared.preparation().dataset_name, "Small");
  ASSERT_EQ(prepared.preparation().channels.size(), 2U);
  EXPECT_EQ(prepared.preparation().channels[0].kind, Kind::kCt);
  EXPECT_EQ(prepared.preparation().channels[1].kind, Kind::kZScore);
  const CachedCase one = prepared.load("case_3");
  EXPECT_THAT(one.image.sizes(), ElementsAre(2, 4, 6, 8));
  EXPECT_TRUE(at::equal(one.labels, test::small_labels(2)));
  // The second channel has no zeros: its z-score is that of all voxels.
  EXPECT_NEAR(one.image[1].mean().item<double>(), 0, 1e-5);
  EXPECT_NEAR(one.image[1].std(false).item<double>(), 1, 1e-5);
  const auto splits = nlohmann::json::parse(read_text(root / "run/prepared/splits_final.json"));
  EXPECT_EQ(splits.size(), 5U);
}

TEST_F(PrepareDataset, TakesTheForegroundsFingerprint) {
  test::make_nnunet_set(set, 1);
  // Foreground voxels 0..n-1 in the first channel, far from the background's.
  at::Tensor values = at::full({1, 4, 6, 8}, -1000.F);
  const at::Tensor inside = test::small_labels(2).ne(0).unsqueeze(0);
  const auto n = inside.sum().item<int64_t>();
  values.masked_scatter_(inside, at::arange(n, at::kFloat));
  write_image(set / "imagesTr/case_0_0000.nii.gz", values, test::small_grid());
  prepare_dataset(config());
  const auto json =
      nlohmann::json::parse(read_text(root / "run/prepared/dataset_fingerprint.json"));
  const auto& ct = json["foreground_intensity_properties_per_channel"]["0"];
  const double last = static_cast<double>(n - 1);
  EXPECT_NEAR(ct["percentile_00_5"].get<double>(), 0.005 * last, 1e-6);
  EXPECT_NEAR(ct["percentile_99_5"].get<double>(), 0.995 * last, 1e-6);
  EXPECT_NEAR(ct["median"].get<double>(), last / 2, 1e-6);
  EXPECT_NEAR(ct["mean"].get<double>(), last / 2, 1e-6);
  EXPECT_NEAR(ct["std"].get<double>(), std::sqrt((static_cast<double>(n * n) - 1) / 12), 1e-6);
  EXPECT_THAT(json["spacings"][0], ElementsAre(3.0, 1.0, 1.0));
  EXPECT_EQ(json["classes"][1]["voxels"], test::small_labels(2).eq(1).sum().item<int64_t>());
  EXPECT_NEAR(cache().preparation().channels[0].upper, 0.995 * last, 1e-6);
}

TEST_F(PrepareDataset, PreparesADecathlonSetWithItsLists) {
  test::make_msd_set(set, 4);
  test::write_text(set / "train.txt", "scan_0\nscan_1\n");
  test::write_text(set / "val.txt", "scan_2\n");
  const PrepareReport report = prepare_dataset(config());
  EXPECT_EQ(report.cases, 3);
  const PreparedCache prepared = cache();
  EXPECT_EQ(prepared.fold_count(), 1);
  EXPECT_THAT(prepared.validation_cases(0), ElementsAre("scan_2"));
  EXPECT_THAT(prepared.load("scan_2").image.sizes(), ElementsAre(2, 4, 6, 8));
}

TEST_F(PrepareDataset, PreparesPicturesWithBlackAndWhiteMasks) {
  test::make_picture_set(set, 4);
  prepare_dataset(config("labels = [\"background\", \"nucleus\"]"));
  const PreparedCache prepared = cache();
  EXPECT_EQ(prepared.preparation().labels[1].value, 255);
  EXPECT_EQ(prepared.preparation().channels[0].kind, Kind::kRgb);
  for (const auto& name : prepared.case_names()) {
    const CachedCase one = prepared.load(name);
    EXPECT_THAT(one.image.sizes(), ElementsAre(3, 1, 10, 12));  // grey ones too
    EXPECT_EQ(one.labels.sum().item<int64_t>(), 20);
  }
}

TEST_F(PrepareDataset, ResamplesToTheMedianSpacing) {
  test::make_msd_set(set, 3);
  Geometry finer = test::small_grid();
  finer.spacing_mm_zyx = {3, 0.5, 0.5};
  write_image(set / "imagesTr/scan_1.nii.gz", test::small_image(2), finer);
  write_labels(set / "labelsTr/scan_1.nii.gz", test::small_labels(2), finer);
  prepare_dataset(config("spacing_mm = \"median\""));
  const CachedCase one = cache().load("scan_1");
  EXPECT_THAT(one.image.sizes(), ElementsAre(2, 4, 3, 4));
  EXPECT_THAT(one.native.size_zyx, ElementsAre(4, 6, 8));
}

TEST_F(PrepareDataset, ListsEveryProblemOfTheSetAtOnce) {
  test::make_nnunet_set(set, 8);
  fs::remove(set / "labelsTr/case_0.nii.gz");
  write_labels(set / "labelsTr/case_1.nii.gz", test::small_labels(3), test::small_grid());
  write_labels(set / "labelsTr/case_2.nii.gz", at::zeros({4, 6, 8}, at::kByte), test::small_grid());
  Geometry moved = test::small_grid();
  moved.origin_lps_mm = {0, 0, 2};
  write_labels(set / "labelsTr/case_3.nii.gz", test::small_labels(2), moved);
  at::Tensor broken = test::small_image(1);
  broken[0][1][2][3] = NAN;
  write_image(set / "imagesTr/case_4_0001.nii.gz", broken, test::small_grid());
  test::write_text(set / "imagesTr/case_5_0000.nii.gz", "no image");
  write_image(set / "imagesTr/case_6_0001.nii.gz", test::small_image(2), test::small_grid());
  Geometry larger = test::small_grid();
  larger.size_zyx = {4, 6, 9};
  write_image(set / "imagesTr/case_7_0001.nii.gz", at::rand({1, 4, 6, 9}), larger);

  EXPECT_THAT(
      refusal(),
      AllOf(HasSubstr("set: 8 problems:\n"),
            HasSubstr("labelsTr/case_0.nii.gz: is missing; the case has images"),
            HasSubstr("labelsTr/case_1.nii.gz: holds label values that are not declared: 3 ("),
            HasSubstr("declared are 0 background, 1 liver, 2 tumour"),
            HasSubstr("labelsTr/case_2.nii.gz: is empty: background alone"),
            HasSubstr("labelsTr/case_3.nii.gz: its grid is not that of the image: origins differ"),
            HasSubstr("imagesTr/case_4_0000.nii.gz: holds NaN or infinite values (1 voxels)"),
            HasSubstr("imagesTr/case_5_0000.nii.gz: is not a NIfTI file"),
            HasSubstr("imagesTr/case_6_0001.nii.gz: has 2 channels, where each file is one"),
            HasSubstr("imagesTr/case_7_0001.nii.gz: its grid is not that of the image: sizes")));
  EXPECT_FALSE(fs::exists(root / "run/prepared/cache.json"));
}

TEST_F(PrepareDataset, AcceptsEmptyLabelsWhenToldTo) {
  test::make_msd_set(set, 2);
  write_labels(set / "labelsTr/scan_1.nii.gz", at::zeros({4, 6, 8}, at::kByte), test::small_grid());
  EXPECT_THAT(refusal(), HasSubstr("is empty"));
  EXPECT_EQ(refusal("allow_empty_labels = true"), "accepted");
}

TEST_F(PrepareDataset, DoesNotRepeatWhatIsDone) {
  test::make_msd_set(set, 3);
  prepare_dataset(config());
  const auto written = fs::last_write_time(root / "run/prepared/cache.json");
  const PrepareReport again = prepare_dataset(config());
  EXPECT_TRUE(again.already_done);
  EXPECT_EQ(fs::last_write_time(root / "run/prepared/cache.json"), written);
  EXPECT_FALSE(prepare_dataset(config(), {.force = true}).already_done);
}

TEST_F(PrepareDataset, PreparesAgainWhatHasChanged) {
  test::make_msd_set(set, 3);
  prepare_dataset(config());
  // One source file: the other cases are kept.
  write_image(set / "imagesTr/scan_1.nii.gz", test::small_image(2) * 2, test::small_grid());
  PrepareReport report = prepare_dataset(config());
  EXPECT_FALSE(report.already_done);
  EXPECT_EQ(report.kept, 2);
  // The configuration: all of them.
  report = prepare_dataset(config("slice_axis = \"x\""));
  EXPECT_EQ(report.kept, 0);
  EXPECT_THAT(cache().load("scan_0").image.sizes(), ElementsAre(2, 8, 4, 6));
  // Folds alone: no case.
  report = prepare_dataset(config("slice_axis = \"x\"\nfolds = 2"));
  EXPECT_FALSE(report.already_done);
  EXPECT_EQ(report.kept, 3);
  EXPECT_EQ(cache().fold_count(), 2);
}

TEST_F(PrepareDataset, MendsACacheThatLostAFile) {
  test::make_msd_set(set, 3);
  prepare_dataset(config());
  fs::remove(root / "run/prepared/cases/scan_1.safetensors");
  const PrepareReport report = prepare_dataset(config());
  EXPECT_EQ(report.kept, 2);
  EXPECT_EQ(cache().case_names().size(), 3U);
}

TEST_F(PrepareDataset, ForgetsCasesThatLeftTheSet) {
  test::make_msd_set(set, 3);
  prepare_dataset(config());
  test::write_text(set / "train.txt", "scan_0\nscan_1\n");
  prepare_dataset(config());
  EXPECT_THAT(cache().case_names(), ElementsAre("scan_0", "scan_1"));
  EXPECT_FALSE(fs::exists(root / "run/prepared/cases/scan_2.safetensors"));
}

TEST_F(PrepareDataset, GivesTheSameCacheForAnyNumberOfWorkers) {
  test::make_nnunet_set(set, 5);
  const auto manifest = [&](int64_t workers) {
    DataConfig c = config();
    c.workers = workers;
    prepare_dataset(c, {.force = true});
    return read_text(root / "run/prepared/cache.json");
  };
  EXPECT_EQ(manifest(1), manifest(4));
}

}  // namespace
}  // namespace vireo
