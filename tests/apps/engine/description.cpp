#include "apps/engine/description.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

Geometry made_geometry() {
  Geometry geometry;
  geometry.size_zyx = {4, 6, 8};
  geometry.spacing_mm_zyx = {3, 1.5, 0.75};
  geometry.origin_lps_mm = {-10, 20, 30};
  geometry.direction_lps_from_zyx = {{{0, 0, -1}, {0, 1, 0}, {1, 0, 0}}};
  return geometry;
}

TEST(DescribeProgram, NamesVersionsProcessorAndModels) {
  const Description program = describe_program("1.2.3");
  EXPECT_EQ(program["versions"]["Vireo"], "1.2.3");
  EXPECT_THAT(program["versions"]["LibTorch"].get<std::string>(), HasSubstr("2.11"));
  EXPECT_GT(program["processor"]["cores"], 0);
  EXPECT_TRUE(program["processor"]["instruction sets"].is_array());
  ASSERT_TRUE(program["CUDA"].contains("usable"));
  EXPECT_EQ(program["CUDA"].contains("why"), !program["CUDA"]["usable"].get<bool>());
  EXPECT_TRUE(program["models"].contains("rwkv_unet_t"));
}

TEST(DescribeModel, CountsParametersAndOperations) {
  const Description model = describe_model({"rwkv_unet_t", 64, 48, 3, 5});
  EXPECT_EQ(model["input"], (std::vector<int64_t>{1, 3, 64, 48}));
  EXPECT_NEAR(model["parameters"].get<double>(), 3.146e6, 0.01e6);
  EXPECT_EQ(model["flops"], 2 * model["multiply_adds"].get<int64_t>());
  EXPECT_GT(model["inference_peak_bytes"], 64 * 48 * 24 * 4);
  EXPECT_GT(model["training_peak_bytes"], model["inference_peak_bytes"]);
  // Twice the pixels take twice the operations, but for the last digits of the pooled parts.
  const Description twice = describe_model({"rwkv_unet_t", 128, 48, 3, 5});
  EXPECT_NEAR(twice["multiply_adds"].get<double>() / model["multiply_adds"].get<double>(), 2, 0.01);
  EXPECT_THROW(describe_model({"no_such_net"}), UsageError);
}

TEST(DescribeImage, TellsGridCodesAndRange) {
  const fs::path path = test::scratch_folder() / "a.nii.gz";
  at::Tensor values = at::zeros({1, 4, 6, 8});
  values[0][1][2][3] = 12.5;
  values[0][0][0][0] = -3;
  write_image(path, values, made_geometry());
  const Description image = describe_image(path);
  EXPECT_EQ(image["size_xyz"], (std::vector<int64_t>{8, 6, 4}));
  EXPECT_EQ(image["spacing_mm_xyz"], (std::vector<double>{0.75, 1.5, 3}));
  EXPECT_EQ(image["extent_mm_xyz"], (std::vector<double>{6, 9, 12}));
  EXPECT_EQ(image["orientation_xyz"], "RPS");
  EXPECT_EQ(image["origin_lps_mm"], (std::vector<double>{-10, 20, 30}));
  EXPECT_EQ(image["direction_lps_from_xyz"][0][0], -1.0);
  EXPECT_EQ(image["coarsest axis"], "z");
  EXPECT_EQ(image["stored as"], "float32");
  EXPECT_EQ(image["header"]["sform_code"], "1 (scanner)");
  EXPECT_EQ(image["smallest"], -3.0);
  EXPECT_EQ(image["largest"], 12.5);
  EXPECT_EQ(image["not finite"], 0);
  EXPECT_FALSE(image.contains("voxels per value"));
}

TEST(DescribeImage, CountsTheLabelsOfALabelMap) {
  const fs::path path = test::scratch_folder() / "a.nii.gz";
  at::Tensor labels = at::zeros({4, 6, 8}, at::kInt);
  labels[1].fill_(6);
  labels[2][0].fill_(300);
  write_labels(path, labels, made_geometry());
  const Description image = describe_image(path);
  EXPECT_EQ(image["stored as"], "uint16");
  EXPECT_EQ(image["voxels per value"].dump(), R"({"0":136,"6":48,"300":8})");
}

