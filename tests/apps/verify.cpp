#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/test_data.h"

namespace vireo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

test::CommandResult verify(const std::string& arguments) {
  return test::run_command(test::program().string() + " verify " + arguments);
}

TEST(Verify, PassesTheOperators) {
  VIREO_REQUIRE_GOLDEN(path, "ops.safetensors");
  const auto result = verify(path.string());
  EXPECT_EQ(result.exit_code, 0) << result.output << result.errors;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("bi_wkv/b2_t1000_c16_mixed/gk float64"),
                    HasSubstr("bi_wkv/b1_t196_c32_largek/gw float32"),
                    HasSubstr("q_shift_multihead/b1_h3_w4_c64_s1_d64_cls1/gx"),
                    HasSubstr("re_wkv/b2_h4_w5_c4_r4/g_spatial_decay"),
                    HasSubstr("wkv6/b2_t17_h2_n8/gw float64"),
                    HasSubstr("resize_pos_embed/14x14_to_7x10_bicubic/y")));
}

TEST(Verify, PassesScoresLossesAndLearningRates) {
  VIREO_REQUIRE_GOLDEN(scores, "metrics.safetensors");
  VIREO_REQUIRE_GOLDEN(json, "metrics.json");
  VIREO_REQUIRE_GOLDEN(rates, "schedule.json");
  const auto result =
      verify("--brief " + scores.string() + " " + json.string() + " " + rates.string());
  EXPECT_EQ(result.exit_code, 0) << result.output << result.errors;
  EXPECT_THAT(result.output, AllOf(HasSubstr("losses (12)"), HasSubstr("synapse_effective (20)")));
}

TEST(Verify, PassesTheNetworkInEvaluation) {
  VIREO_REQUIRE_GOLDEN(path, "rwkv_unet_t.safetensors");
  const auto result = verify(path.string());
  EXPECT_EQ(result.exit_code, 0) << result.output << result.errors;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("grad_input"),
                    HasSubstr("encoder.stage4.1.att.spatial_decay"),
                    HasSubstr("activations (14)"),
                    HasSubstr("gradients (213)")));
}

TEST(Verify, PassesTheNetworkInTrainingWithBatchStatistics) {
  VIREO_REQUIRE_GOLDEN(path, "rwkv_unet_t_train.safetensors");
  const auto result = verify("--brief " + path.string());
  EXPECT_EQ(result.exit_code, 0) << result.output << result.errors;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("running statistics (114)"), HasSubstr("zero gradients (14)")));
}

TEST(Verify, PassesVisionRwkvAndItsResizedPositions) {
  VIREO_REQUIRE_GOLDEN(pre, "vrwkv_mini.safetensors");
  VIREO_REQUIRE_GOLDEN(post, "vrwkv_mini_postnorm.safetensors");
  for (const char* precision : {"", "--float64 "}) {
    const auto result = verify(precision + pre.string() + " " + post.string());
    EXPECT_EQ(result.exit_code, 0) << result.output << result.errors;
    EXPECT_THAT(result.output,
                AllOf(HasSubstr("gradients (64)"),
                      HasSubstr("gradients (82)"),
                      HasSubstr("activations (5)"),
                      HasSubstr("resized/pos_embed"),
                      HasSubstr("resized/output"),
                      HasSubstr("resized/grad_pos_embed")));
  }
}

TEST(Verify, PassesVisionRwkv6) {
  VIREO_REQUIRE_GOLDEN(pre, "vrwkv6_mini.safetensors");
  VIREO_REQUIRE_GOLDEN(post, "vrwkv6_mini_postnorm.safetensors");
  for (const char* precision : {"", "--float64 "}) {
    const auto result = verify(precision + pre.string() + " " + post.string());
    EXPECT_EQ(result.exit_code, 0) << result.output << result.errors;
    EXPECT_THAT(result.output,
                AllOf(HasSubstr("gradients (94)"),
                      HasSubstr("gradients (78)"),
                      HasSubstr("resized/grad_pos_embed")));
  }
}

TEST(Verify, UnknownModelsAndBrokenFilesHaveTheirExitCodes) {
  VIREO_REQUIRE_GOLDEN(unknown, "restore_rwkv_mini.safetensors");
  const auto result = verify(unknown.string());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.errors, HasSubstr("unknown model Restore_RWKV"));
  EXPECT_EQ(verify("/no/such.safetensors").exit_code, 1);
  EXPECT_EQ(verify("/no/such.safetensors " + unknown.string()).exit_code, 1);
  EXPECT_EQ(verify("").exit_code, 2);
  EXPECT_THAT(verify("--help").output, HasSubstr("Example:"));
}

}  // namespace
}  // namespace vireo
