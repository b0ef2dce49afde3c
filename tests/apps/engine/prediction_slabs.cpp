// Prediction slab by slab: the same labels, in the memory that was told.
#include <cstdlib>
#include <iostream>
#include <sstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/engine/prediction.h"
#include "kernels/process_memory.h"
#include "tests/support/fake_model.h"
#include "tests/support/predicted_cases.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using test::made_geometry;
using test::made_volume;
using test::plain_preparation;
using test::Predict;
using test::text;
using test::threshold_model;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Says what is missing, from the numbers told, and not before it must.
TEST_F(Predict, RefusesACaseThatNoSlabWouldFit) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  const TrainedModel good = threshold_model(plain_preparation());
  PredictionOptions given = options();
  given.max_memory_bytes = 1 << 20;
  EXPECT_THAT(
      predict({good}, given).problems,
      ElementsAre(AllOf(HasSubstr("a.nii.gz: would need "),
                        HasSubstr("of memory even slice by slice; --max-memory allows 1 MiB"))));
  EXPECT_FALSE(fs::exists(out() / "a.nii.gz"));
  given.max_memory_bytes = int64_t{4} << 30;
  EXPECT_THAT(predict({good}, given).problems, IsEmpty());
  const nlohmann::json estimate = json("manifest.json")["cases"][0]["memory_estimate_bytes"];
  EXPECT_LE(estimate.get<int64_t>(), given.max_memory_bytes);
}

TEST_F(Predict, GivesTheSameLabelsForSlabsOfAnySize) {
  Geometry geometry = made_geometry({1, 2, 0}, {1, -1, -1});
  const auto [depth, height, width] = geometry.size_zyx;
  put("a.nii.gz", {at::randn({1, depth, height, width}) * 40, geometry});
  // The slice's neighbours and the pixels beside it matter.
  const auto made_model = [](double weight) {
    TrainedModel trained = test::fake_model(3, 4, [weight](const at::Tensor& image) {
      const at::Tensor own = image.narrow(1, 1, 1), below = image.narrow(1, 0, 1);
      return at::cat({own.roll(1, 3) * weight, below.roll(-1, 2), image.narrow(1, 2, 1), -own}, 1) /
             20;
    });
    trained.neighbours = 1;
    trained.mirrored_yx = {true, true};
    trained.preparation = plain_preparation();
    for (int64_t k = 2; k < 4; ++k)
      trained.preparation.labels.push_back({"class " + std::to_string(k), k, {}});
    trained.preparation.orientation_xyz = "RAS";
    return trained;
  };
  std::vector<TrainedModel> models{made_model(1), made_model(0.7)};
  models[1].window_yx = {11, 8};
  for (const std::optional<Vector3>& spacing : {std::optional<Vector3>(),
                                                std::optional<Vector3>({1.1, 1.9, 0.9}),
                                                std::optional<Vector3>({4, 0, 2})}) {
    for (TrainedModel& trained : models) trained.preparation.spacing_mm = spacing;
    at::Tensor labels, shares;
    for (const int64_t batch : {1, 2, 5, 1000}) {
      PredictionOptions given = options();
      given.inference.batch = batch;
      given.probabilities = true;
      ASSERT_THAT(predict(models, given).problems, IsEmpty());
      const at::Tensor now = read_labels(out() / "a.nii.gz").values;
      const at::Tensor shares_now = read_image(out() / "a_probabilities.nii.gz").values;
      if (!labels.defined()) {
        labels = now;
        shares = shares_now;
        EXPECT_EQ(std::get<0>(at::_unique(now)).numel(), 4);
      }
      EXPECT_TRUE(at::equal(now, labels));
      EXPECT_TRUE(at::allclose(shares_now, shares, 1e-5, 1e-6));
    }
  }
}

// Run by the next test in a process of its own, so that nothing else is counted.
TEST(MemoryOfALargeVolume, DISABLED_IsMeasuredInAProcessOfItsOwn) {
  const fs::path folder = std::getenv("VIREO_MEMORY_TEST_FOLDER");
  const std::string kind = std::getenv("VIREO_MEMORY_TEST_KIND");
  constexpr int64_t kClasses = 30;
  TrainedModel trained = test::fake_model(1, kClasses, [](const at::Tensor& image) {
    std::vector<at::Tensor> logits;
    for (int64_t k = 0; k < kClasses; ++k) logits.push_back(image * static_cast<double>(k));
    return at::cat(logits, 1);
  });
  trained.window_yx = {64, 64};
  trained.preparation = plain_preparation();
  for (int64_t k = 2; k < kClasses; ++k)
    trained.preparation.labels.push_back({"class " + std::to_string(k), k + 20, {}});
  if (kind != "plain") trained.preparation.spacing_mm = Vector3{0, 1.5, 1.5};
  PredictionOptions options;
  options.output = folder / "out";
  options.inference.memory_bytes = 64 << 20;
  options.probabilities = kind == "probabilities";
  options.also.seg_nrrd = kind == "segments";
  options.input = folder / "large.nii";
  const int64_t before = resident_memory_bytes();
  ASSERT_EQ(predict({trained}, options).predicted, 1);
  const auto manifest = nlohmann::json::parse(text(options.output / "manifest.json"));
  std::cout << "\nmemory " << before << " " << manifest["peak_memory_bytes"] << " "
            << manifest["cases"][0]["memory_estimate_bytes"] << "\n";
}

TEST_F(Predict, StaysWithinItsEstimate) {
  const int64_t voxels = 400 * 96 * 96;
  Geometry geometry;
  geometry.size_zyx = {400, 96, 96};
  geometry.spacing_mm_zyx = {2, 1, 1};
  for (const char* kind : {"plain", "float", "probabilities", "segments"}) {
    at::Tensor values = at::zeros({1, 400, 96, 96}, at::kShort);
    values.narrow(1, 100, 200).narrow(2, 20, 40).narrow(3, 30, 60).fill_(1);
    if (kind == std::string("float")) values = values * 0.5;
    write_image(folder_ / "large.nii", values, geometry);
    const test::CommandResult child = test::run_command(
        "VIREO_MEMORY_TEST_KIND=" + std::string(kind) + " VIREO_MEMORY_TEST_FOLDER=" +
        folder_.string() + " " + fs::read_symlink("/proc/self/exe").string() +
        " --gtest_also_run_disabled_tests --gtest_filter='MemoryOfALargeVolume.*'");
    ASSERT_EQ(child.exit_code, 0) << child.output << child.errors;
    std::istringstream numbers(child.output.substr(child.output.find("\nmemory ") + 8));
    int64_t before = 0, peak = 0, estimate = 0;
    numbers >> before >> peak >> estimate;
    EXPECT_LT(peak, estimate) << kind;
    EXPECT_LT(2 * (estimate - before), 4 * 30 * voxels)
        << "half of what the classes' probabilities would take";
    std::cout << kind << ": " << ((peak - before) >> 20) << " MiB of "
              << ((estimate - before) >> 20) << " MiB beside " << (before >> 20) << " MiB\n";
  }
}

}  // namespace
}  // namespace vireo
