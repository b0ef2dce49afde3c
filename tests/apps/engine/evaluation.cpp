#include "apps/engine/evaluation.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace vireo {
namespace {

using ::testing::HasSubstr;

Geometry grid_of(const at::Tensor& labels, const Vector3& spacing) {
  Geometry grid;
  grid.size_zyx = {labels.size(0), labels.size(1), labels.size(2)};
  grid.spacing_mm_zyx = spacing;
  return grid;
}

const std::vector<ScoredClass>& two_classes() {
  static const std::vector<ScoredClass> classes{{"front", {1}}, {"back", {2}}};
  return classes;
}

CaseScores scored(const std::string& name, int64_t shift, bool with_back = true) {
  const at::Tensor truth = at::zeros({6, 12, 12}, at::kByte);
  truth.slice(0, 1, 5).slice(1, 2, 8).slice(2, 2, 8).fill_(1);
  if (with_back) truth.slice(0, 1, 5).slice(1, 9, 11).fill_(2);
  const at::Tensor prediction = truth.roll(shift, 2);
  return score_case(name, prediction, truth, grid_of(truth, {3, 1, 1}), two_classes());
}

Summary three_cases() {
  return summarize({scored("c", 2), scored("a", 0), scored("b", 1, false)}, two_classes());
}

TEST(Evaluation, SummaryKeepsNnUNetsKeys) {
  const auto json = to_summary_json(three_cases());
  for (const char* key : {"foreground_mean", "mean", "metric_per_case"})
    EXPECT_TRUE(json.contains(key)) << key;
  for (const char* key : {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"}) {
    EXPECT_TRUE(json["foreground_mean"].contains(key)) << key;
    EXPECT_TRUE(json["mean"]["1"].contains(key)) << key;
    EXPECT_TRUE(json["metric_per_case"][0]["metrics"]["2"].contains(key)) << key;
  }
  EXPECT_TRUE(json["metric_per_case"][0].contains("reference_file"));
  EXPECT_TRUE(json["metric_per_case"][0].contains("prediction_file"));
  for (const char* key : {"HD95", "ASSD", "NSD", "VolumeError", "Precision", "Recall"})
    EXPECT_TRUE(json["mean"]["1"].contains(key)) << key;
  EXPECT_THAT(json["definitions"]["HD95"].get<std::string>(), HasSubstr("pooled"));
  EXPECT_EQ(json["labels"]["2"], "back");
}

TEST(Evaluation, UndefinedScoresAreNullAndLeftOutOfMeans) {
  const Summary summary = three_cases();
  const auto json = to_summary_json(summary);
  EXPECT_TRUE(json["metric_per_case"][1]["metrics"]["2"]["Dice"].is_null());
  EXPECT_EQ(json["metric_per_case"][1]["metrics"]["2"]["TP"], 0);
  EXPECT_EQ(json["count"]["2"]["Dice"], 2);
  EXPECT_DOUBLE_EQ(json["mean"]["2"]["Dice"].get<double>(), 1);
}

TEST(Evaluation, ForegroundMeanIsTheMeanOfTheClassMeans) {
  const Summary summary = three_cases();
  const double expected =
      (summary.of_class[0].at("Dice").mean + summary.of_class[1].at("Dice").mean) / 2;
  EXPECT_DOUBLE_EQ(summary.foreground.at("Dice").mean, expected);
  const Interval interval = summary.foreground.at("Dice").interval;
  EXPECT_LE(interval.low, expected);
  EXPECT_GE(interval.high, expected);
}

TEST(Evaluation, CasesAreOrderedByName) {
  const Summary summary = three_cases();
  ASSERT_EQ(summary.cases.size(), 3u);
  EXPECT_EQ(summary.cases[0].name, "a");
  EXPECT_EQ(summary.cases[0].mean_dice(), 1);
  EXPECT_EQ(summary.cases[2].name, "c");
}

TEST(Evaluation, ASingleSliceIsScoredInItsPlane) {
  const at::Tensor truth = at::zeros({1, 20, 20}, at::kByte), prediction = at::zeros_like(truth);
  truth[0].slice(0, 5, 15).slice(1, 5, 15).fill_(1);
  prediction[0].slice(0, 5, 15).slice(1, 7, 17).fill_(1);
  const CaseScores scores =
      score_case("slice", prediction, truth, grid_of(truth, {5, 1, 0.5}), {{"square", {1}}});
  // In 3-D every voxel of one slice is surface, and the mean distance would be far lower.
  EXPECT_GT(scores.classes[0].assd_mm, 0.4);
  EXPECT_DOUBLE_EQ(scores.classes[0].actual_ml, 100 * 5 * 0.5 / 1000);
}

TEST(Evaluation, CsvHasARowPerCaseAndClass) {
  const std::string csv = to_csv(three_cases());
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 3 * 2);
  EXPECT_TRUE(csv.starts_with("case,label,class,Dice,IoU,")) << csv;
  EXPECT_THAT(csv, HasSubstr("\nb,2,back,,,"));
}

TEST(Evaluation, TableNamesEveryClassAndTheMean) {
  const std::string table = to_table(three_cases());
  EXPECT_THAT(table, HasSubstr("front"));
  EXPECT_THAT(table, HasSubstr("back"));
  EXPECT_THAT(table, HasSubstr("mean"));
}

TEST(Evaluation, RegionsAreKeyedByAllTheirValues) {
  EXPECT_EQ((ScoredClass{"kidneys", {2, 3}}.key()), "(2, 3)");
  EXPECT_EQ((ScoredClass{"liver", {1}}.key()), "1");
}

TEST(Evaluation, VoxelHausdorffComesWithTheLiteraturesProtocolAlone) {
  ScoringOptions options;
  EXPECT_FALSE(to_summary_json(three_cases())["mean"]["1"].contains("HD95_voxels"));
  options.protocol = Protocol::kTransUnet;
  const at::Tensor truth = at::zeros({4, 6, 6}, at::kByte);
  truth.slice(0, 1, 3).fill_(1);
  const auto scores =
      score_case("x", truth.roll(1, 0), truth, grid_of(truth, {7, 1, 1}), {{"slab", {1}}}, options);
  EXPECT_DOUBLE_EQ(scores.classes[0].hd95_mm, 7);
  EXPECT_DOUBLE_EQ(scores.classes[0].hd95_voxels, 1);
  const auto json = to_summary_json(summarize({scores}, {{"slab", {1}}}, options));
  EXPECT_TRUE(json["mean"]["1"].contains("HD95_voxels"));
  EXPECT_EQ(json["protocol"]["name"], "transunet");
  const std::string table = to_table(summarize({scores}, {{"slab", {1}}}, options));
  EXPECT_THAT(table, HasSubstr("HD95 vox"));
  EXPECT_THAT(table, HasSubstr(" 1.00 "));
  EXPECT_THAT(table, ::testing::Not(HasSubstr(" 7.00 ")));
}

}  // namespace
}  // namespace vireo
