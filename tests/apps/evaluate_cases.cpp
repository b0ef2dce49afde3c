#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "datasets/prepared_cache.h"
#include "tests/support/made_arrays.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/io/image_file.h"

// From published data sets to the numbers of the published protocol, by the program's commands.
namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kHeight = 40, kWidth = 48;

// Bright and dark boxes on noise.
std::pair<at::Tensor, at::Tensor> made_slices(int64_t depth, int64_t shift) {
  at::Tensor image = at::rand({depth, kHeight, kWidth}) * 0.1 + 0.4;
  at::Tensor label = at::zeros({depth, kHeight, kWidth}, at::kByte);
  label.narrow(1, 6 + shift, 12).narrow(2, 6, 14).fill_(1);
  label.narrow(1, 20, 10).narrow(2, 26 + shift, 12).fill_(2);
  image.masked_fill_(label.eq(1), 0.9);
  image.masked_fill_(label.eq(2), 0.05);
  return {image, label};
}

fs::path write_config(const fs::path& root, const std::string& data) {
  const fs::path path = root / "tiny.toml";
  write_text_atomically(path,
                        "[data]\nfolder = \"" + (root / "set").string() + "\"\ncache = \"" +
                            (root / "cache").string() + "\"\n" + data + R"(
[model]
name = "rwkv_unet"
depths = [1, 1, 1, 1]
dims = [8, 8, 12, 16]
expansions = [1, 1, 1, 2]
stem_width = 8
[batches]
window = [32, 32]
batch_size = 4
batches_per_epoch = 10
foreground_fraction = 0
[train]
epochs = 6
learning_rate = 1e-2
ema_decay = 0
device = "cpu"
)");
  return path;
}

std::string run(const std::string& arguments, int expected_exit = 0) {
  const auto result = test::run_command(test::program().string() + " " + arguments);
  EXPECT_EQ(result.exit_code, expected_exit) << arguments << "\n" << result.errors;
  return result.output + result.errors;
}

json summary_of(const fs::path& folder) {
  return json::parse(read_text(folder / "summary.json"));
}

TEST(EvaluateCases, ScoresSynapseAsPublished) {
  const fs::path root = test::scratch_folder();
  for (int number = 0; number < 3; ++number) {
    const auto [image, label] = made_slices(2, number);
    for (int64_t z = 0; z < 2; ++z)
      test::write_npz(
          root / "set/train_npz" /
              ("case000" + std::to_string(number) + "_slice00" + std::to_string(z) + ".npz"),
          image[z],
          label[z]);
  }
  auto [image, label] = made_slices(3, 1);
  label.masked_fill_(label.eq(2), 0);  // an organ that is not there: the conventions differ
  image = at::where(label.eq(1), 0.9, at::full_like(image, 0.45));
  test::write_hdf5(root / "set/test_vol_h5/case0009.npy.h5", image, label);
  const fs::path config = write_config(root,
                                       "labels = [\"background\", \"bright\", \"dark\"]\n"
                                       "normalization = [\"none\"]\nslice_axis = \"z\"\n"
                                       "slice_size = [32, 32]\n");
  EXPECT_THAT(run("prepare " + config.string() + " --format auto"),
              HasSubstr("is read as \"arrays\": train_npz/case0000_slice000.npz, "
                        "test_vol_h5/case0009.npy.h5"));
  const fs::path out = root / "run";
  run("train " + config.string() + " --quiet --output " + out.string());
  const std::string evaluate =
      "evaluate " + (out / "checkpoint_best.safetensors").string() + " " + config.string();
  EXPECT_THAT(run(evaluate + " --protocol transunet --output " + (root / "scores").string()),
              AllOf(HasSubstr("bright"), HasSubstr("HD95")));
  const json published = summary_of(root / "scores");
  EXPECT_EQ(published["protocol"]["name"], "transunet");
  ASSERT_EQ(published["metric_per_case"].size(), 1u);
  const json& scores = published["metric_per_case"][0]["metrics"];
  EXPECT_EQ(scores["1"]["n_ref"], label.eq(1).sum().item<int64_t>()) << "at the volume's own size";
  EXPECT_EQ(scores["2"]["HD95_voxels"], 0);
  EXPECT_EQ(scores["2"]["Dice"], scores["2"]["n_pred"] == 0 ? 0 : 1);

  run(evaluate + " --part train --output " + (root / "strict").string());
  EXPECT_EQ(summary_of(root / "strict")["metric_per_case"].size(), 3u);
  EXPECT_THAT(run(evaluate + " --part test", 1), HasSubstr("has no test part"));
  EXPECT_THAT(
      run("evaluate " + (out / "checkpoint_best.safetensors").string() + " " + root.string(), 1),
      HasSubstr("give a data set's configuration (.toml)"));
}

