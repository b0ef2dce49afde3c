#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/test_data.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

test::CommandResult import(const std::string& arguments) {
  return test::run_command(test::program().string() + " import " + arguments);
}

std::string weights(const std::string& name) {
  return test::repository_file("data/weights/" + name).string();
}

TEST(Import, WritesASafetensorsFileOfTheCheckpointsWeights) {
  const auto out = test::scratch_folder() / "out.safetensors";
  const auto result = import(weights("checkpoint.pth") + " " + out.string());
  EXPECT_EQ(result.exit_code, 0) << result.errors;
  EXPECT_THAT(result.output,
              AllOf(HasSubstr("took the entry \"state_dict\""),
                    HasSubstr("removed \"_orig_mod.\" from 5 names"),
                    HasSubstr("removed \"module.\" from 5 names"),
                    HasSubstr("5 tensors, 19 numbers")));
  const auto file = SafetensorsFile::open(out);
  EXPECT_TRUE(at::equal(file.tensor("conv.weight"), at::arange(6.).view({2, 3})));
  EXPECT_EQ(file.metadata().at("imported_from"), "checkpoint.pth");
}

TEST(Import, RefusesWeightsOfAnotherModelAndWritesNothing) {
  const auto out = test::scratch_folder() / "out.safetensors";
  const auto result =
      import("--model rwkv_unet_t " + weights("checkpoint.pth") + " " + out.string());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.errors,
              AllOf(HasSubstr("unknown, in the file alone (5)"), HasSubstr("final_conv.weight")));
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(Import, ExitCodesAndHelp) {
  const auto out = (test::scratch_folder() / "out.safetensors").string();
  EXPECT_EQ(import(weights("module.pth") + " " + out).exit_code, 1);
  EXPECT_EQ(import("--model no_such " + weights("checkpoint.pth") + " " + out).exit_code, 2);
  EXPECT_EQ(import("").exit_code, 2);
  const auto help = import("--help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_THAT(help.output, AllOf(HasSubstr("Example:"), HasSubstr("backbone.")));
}

}  // namespace
}  // namespace vireo
