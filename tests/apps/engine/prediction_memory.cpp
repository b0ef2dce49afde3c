#include "apps/engine/prediction_memory.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/process_memory.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_data.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int64_t kMebi = int64_t{1} << 20;

class AvailableMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    put(proc() / "meminfo", "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable:    8000 kB\n");
    put(proc() / "self/statm", "1 1 1 1 0 1 0\n");
  }
  static void put(const fs::path& file, const std::string& text) {
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  fs::path proc() const { return folder_ / "proc"; }
  fs::path groups() const { return folder_ / "cgroup"; }
  int64_t kibibytes() const { return available_memory_bytes(proc(), groups()) / 1024; }

  fs::path folder_ = test::scratch_folder();
};

TEST_F(AvailableMemory, IsTheMachinesWhereNothingElseLimits) {
  EXPECT_EQ(kibibytes(), 8000);
  put(proc() / "self/cgroup", "0::/user/job\n");
  put(groups() / "user/job/memory.max", "max\n");
  put(groups() / "user/job/memory.current", "4096\n");
  EXPECT_EQ(kibibytes(), 8000);
}

TEST_F(AvailableMemory, RespectsControlGroupsAndThoseAboveThem) {
  put(proc() / "self/cgroup", "0::/user/job\n");
  put(groups() / "user/job/memory.max", "5120000\n");
  put(groups() / "user/job/memory.current", "3072000\n");
  put(groups() / "user/job/memory.stat", "anon 7\ninactive_file 1024000\n");
  EXPECT_EQ(kibibytes(), 3000) << "file pages that can be dropped are free";
  put(groups() / "user/memory.max", "2048000\n");
  put(groups() / "user/memory.current", "1024000\n");
  EXPECT_EQ(kibibytes(), 1000);
}

TEST_F(AvailableMemory, RespectsControlGroupsOfTheFirstVersion) {
  put(proc() / "self/cgroup", "9:name=systemd:/\n4:memory:/host/only/path\n0::/\n");
  put(groups() / "memory/memory.limit_in_bytes", "4096000\n");
  put(groups() / "memory/memory.usage_in_bytes", "2048000\n");
  EXPECT_EQ(kibibytes(), 2000) << "a container sees its group as the root";
}

TEST_F(AvailableMemory, IsNeverMoreThanThisMachineHas) {
  EXPECT_GT(available_memory_bytes(), kMebi);
  EXPECT_GT(resident_memory_bytes(), kMebi);
  EXPECT_GE(peak_memory_bytes(), resident_memory_bytes() / 2);
}

PredictionShape large_ct() {
  PredictionShape shape;
  shape.stored_size = shape.prepared_size = {1000, 512, 512};
  shape.class_count = 14;
  return shape;
}
const VoxelMemory kInt16{2 * 1000 * 512 * 512, 0};

TEST(PlanMemory, TakesFewerSlicesAtOnceWhereThereIsLessRoom) {
  const std::vector<TrainedModel> models{test::threshold_model(0)};
  InferenceOptions inference;
  inference.memory_bytes = 4096 * kMebi;
  const auto plan = [&](int64_t allowed) {
    return plan_memory(models, kInt16, large_ct(), inference, 400 * kMebi, allowed * kMebi);
  };
  const MemoryPlan most = plan(16000), less = plan(2500), least = plan(100);
  EXPECT_GT(most.batch, less.batch);
  EXPECT_GT(less.batch, 1);
  EXPECT_LE(most.estimate.total(), 16000 * kMebi);
  EXPECT_LE(less.estimate.total(), 2500 * kMebi);
  EXPECT_EQ(least.batch, 1);
  EXPECT_GT(least.estimate.total(), 100 * kMebi) << "for the caller to refuse";
  inference.batch = 2;
  EXPECT_EQ(plan(16000).batch, 2);
  EXPECT_EQ(plan(100).batch, 1);
}

TEST(PlanMemory, NeverHoldsTheProbabilitiesOfTheWhole) {
  const std::vector<TrainedModel> models{test::threshold_model(0)};
  PredictionShape shape = large_ct();
  const auto total = [&] {
    return plan_memory(models, kInt16, shape, {}, 0, int64_t{1} << 50).estimate.total();
  };
  const int64_t plain = total();
  EXPECT_LT(plain, 2048 * kMebi);
  shape.probabilities = true;
  EXPECT_GT(total(), plain);
  EXPECT_LT(total(), 3072 * kMebi) << "all classes would take 14 GiB";
}

TEST(MemoryEstimate, IsToldWithItsParts) {
  const MemoryEstimate estimate{400 * kMebi, 512 * kMebi, 0, 768 * kMebi, 512 * kMebi};
  EXPECT_EQ(estimate.total(), 1680 * kMebi);
  EXPECT_THAT(estimate.text(), HasSubstr("1.6 GiB (program 0.4, image 0.5"));
  EXPECT_EQ(memory_text(5 * kMebi - 1), "5 MiB");
}

}  // namespace
}  // namespace vireo
