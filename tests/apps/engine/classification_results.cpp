#include "apps/engine/classification_results.h"

#include <cmath>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

namespace vireo {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

ClassificationResults results() {
  ClassificationResults r;
  r.model = "tiny";
  r.class_names = {"a,b", "c"};
  r.names = {"one", "two \"2\"", "three", "four"};
  r.samples.class_count = 2;
  r.samples.probabilities = {0.9, 0.1, 0.4, 0.6, 0.3, 0.7, 0.8, 0.2};
  r.samples.truth = {0, 1, 1, 1};
  r.parameter_count = 1'234'567;
  r.size_yx = {28, 28};
  r.filter = "bicubic";
  const ClassificationScorer scorer(r.samples, r.options);
  r.scores = scorer.scores();
  r.intervals = bootstrap_scores(scorer, 1, 50);
  return r;
}

TEST(ClassificationResults, RowHasTimmsColumnsFirst) {
  const std::string csv = results_csv(results());
  EXPECT_THAT(csv,
              StartsWith("model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,"
                         "interpolation,"));
  EXPECT_THAT(csv, HasSubstr("\ntiny,28,75.000,25.000,100.000,0.000,1.23,1.000,bicubic,"));
  const std::string header = csv.substr(0, csv.find('\n')), row = csv.substr(csv.find('\n') + 1);
  EXPECT_EQ(std::count(header.begin(), header.end(), ','), std::count(row.begin(), row.end(), ','));
}

TEST(ClassificationResults, PredictionsQuoteWhatTheyMust) {
  const ClassificationResults r = results();
  EXPECT_EQ(predictions_csv(r.names, r.class_names, r.samples),
            "name,truth,predicted,\"a,b\",c\n"
            "one,\"a,b\",\"a,b\",0.9,0.1\n"
            "\"two \"\"2\"\"\",c,c,0.4,0.6\n"
            "three,c,c,0.3,0.7\n"
            "four,c,\"a,b\",0.8,0.2\n");
  ClassifiedSamples unknown = r.samples;
  unknown.truth.clear();
  EXPECT_THAT(predictions_csv(r.names, r.class_names, unknown),
              StartsWith("name,predicted,\"a,b\",c\none,\"a,b\",0.9,0.1\n"));
  ClassifiedSamples several = unknown;
  several.labels = {1, 1, 0, 1, 0, 0, 1, 0};
  EXPECT_THAT(predictions_csv(r.names, r.class_names, several),
              HasSubstr("one,\"a,b|c\",\"a,b\",0.9,0.1\n"));
}

TEST(ClassificationResults, JsonHoldsEveryScoreAndNullForTheUndefined) {
  ClassificationResults r = results();
  r.scores.overall.kappa = std::nan("");
  const nlohmann::json json = results_json(r);
  EXPECT_EQ(json.at("overall").at("top1").at("value"), 0.75);
  EXPECT_EQ(json.at("overall").at("top1").at("interval_95").size(), 2u);
  EXPECT_TRUE(json.at("overall").at("kappa").at("value").is_null());
  EXPECT_TRUE(json.at("temperature").is_null());
  EXPECT_EQ(json.at("confusion"), nlohmann::json({{1, 0}, {1, 2}}));
  EXPECT_EQ(json.at("classes")[1].at("support"), 3);
  for (const auto& [key, value] : json.at("overall").items())
    EXPECT_TRUE(json.at("definitions").contains(key)) << key;
}

}  // namespace
}  // namespace vireo
