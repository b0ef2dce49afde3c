#include <fstream>
#include <sstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

test::CommandResult evaluate(const fs::path& scratch, const std::string& options = "") {
  return test::run_command(test::program().string() + " evaluate " + (scratch / "pred").string() +
                           " " + (scratch / "truth").string() + " --output " +
                           (scratch / "out").string() + " " + options);
}

nlohmann::json summary_of(const fs::path& scratch) {
  return nlohmann::json::parse(content(scratch / "out" / "summary.json"));
}

at::Tensor box(int64_t from, int64_t to, int64_t value = 1) {
  const at::Tensor labels = at::zeros({6, 16, 16}, at::kByte);
  labels.slice(0, 1, 5).slice(1, from, to).slice(2, from, to).fill_(value);
  return labels;
}

Geometry grid() {
  Geometry geometry;
  geometry.size_zyx = {6, 16, 16};
  geometry.spacing_mm_zyx = {4, 1.5, 1.5};
  return geometry;
}

// Three cases: perfect, shifted, half.
fs::path three_cases() {
  const fs::path scratch = test::scratch_folder();
  write_labels(scratch / "truth/one.nii.gz", box(4, 10), grid());
  write_labels(scratch / "pred/one.nii.gz", box(4, 10), grid());
  write_labels(scratch / "truth/two.nii.gz", box(4, 10), grid());
  write_labels(scratch / "pred/two.nii.gz", box(5, 11), grid());
  write_labels(scratch / "truth/three.nii.gz", box(2, 10), grid());
  write_labels(scratch / "pred/three.nii.gz", box(2, 10).slice(0, 0, 6).clone(), grid());
  return scratch;
}

TEST(EvaluateVerb, ScoresAFolderAndLeavesItsFiles) {
  const fs::path scratch = three_cases();
  const auto result = evaluate(scratch, "--labels box");
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output, AllOf(HasSubstr("Dice"), HasSubstr("box")));
  const auto json = summary_of(scratch);
  ASSERT_EQ(json["metric_per_case"].size(), 3u);
  EXPECT_EQ(json["metric_per_case"][0]["metrics"]["1"]["Dice"], 1);
  EXPECT_NEAR(json["metric_per_case"][2]["metrics"]["1"]["Dice"], 25.0 / 36, 1e-9) << "two";
  EXPECT_NEAR(json["metric_per_case"][2]["metrics"]["1"]["HD"], 1.5 * std::sqrt(2.0), 1e-9);
  EXPECT_THAT(json["metric_per_case"][2]["reference_file"].get<std::string>(),
              HasSubstr("truth/two.nii.gz"));
  EXPECT_TRUE(fs::exists(scratch / "out/results.csv"));
}

TEST(EvaluateVerb, LeavesThePictureOfAPredictionAside) {
  const fs::path scratch = three_cases();
  std::ofstream(scratch / "pred/statistics.json") << "{}";
  std::ofstream(scratch / "pred/preview.png") << "no labels";
  const auto result = evaluate(scratch);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.errors, Not(HasSubstr("preview")));
}

TEST(EvaluateVerb, ReportIsOneFileThatNeedsNoNetwork) {
  const fs::path scratch = three_cases();
  write_image(scratch / "images/one_0000.nii.gz", at::rand({1, 6, 16, 16}), grid());
  ASSERT_EQ(evaluate(scratch, "--images " + (scratch / "images").string()).exit_code, 0);
  const std::string html = content(scratch / "out/report.html");
  EXPECT_THAT(html,
              AllOf(HasSubstr("<svg"), HasSubstr("data:image/png;base64,"), HasSubstr("HD95")));
  EXPECT_THAT(
      html,
      AllOf(Not(HasSubstr("http://")), Not(HasSubstr("https://")), Not(HasSubstr("<script"))));
}

TEST(EvaluateVerb, ListsAllMissingPredictionsTogether) {
  const fs::path scratch = three_cases();
  fs::remove(scratch / "pred/one.nii.gz");
  fs::remove(scratch / "pred/two.nii.gz");
  const auto result = evaluate(scratch);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, AllOf(HasSubstr("2 of 3"), HasSubstr("one, two")));
  EXPECT_FALSE(fs::exists(scratch / "out/summary.json"));
}

TEST(EvaluateVerb, ScoresTheCasesThatAListNames) {
  const fs::path scratch = three_cases();
  fs::remove(scratch / "pred/one.nii.gz");
  std::ofstream(scratch / "val.txt") << "two\nthree.nii.gz\n";
  ASSERT_EQ(evaluate(scratch, "--cases " + (scratch / "val.txt").string()).exit_code, 0);
  EXPECT_EQ(summary_of(scratch)["metric_per_case"].size(), 2u);
  std::ofstream(scratch / "val.txt") << "two\nfour\n";
  const auto result = evaluate(scratch, "--cases " + (scratch / "val.txt").string());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("four"));
}

