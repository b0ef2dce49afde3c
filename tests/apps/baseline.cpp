#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

test::CommandResult call(const std::string& arguments) {
  return test::run_command(test::program().string() + " " + arguments);
}

TEST(BaselineVerb, WritesWhatEvaluateWritesOfANetwork) {
  const fs::path folder = test::scratch_folder();
  const std::string data = (folder / "data").string(), out = (folder / "out").string();
  ASSERT_EQ(call("phantom " + data + " --pictures 200").exit_code, 0);
  const auto done = call("baseline " + data + " --output " + out);
  ASSERT_EQ(done.exit_code, 0) << done.errors;
  EXPECT_THAT(done.output, HasSubstr("Top-1 accuracy"));
  EXPECT_THAT(done.errors, HasSubstr("fitted to 140 pictures; L2 strength"));
  const auto scores = nlohmann::json::parse(read_text(folder / "out" / "results.json"));
  EXPECT_EQ(scores.at("model"), "colour_histogram_regression");
  EXPECT_EQ(scores.at("part"), "test");
  EXPECT_EQ(scores.at("pictures"), 40);
  EXPECT_TRUE(scores.at("by_patient").get<bool>());
  EXPECT_EQ(scores.at("param_count"), 4 * 512 + 4);
  EXPECT_EQ(scores.at("overall").at("macro_auroc").at("interval_95").size(), 2u);
  for (const char* file : {"results.csv", "predictions.csv", "report.html"})
    EXPECT_TRUE(fs::exists(folder / "out" / file)) << file;
}

TEST(BaselineVerb, HelpShowsAnExampleAndTheOutputMustBeKnown) {
  EXPECT_THAT(call("baseline --help").output, HasSubstr("Example"));
  const auto refused = call("baseline " + test::scratch_folder().string());
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.errors, HasSubstr("--output"));
}

}  // namespace
}  // namespace vireo
