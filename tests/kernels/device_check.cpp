#include "kernels/device_check.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vireo {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(DeviceCheck, FindsTheCpuInAgreementWithItself) {
  EXPECT_THAT(disagreements_with_cpu(at::kCPU), IsEmpty());
  const c10::InferenceMode inference;
  const at::Tensor before = at::rand({1});
  EXPECT_THAT(disagreements_with_cpu(at::kCPU), IsEmpty());
}

// A device that computes nothing at all.
TEST(DeviceCheck, TellsEveryFailureInALine) {
  const std::vector<std::string> lines = disagreements_with_cpu(at::kMeta);
  EXPECT_THAT(lines, Not(IsEmpty()));
  EXPECT_THAT(lines, Each(Not(HasSubstr("\n"))));
  EXPECT_THAT(lines.front(), HasSubstr("bi_wkv of 11 tokens in Float: "));
}

}  // namespace
}  // namespace vireo