TEST(EvaluateVerb, RefusesAnotherGridAndSaysHowItDiffers) {
  const fs::path scratch = three_cases();
  Geometry moved = grid();
  moved.origin_lps_mm = {0, 30, 0};
  write_labels(scratch / "pred/one.nii.gz", box(4, 10), moved);
  Geometry small = grid();
  small.size_zyx = {5, 16, 16};
  write_labels(scratch / "pred/two.nii.gz", box(4, 10).slice(0, 0, 5).clone(), small);
  const auto result = evaluate(scratch, "--labels box");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors,
              AllOf(HasSubstr("pred/one.nii.gz"), HasSubstr("grid"), HasSubstr("pred/two.nii.gz")));
}

TEST(EvaluateVerb, RefusesALabelThatIsNotDeclared) {
  const fs::path scratch = three_cases();
  write_labels(scratch / "pred/one.nii.gz", box(4, 10, 7), grid());
  const auto result = evaluate(scratch, "--labels box");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors,
              AllOf(HasSubstr("pred/one.nii.gz"), HasSubstr("7"), HasSubstr("declare")));
}

TEST(EvaluateVerb, TakesLabelsAndRegionsOfADataSet) {
  const fs::path scratch = three_cases();
  std::ofstream(scratch / "dataset.json")
      << R"({"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}})";
  write_labels(scratch / "truth/one.nii.gz", at::maximum(box(4, 10), box(5, 7, 2)), grid());
  ASSERT_EQ(evaluate(scratch, "--labels " + (scratch / "dataset.json").string()).exit_code, 0);
  const auto json = summary_of(scratch);
  EXPECT_EQ(json["labels"]["(1, 2)"], "whole");
  EXPECT_EQ(json["metric_per_case"][0]["metrics"]["(1, 2)"]["Dice"], 1);
  EXPECT_EQ(json["metric_per_case"][0]["metrics"]["2"]["Dice"], 0);
}

TEST(EvaluateVerb, ScoresTwoFilesAndMasksOf255) {
  const fs::path scratch = test::scratch_folder();
  const at::Tensor truth = at::zeros({1, 20, 20}, at::kByte), prediction = at::zeros_like(truth);
  truth[0].slice(0, 5, 15).slice(1, 5, 15).fill_(255);
  prediction[0].slice(0, 5, 15).slice(1, 5, 10).fill_(1);
  Geometry flat;
  flat.size_zyx = {1, 20, 20};
  write_labels(scratch / "truth.png", truth[0].unsqueeze(0), flat);
  write_labels(scratch / "pred.png", prediction[0].unsqueeze(0), flat);
  const auto result = test::run_command(
      test::program().string() + " evaluate " + (scratch / "pred.png").string() + " " +
      (scratch / "truth.png").string() + " --output " + (scratch / "out").string());
  ASSERT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_NEAR(summary_of(scratch)["foreground_mean"]["Dice"], 2.0 / 3, 1e-9);
}

TEST(EvaluateVerb, ProtocolsDifferOnEmptyClasses) {
  const fs::path scratch = three_cases();
  write_labels(scratch / "truth/one.nii.gz", box(0, 0), grid());
  ASSERT_EQ(evaluate(scratch, "--labels box --protocol strict").exit_code, 0);
  auto json = summary_of(scratch)["metric_per_case"][0]["metrics"]["1"];
  EXPECT_EQ(json["Dice"], 0);
  EXPECT_NEAR(json["HD95"], std::sqrt(24. * 24 + 24 * 24 + 24 * 24), 1e-9);
  ASSERT_EQ(evaluate(scratch, "--labels box --protocol transunet").exit_code, 0);
  json = summary_of(scratch)["metric_per_case"][0]["metrics"]["1"];
  EXPECT_EQ(json["Dice"], 1);
  EXPECT_EQ(json["HD95"], 0);
}

TEST(EvaluateVerb, SpacingOverridesThatOfTheFiles) {
  const fs::path scratch = three_cases();
  ASSERT_EQ(evaluate(scratch, "--spacing 1 1 1").exit_code, 0);
  EXPECT_NEAR(
      summary_of(scratch)["metric_per_case"][2]["metrics"]["1"]["HD"], std::sqrt(2.0), 1e-9);
}

TEST(EvaluateVerb, SaysWhatIsWrongWithItsArguments) {
  const fs::path scratch = three_cases();
  EXPECT_EQ(evaluate(scratch, "--protocol lenient").exit_code, 2);
  EXPECT_EQ(evaluate(scratch, "--labels a=x").exit_code, 2);
  const auto result = test::run_command(test::program().string() + " evaluate /nowhere " +
                                        (scratch / "truth").string());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors, HasSubstr("/nowhere: does not exist"));
  const auto help = test::run_command(test::program().string() + " evaluate --help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, HasSubstr("Example"));
}

}  // namespace
}  // namespace vireo
