#include "vision/metrics/segmentation_scores.h"

#include <cmath>
#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/core/safetensors.h"
#include "vision/metrics/surface_distance.h"

namespace vireo {
namespace {

constexpr double kTolerance = 1e-6;

struct Golden {
  nlohmann::json values;
  SafetensorsFile tensors;

  Golden()
      : values(nlohmann::json::parse(std::ifstream(test::repository_file("golden/metrics.json")))),
        tensors(SafetensorsFile::open(test::repository_file("golden/metrics.safetensors"))) {}
};

void expect_equal(const nlohmann::json& expected,
                  const std::optional<double>& found,
                  const std::string& what) {
  if (expected.contains("raises")) {
    EXPECT_FALSE(found.has_value()) << what;
    return;
  }
  ASSERT_TRUE(found.has_value()) << what;
  if (expected["value"] == "nan")
    EXPECT_TRUE(std::isnan(*found)) << what;
  else
    EXPECT_NEAR(expected["value"].get<double>(), *found, kTolerance) << what;
}

TEST(GoldenMetrics, EveryPairHasMedPysValues) {
  const Golden golden;
  int checked = 0;
  for (const auto& pair : golden.values["pairs"]) {
    const std::string id = pair["id"];
    std::vector<double> spacing;
    if (!pair["spacing"].is_null()) spacing = pair["spacing"].get<std::vector<double>>();
    const auto scores = medpy_scores(golden.tensors.tensor("mask/" + id + "/pred"),
                                     golden.tensors.tensor("mask/" + id + "/truth"),
                                     spacing);
    for (const auto& [name, value] : scores) {
      ASSERT_TRUE(pair.contains(name)) << name;
      expect_equal(pair[name], value, id + " " + name);
      ++checked;
    }
  }
  EXPECT_EQ(checked, 16 * 12);
}

TEST(GoldenMetrics, EveryPairHasThePublishedConvention) {
  const Golden golden;
  for (const auto& pair : golden.values["pairs"]) {
    const std::string id = pair["id"];
    const auto [dice, hd95] = transunet_scores(golden.tensors.tensor("mask/" + id + "/pred"),
                                               golden.tensors.tensor("mask/" + id + "/truth"));
    EXPECT_NEAR(pair["calculate_metric_percase"][0].get<double>(), dice, kTolerance) << id;
    EXPECT_NEAR(pair["calculate_metric_percase"][1].get<double>(), hd95, kTolerance) << id;
  }
}

TEST(GoldenMetrics, LabelMapsAreScoredInOnePass) {
  const Golden golden;
  for (const auto& map : golden.values["multiclass"]) {
    const std::string id = map["id"];
    std::vector<std::vector<int64_t>> classes;
    for (int64_t value = 1; value < map["classes"]; ++value) classes.push_back({value});
    ScoringOptions options;
    options.protocol = Protocol::kTransUnet;
    const auto scores = score_label_map(golden.tensors.tensor("multi/" + id + "/pred"),
                                        golden.tensors.tensor("multi/" + id + "/truth"),
                                        classes,
                                        {2.0, 0.7, 0.7},
                                        options);
    const auto& expected = map["per_class_1.."];
    ASSERT_EQ(expected.size(), scores.size());
    for (size_t k = 0; k < scores.size(); ++k) {
      EXPECT_NEAR(expected[k][0].get<double>(), scores[k].dice, kTolerance) << id << " " << k + 1;
      EXPECT_NEAR(expected[k][1].get<double>(), scores[k].hd95_voxels, kTolerance)
          << id << " " << k + 1;
    }
  }
}

TEST(SegmentationScores, CountsAndVolumesAreThoseOfTheMasks) {
  const at::Tensor truth = at::zeros({4, 5, 6}, at::kByte);
  truth.slice(0, 1, 3).slice(1, 1, 4).slice(2, 1, 5).fill_(1);  // 24 voxels
  const at::Tensor prediction = at::zeros_like(truth);
  prediction.slice(0, 1, 3).slice(1, 1, 4).slice(2, 2, 6).fill_(1);  // shifted by one
  const ClassScores scores = score_mask(prediction, truth, {3.0, 2.0, 0.5});
  EXPECT_EQ(scores.counts.true_positive, 18);
  EXPECT_EQ(scores.counts.false_positive, 6);
  EXPECT_EQ(scores.counts.false_negative, 6);
  EXPECT_EQ(scores.counts.true_negative, 90);
  EXPECT_DOUBLE_EQ(scores.dice, 0.75);
  EXPECT_DOUBLE_EQ(scores.iou, 0.6);
  EXPECT_DOUBLE_EQ(scores.specificity, 90.0 / 96);
  EXPECT_DOUBLE_EQ(scores.hausdorff_mm, 0.5);
  EXPECT_DOUBLE_EQ(scores.nsd, 1.0);
  EXPECT_DOUBLE_EQ(scores.actual_ml, 24 * 3e-3);
  EXPECT_DOUBLE_EQ(scores.volume_error_ml, 0);
}

TEST(SegmentationScores, SurfaceDiceCountsBothSurfacesUpToTheTolerance) {
  const at::Tensor truth = at::zeros({1, 9}, at::kByte), prediction = at::zeros_like(truth);
  truth.slice(1, 0, 2).fill_(1);       // at 0, 1
  prediction.slice(1, 0, 5).fill_(1);  // at 0..4: distances 0, 0, 1, 2, 3
  ScoringOptions options;
  for (const auto& [tolerance, expected] : std::vector<std::pair<double, double>>{
           {0, 4.0 / 7}, {0.1, 5.0 / 7}, {0.2, 6.0 / 7}, {1, 1}}) {
    options.nsd_tolerance_mm = tolerance;
    EXPECT_DOUBLE_EQ(score_mask(prediction, truth, {1.0, 0.1}, options).nsd, expected) << tolerance;
  }
}

TEST(SegmentationScores, SurfaceIsWhatOneErosionRemoves) {
  const at::Tensor mask = at::zeros({7, 7}, at::kByte);
  mask.slice(0, 1, 6).slice(1, 2, 7).fill_(1);  // 5 × 5, touching the right border
  const at::Tensor surface = mask_surface(mask);
  EXPECT_EQ(surface.sum().item<int64_t>(), 16);
  EXPECT_TRUE(surface[3][6].item<bool>()) << "outside the image counts as background";
  EXPECT_FALSE(surface[3][4].item<bool>());
}

TEST(StrictProtocol, DoesNotCountAClassThatIsInNeither) {
  const at::Tensor empty = at::zeros({3, 4, 5}, at::kByte);
  const ClassScores scores = score_mask(empty, empty, {1.0, 1.0, 1.0});
  for (const double value : {scores.dice, scores.iou, scores.hd95_mm, scores.assd_mm, scores.nsd})
    EXPECT_TRUE(std::isnan(value));
  EXPECT_EQ(scores.counts.true_negative, 60);
}

TEST(StrictProtocol, CountsAMissedOrInventedClassAsAFullFailure) {
  const at::Tensor empty = at::zeros({3, 4, 12}, at::kByte), some = empty.clone();
  some[1][1][1] = 1;
  const double diagonal = std::sqrt(36.0 + 64.0 + 576.0);  // 3·2, 4·2 and 12·2 mm
  for (const bool missed : {true, false}) {
    const ClassScores scores =
        score_mask(missed ? empty : some, missed ? some : empty, {2.0, 2.0, 2.0});
    EXPECT_EQ(scores.dice, 0);
    EXPECT_EQ(scores.nsd, 0);
    EXPECT_DOUBLE_EQ(scores.hd95_mm, diagonal);
    EXPECT_DOUBLE_EQ(scores.assd_mm, diagonal);
    EXPECT_TRUE(std::isnan(missed ? scores.precision : scores.recall));
    EXPECT_EQ(missed ? scores.recall : scores.precision, 0);
  }
}

TEST(TransUnetProtocol, FollowsTheLiteratureOnEmptyMasks) {
  const at::Tensor empty = at::zeros({3, 4, 5}, at::kByte), some = empty.clone();
  some[1][1][1] = 1;
  EXPECT_EQ(transunet_scores(some, empty), std::make_pair(1.0, 0.0));
  EXPECT_EQ(transunet_scores(empty, some), std::make_pair(0.0, 0.0));
  EXPECT_EQ(transunet_scores(empty, empty), std::make_pair(0.0, 0.0));
  EXPECT_EQ(transunet_scores(some, some), std::make_pair(1.0, 0.0));
}

TEST(SegmentationScores, RegionsOfSeveralValuesMayOverlap) {
  const at::Tensor truth = at::randint(0, 4, {6, 8, 9}, at::kByte);
  const at::Tensor prediction = at::randint(0, 4, {6, 8, 9}, at::kByte);
  const std::vector<double> spacing{2, 1, 1};
  const auto scores = score_label_map(prediction, truth, {{1, 2, 3}, {2, 3}, {3}}, spacing);
  for (int64_t k = 0; k < 3; ++k) {
    const ClassScores mask = score_mask(prediction > k, truth > k, spacing);
    EXPECT_DOUBLE_EQ(scores[k].dice, mask.dice);
    EXPECT_DOUBLE_EQ(scores[k].hd95_mm, mask.hd95_mm);
    EXPECT_EQ(scores[k].counts.true_negative, mask.counts.true_negative);
  }
}

TEST(SegmentationScores, IgnoredVoxelsCountNowhere) {
  const at::Tensor truth = at::zeros({8, 8}, at::kByte);
  truth.slice(0, 0, 4).fill_(1);
  truth.slice(1, 6, 8).fill_(255);
  const at::Tensor prediction = (truth == 1).to(at::kByte);
  prediction.slice(1, 6, 8).fill_(1);
  ScoringOptions options;
  EXPECT_LT(score_label_map(prediction, truth, {{1}}, {1.0, 1.0}, options)[0].dice, 1);
  options.ignore_value = 255;
  const ClassScores scores = score_label_map(prediction, truth, {{1}}, {1.0, 1.0}, options)[0];
  EXPECT_EQ(scores.dice, 1);
  EXPECT_EQ(scores.hd95_mm, 0);
  EXPECT_EQ(scores.counts.true_positive + scores.counts.true_negative, 48);
}

TEST(SegmentationScores, DoNotDependOnTheIntegerType) {
  const at::Tensor truth = at::randint(0, 3, {5, 6, 7}, at::kByte);
  const at::Tensor prediction = at::randint(0, 3, {5, 6, 7}, at::kByte);
  const auto bytes = score_label_map(prediction, truth, {{1}, {2}}, {1.0, 2.0, 3.0});
  const auto mixed =
      score_label_map(prediction.to(at::kLong), truth.to(at::kShort), {{1}, {2}}, {1.0, 2.0, 3.0});
  for (size_t k = 0; k < 2; ++k) EXPECT_EQ(bytes[k].assd_mm, mixed[k].assd_mm);
}

}  // namespace
}  // namespace vireo