TEST(DescribeSafetensors, ListsMetadataAndTensors) {
  const fs::path path = test::scratch_folder() / "w.safetensors";
  write_safetensors(path,
                    {{"a.weight", at::zeros({2, 3})}, {"b", at::zeros({5}, at::kByte)}},
                    {{"epoch", "12"}, {"preparation", R"({"labels": [1, 2]})"}});
  const Description file = describe_safetensors(path);
  EXPECT_EQ(file["tensor count"], 2);
  EXPECT_EQ(file["numbers"], 11);
  EXPECT_EQ(file["metadata"]["epoch"], "12");
  EXPECT_EQ(file["metadata"]["preparation"]["labels"][1], 2);
  EXPECT_EQ(file["tensors"][0]["name"], "a.weight");
  EXPECT_EQ(file["tensors"][0]["shape"], "2 x 3");
  EXPECT_EQ(file["tensors"][0]["type"], "Float");
}

TEST(DescribeFolder, RecognisesWhatItHolds) {
  const fs::path folder = test::scratch_folder();
  const auto put = [&](const std::string& name, const std::string& text = "x") {
    write_text_atomically(folder / name, text);
  };
  put("nnunet/dataset.json",
      R"({"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}})");
  put("nnunet/imagesTr/a_0000.nii.gz");
  put("nnunet/imagesTr/b_0000.nii.gz");
  put("nnunet/labelsTr/a.nii.gz");
  Description found = describe_folder(folder / "nnunet");
  EXPECT_EQ(found["kind"], "data set, nnU-Net layout");
  EXPECT_EQ(found["labels"]["liver"], 1);
  EXPECT_EQ(found["imagesTr"], 2);
  EXPECT_EQ(found["labelsTr"], 1);

  put("msd/dataset.json", R"({"modality": {"0": "MRI"}, "labels": {"0": "b"}, "training": []})");
  EXPECT_EQ(describe_folder(folder / "msd")["kind"],
            "data set, Medical Segmentation Decathlon layout");

  put("pairs/images/a.png");
  put("pairs/masks/a.png");
  put("pairs/train.txt", "a\nb\n\n");
  found = describe_folder(folder / "pairs");
  EXPECT_EQ(found["kind"], "data set, image and label folders");
  EXPECT_EQ(found["train.txt"], 2);

  put("run/checkpoint_best.safetensors");
  put("run/metrics.jsonl", "{}\n{}\n{}\n");
  found = describe_folder(folder / "run");
  EXPECT_EQ(found["kind"], "training run");
  EXPECT_EQ(found["epochs in metrics.jsonl"], 3);

  put("scans/a.nii.gz");
  put("scans/b.png");
  found = describe_folder(folder / "scans");
  EXPECT_EQ(found["kind"], "images");
  EXPECT_EQ(found[".png"], 1);
}

TEST(DescribeFolder, RefusesWhatItDoesNotKnow) {
  const fs::path folder = test::scratch_folder();
  const auto message = [&] {
    try {
      describe_folder(folder);
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(message(), HasSubstr("is no folder that Vireo knows"));
  write_text_atomically(folder / "dataset.json", "{ broken");
  EXPECT_THAT(message(), HasSubstr("dataset.json: is not valid JSON"));
}

TEST(TextOf, IsReadable) {
  const Description description = {
      {"parameters", 3146285},
      {"flops", 12345678901},
      {"peak_bytes", 3 << 20},
      {"list", {1, 2, 3}},
      {"inner", {{"yes", true}, {"x", nullptr}}},
      {"rows", {{{"name", "a"}, {"n", 1}}, {{"name", "b"}, {"n", 2}}}}};
  EXPECT_EQ(text_of(description),
            "parameters  3,146,285\n"
            "flops       12.35 G\n"
            "peak_bytes  3 MiB\n"
            "list        1, 2, 3\n"
            "inner\n"
            "  yes  yes\n"
            "  x    -\n"
            "rows\n"
            "  a  1\n"
            "  b  2\n");
}

}  // namespace
}  // namespace vireo