TEST(EvaluateCases, ScoresAcdcAsItsLabelMapsAreScored) {
  const fs::path root = test::scratch_folder();
  Geometry grid;
  grid.size_zyx = {3, kHeight, kWidth};
  grid.spacing_mm_zyx = {8, 1.5, 1.25};
  grid.origin_lps_mm = {10, -20, 30};
  for (int patient = 1; patient <= 4; ++patient) {
    const std::string name = "patient00" + std::to_string(patient);
    const fs::path folder = root / "set" / name;
    write_text_atomically(folder / "Info.cfg", "ED: 1\nES: 12\n");
    for (const char* frame : {"_frame01", "_frame12"}) {
      const auto [image, label] = made_slices(3, patient);
      const std::string file = name + frame;
      write_image(folder / (file + ".nii.gz"), image.unsqueeze(0), grid);
      write_labels(folder / (file + "_gt.nii.gz"), label, grid);
      if (patient > 1) continue;
      write_image(root / "images" / (file + ".nii.gz"), image.unsqueeze(0), grid);
      write_labels(root / "truth" / (file + ".nii.gz"), label, grid);
    }
  }
  write_text_atomically(root / "set/val.txt", "patient001_frame01\npatient001_frame12\n");
  std::string rest;
  for (int patient = 2; patient <= 4; ++patient)
    for (const char* frame : {"_frame01\n", "_frame12\n"})
      rest += "patient00" + std::to_string(patient) + frame;
  write_text_atomically(root / "set/train.txt", rest);
  const fs::path config = write_config(
      root, "normalization = [\"zscore\"]\nslice_axis = \"z\"\nslice_size = [32, 32]\n");
  EXPECT_THAT(run("prepare " + config.string()),
              HasSubstr("is read as \"acdc\": folders of patients with Info.cfg"));
  const fs::path out = root / "run", model = out / "checkpoint_best.safetensors";
  run("train " + config.string() + " --quiet --output " + out.string());
  run("evaluate " + model.string() + " " + config.string() + " --protocol transunet --output " +
      (root / "scores").string());
  run("predict --quiet --model " + model.string() + " " + (root / "images").string() + " " +
      (root / "predictions").string());
  run("evaluate " + (root / "predictions").string() + " " + (root / "truth").string() +
      " --labels right,myocardium,left --protocol transunet --output " +
      (root / "by_files").string());
  const json direct = summary_of(root / "scores"), by_files = summary_of(root / "by_files");
  ASSERT_EQ(direct["metric_per_case"].size(), 2u);
  for (size_t i = 0; i < 2; ++i)
    EXPECT_EQ(direct["metric_per_case"][i]["metrics"], by_files["metric_per_case"][i]["metrics"]);
  int64_t predicted = 0;
  for (const auto& [label, scores] : direct["metric_per_case"][0]["metrics"].items())
    predicted += scores["n_pred"].get<int64_t>();
  EXPECT_GT(predicted, 0) << "nothing was segmented, and nothing compared";
}

// The files in configs/ as they are, but for the folder.
TEST(PublishedConfigurations, PrepareTheirSets) {
  const fs::path root = test::scratch_folder(), configs = test::repository_file("../configs");
  for (const char* part : {"Training", "Validation"}) {
    const std::string name = std::string("ISIC-2017_") + part;
    const auto [image, label] = made_slices(3, 2);
    Geometry grid;
    grid.size_zyx = {1, kHeight, kWidth};
    const std::string file = part[0] == 'T' ? "ISIC_0000001" : "ISIC_0000002";
    write_image(root / "ISIC2017" / (name + "_Data") / (file + ".jpg"),
                (image.unsqueeze(1) * 255).to(at::kByte),
                grid);
    write_labels(root / "ISIC2017" / (name + "_Part1_GroundTruth") / (file + "_segmentation.png"),
                 label.narrow(0, 0, 1).ne(0).to(at::kByte) * 255,
                 grid);
  }
  const auto [image, label] = made_slices(2, 1);
  for (int64_t z = 0; z < 2; ++z)
    test::write_npz(root / "Synapse/train_npz" / ("case0005_slice00" + std::to_string(z) + ".npz"),
                    image[z],
                    label[z]);
  test::write_hdf5(root / "Synapse/test_vol_h5/case0001.npy.h5", image, label);
  for (int patient = 1; patient <= 2; ++patient) {
    const std::string name = "patient00" + std::to_string(patient) + "_frame01";
    test::write_hdf5(root / "ACDC/ACDC_training_volumes" / (name + ".h5"), image, label);
    for (int64_t z = 0; z < 2; ++z)
      test::write_hdf5(
          root / "ACDC/ACDC_training_slices" / (name + "_slice_" + std::to_string(z) + ".h5"),
          image[z],
          label[z]);
  }
  for (const auto& [config, recognised, side] :
       {std::tuple{"isic2017/rwkv_unet_s", "is read as \"isic\"", 256},
        {"synapse/rwkv_unet_b", "2 cases, 1 fold", 224},
        {"acdc/rwkv_unet_b", "is read as \"arrays\"", 224}}) {
    const fs::path cache = root / "caches" / config;
    const std::string file = (configs / "segmentation" / config).string() + ".toml";
    const auto result =
        test::run_command("VIREO_DATA=" + root.string() + " " + test::program().string() +
                          " prepare " + file + " --set data.cache=" + cache.string());
    ASSERT_EQ(result.exit_code, 0) << result.errors;
    EXPECT_THAT(result.output + result.errors,
                AllOf(HasSubstr("2 cases, "), HasSubstr(recognised)));
    const PreparedCache prepared = PreparedCache::open(cache);
    for (const std::string& name : prepared.case_names()) {
      EXPECT_EQ(prepared.load(name).image.size(2), side) << config;
      EXPECT_EQ(prepared.load(name).labels.size(2), side);
    }
  }
}

}  // namespace
}  // namespace vireo
