#include "apps/engine/prediction.h"

#include <cmath>
#include <fstream>
#include <sstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kernels/process_memory.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"
#include "vision/io/nifti_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr int64_t kObjectValue = 7;

Preparation plain_preparation(int64_t value = kObjectValue) {
  Preparation preparation;
  preparation.dataset_name = "made";
  preparation.channels = {{"CT", ChannelNormalization::Kind::kNone}};
  preparation.labels = {{"background", 0, {}}, {"object", value, {200, 30, 30}}};
  return preparation;
}

TrainedModel threshold_model(const Preparation& preparation) {
  TrainedModel trained = test::threshold_model(50);
  trained.preparation = preparation;
  return trained;
}

// Three boxes of different sizes, so that no mirroring or turning leaves the object as it was;
// LPS millimetres.
bool in_object(const Vector3& p) {
  const auto box = [&](double x0, double x1, double y0, double y1, double z0, double z1) {
    return p[0] > x0 && p[0] < x1 && p[1] > y0 && p[1] < y1 && p[2] > z0 && p[2] < z1;
  };
  return box(-8, 9, -12, -4, -7, 8) || box(2, 9, -4, 11, -7, -1) || box(-8, -3, -4, 4, 2, 8);
}

Volume made_volume(const Geometry& geometry) {
  const auto [depth, height, width] = geometry.size_zyx;
  Volume volume{at::zeros({1, depth, height, width}), geometry};
  auto values = volume.values.accessor<float, 4>();
  for (int64_t z = 0; z < depth; ++z)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        if (in_object(geometry.lps_from_voxel(
                {static_cast<double>(z), static_cast<double>(y), static_cast<double>(x)})))
          values[0][z][y][x] = 100;
  return volume;
}

// A grid around the object whose index axes (z, y, x) run along the world axes axes[i], backwards
// where signs[i] < 0; turned by `degrees` about the axis (1, 1, 1).
Geometry made_geometry(const std::array<int, 3>& axes,
                       const std::array<int, 3>& signs,
                       double degrees = 0) {
  const Vector3 spacing_of_world{1.5, 1.25, 2.5};
  const std::array<int64_t, 3> size_of_world{20, 26, 13};
  const double c = std::cos(degrees * M_PI / 180),
               s = std::sin(degrees * M_PI / 180) / std::sqrt(3);
  const double t = (1 - c) / 3;
  const Matrix3 turn{{{c + t, t - s, t + s}, {t + s, c + t, t - s}, {t - s, t + s, c + t}}};
  Geometry geometry;
  for (int i = 0; i < 3; ++i) {
    geometry.size_zyx[i] = size_of_world[axes[i]];
    geometry.spacing_mm_zyx[i] = spacing_of_world[axes[i]];
    for (int world = 0; world < 3; ++world)
      geometry.direction_lps_from_zyx[world][i] = signs[i] * turn[world][axes[i]];
  }
  Vector3 middle{};
  for (int i = 0; i < 3; ++i) middle[i] = static_cast<double>(geometry.size_zyx[i] - 1) / 2;
  const Vector3 centre = geometry.lps_from_voxel(middle);
  for (int i = 0; i < 3; ++i) geometry.origin_lps_mm[i] += 0.4 * (i + 1) - centre[i];
  return geometry;
}

std::vector<Geometry> all_orientations() {
  std::vector<Geometry> all;
  std::array<int, 3> axes{0, 1, 2};
  do {
    for (int signs = 0; signs < 8; ++signs)
      all.push_back(
          made_geometry(axes, {signs & 1 ? -1 : 1, signs & 2 ? -1 : 1, signs & 4 ? -1 : 1}));
  } while (std::next_permutation(axes.begin(), axes.end()));
  all.push_back(made_geometry({2, 1, 0}, {1, 1, 1}, 20));
  all.push_back(made_geometry({0, 2, 1}, {1, -1, 1}, -33));
  return all;
}

// Where a mask lies, by its own file's geometry.
struct Place {
  double volume_mm3 = 0;
  Vector3 centroid_lps_mm{};
};

Place place_of(const Volume& labels) {
  Place place;
  const at::Tensor points = labels.values[0].nonzero();
  const auto rows = points.accessor<int64_t, 2>();
  for (int64_t i = 0; i < points.size(0); ++i) {
    const Vector3 at = labels.geometry.lps_from_voxel({static_cast<double>(rows[i][0]),
                                                       static_cast<double>(rows[i][1]),
                                                       static_cast<double>(rows[i][2])});
    for (int k = 0; k < 3; ++k)
      place.centroid_lps_mm[k] += at[k] / static_cast<double>(points.size(0));
  }
  place.volume_mm3 = static_cast<double>(points.size(0)) * labels.geometry.voxel_volume_mm3();
  return place;
}

std::string text(const fs::path& path) {
  return read_text(path);
}

class Predict : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_quiet(true);
    fs::create_directories(in());
    write_text_atomically(folder_ / "weights.safetensors", "weights");
  }

  fs::path in() const { return folder_ / "in"; }
  fs::path out() const { return folder_ / "out"; }

  PredictionOptions options() const {
    PredictionOptions options;
    options.input = in();
    options.output = out();
    options.preview = false;
    options.model_files = {folder_ / "weights.safetensors"};
    options.version = "9.9";
    return options;
  }

  void put(const std::string& name, const Volume& volume) const {
    write_image(in() / name, volume.values, volume.geometry);
  }
  nlohmann::json json(const std::string& name) const {
    return nlohmann::json::parse(text(out() / name));
  }
  static std::string message(const std::vector<TrainedModel>& models,
                             const PredictionOptions& options) {
    try {
      predict(models, options);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  fs::path folder_ = test::scratch_folder();
};

TEST_F(Predict, KeepsTheObjectInPlaceForEveryOrientation) {
  const auto geometries = all_orientations();
  ASSERT_EQ(geometries.size(), 50u);
  for (size_t i = 0; i < geometries.size(); ++i)
    put("case" + std::to_string(i) + ".nii", made_volume(geometries[i]));
  for (const int axis : {-1, 2}) {
    Preparation preparation = plain_preparation();
    preparation.slice_axis_by_spacing = axis < 0;
    preparation.slice_axis_zyx = std::max(axis, 0);
    const PredictionSummary summary = predict({threshold_model(preparation)}, options());
    EXPECT_EQ(summary.predicted, 50);
    ASSERT_THAT(summary.problems, IsEmpty());
    for (size_t i = 0; i < geometries.size(); ++i) {
      const std::string name = "case" + std::to_string(i);
      SCOPED_TRACE(name + " " + geometries[i].orientation_xyz());
      const Volume truth = made_volume(geometries[i]);
      const Volume labels = read_labels(out() / (name + ".nii.gz"));
      EXPECT_EQ(difference(labels.geometry, truth.geometry), "");
      ASSERT_TRUE(at::equal(labels.values, (truth.values > 50).to(at::kInt) * kObjectValue));
      const io::NiftiHeader given = io::read_nifti_header(out() / (name + ".nii.gz"));
      const io::NiftiHeader source = io::read_nifti_header(in() / (name + ".nii"));
      EXPECT_EQ(given.srow, source.srow);
      EXPECT_EQ(given.quatern_bcd, source.quatern_bcd);
      EXPECT_EQ(given.qoffset_xyz, source.qoffset_xyz);
      EXPECT_EQ(given.pixdim, source.pixdim);
      EXPECT_EQ(given.datatype, 2) << "uint8";
    }
  }
}

// A network that marks the pixel behind each bright one shows which way it sees the axes grow.
TEST_F(Predict, ShowsTheNetworkEveryVolumeAsInTraining) {
  const auto geometries = all_orientations();
  for (size_t i = 0; i < 48; ++i)
    put("case" + std::to_string(i) + ".nii", made_volume(geometries[i]));
  TrainedModel trained = test::fake_model(1, 2, [](const at::Tensor& image) {
    const at::Tensor logit = (image.roll(1, 3) - 50) * 20;
    return at::cat({-logit, logit}, 1);
  });
  trained.preparation = plain_preparation();
  trained.preparation.slice_axis_by_spacing = false;
  trained.preparation.orientation_xyz = "RPS";  // x towards the right: down the L axis of LPS
  PredictionOptions with_probabilities = options();
  with_probabilities.probabilities = true;
  ASSERT_THAT(predict({trained}, with_probabilities).problems, IsEmpty());
  for (size_t i = 0; i < 48; ++i) {
    const std::string name = "case" + std::to_string(i);
    SCOPED_TRACE(name + " " + geometries[i].orientation_xyz());
    const Volume truth = made_volume(geometries[i]);
    const Volume labels = read_labels(out() / (name + ".nii.gz"));
    EXPECT_EQ(difference(labels.geometry, truth.geometry), "");
    const Place given = place_of(labels), object = place_of({truth.values > 50, truth.geometry});
    EXPECT_NEAR(given.volume_mm3, object.volume_mm3, 1e-6);
    EXPECT_NEAR(given.centroid_lps_mm[0] - object.centroid_lps_mm[0], -1.5, 1e-6);
    EXPECT_NEAR(given.centroid_lps_mm[1] - object.centroid_lps_mm[1], 0, 1e-6);
    EXPECT_NEAR(given.centroid_lps_mm[2] - object.centroid_lps_mm[2], 0, 1e-6);
    const Volume shares = read_image(out() / (name + "_probabilities.nii.gz"));
    EXPECT_TRUE(at::equal(shares.values[1] > 0.5, labels.values[0] > 0));
  }
}

TEST_F(Predict, KeepsTheObjectInPlaceWhenThePreparedGridIsAnother) {
  const auto geometries = all_orientations();
  for (size_t i = 0; i < geometries.size(); ++i)
    put("case" + std::to_string(i) + ".nii", made_volume(geometries[i]));
  Preparation preparation = plain_preparation();
  preparation.spacing_mm = Vector3{1.9, 1.1, 1.4};
  ASSERT_THAT(predict({threshold_model(preparation)}, options()).problems, IsEmpty());
  for (size_t i = 0; i < geometries.size(); ++i) {
    const std::string name = "case" + std::to_string(i);
    SCOPED_TRACE(name + " " + geometries[i].orientation_xyz());
    Volume truth = made_volume(geometries[i]);
    const Volume labels = read_labels(out() / (name + ".nii.gz"));
    EXPECT_EQ(difference(labels.geometry, truth.geometry), "");
    const at::Tensor a = labels.values > 0, b = truth.values > 50;
    const double dice =
        2 * (a & b).sum().item<double>() / (a.sum().item<double>() + b.sum().item<double>());
    EXPECT_GT(dice, 0.9);
    const Place given = place_of(labels), expected = place_of({b, truth.geometry});
    EXPECT_NEAR(given.volume_mm3 / expected.volume_mm3, 1, 0.1);
    for (int k = 0; k < 3; ++k)
      EXPECT_NEAR(given.centroid_lps_mm[k], expected.centroid_lps_mm[k], 0.4);
  }
}

TEST_F(Predict, KeepsTheCodesOfTheHeader) {
  put("a.nii", made_volume(made_geometry({2, 1, 0}, {1, -1, -1}, 15)));
  {
    std::fstream file(in() / "a.nii", std::ios::in | std::ios::out | std::ios::binary);
    const int16_t codes[2] = {2, 4};  // qform_code, sform_code
    file.seekp(252);
    file.write(reinterpret_cast<const char*>(codes), sizeof codes);
  }
  ASSERT_THAT(predict({threshold_model(plain_preparation())}, options()).problems, IsEmpty());
  const io::NiftiHeader given = io::read_nifti_header(out() / "a.nii.gz");
  EXPECT_EQ(given.qform_code, 2);
  EXPECT_EQ(given.sform_code, 4);
}

TEST_F(Predict, WritesValuesBeyond255As16Bit) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  ASSERT_THAT(predict({threshold_model(plain_preparation(1000))}, options()).problems, IsEmpty());
  EXPECT_EQ(read_labels(out() / "a.nii.gz").values.max().item<int>(), 1000);
  EXPECT_EQ(io::read_nifti_header(out() / "a.nii.gz").datatype, 512);
}

TEST_F(Predict, AnswersInTheInputsFormat) {
  const Volume volume = made_volume(made_geometry({2, 1, 0}, {1, 1, 1}));
  put("a.nrrd", volume);
  put("b.mha", volume);
  put("c.nii", volume);
  ASSERT_THAT(predict({threshold_model(plain_preparation())}, options()).problems, IsEmpty());
  for (const char* name : {"a.nrrd", "b.mha", "c.nii.gz"}) {
    const Volume labels = read_labels(out() / name);
    EXPECT_EQ(difference(labels.geometry, volume.geometry), "");
    EXPECT_TRUE(at::equal(labels.values, (volume.values > 50).to(at::kInt) * kObjectValue));
  }
}

TEST_F(Predict, TurnsPicturesIntoMasksOfTheirValues) {
  at::Tensor picture = at::zeros({1, 1, 40, 60}, at::kByte);
  picture.narrow(2, 5, 10).narrow(3, 30, 20).fill_(180);
  write_image(in() / "cell_0001.png", picture, {{1, 40, 60}});
  write_image(in() / "cell_0002.bmp", picture.flip({3}), {{1, 40, 60}});
  ASSERT_THAT(predict({threshold_model(plain_preparation(255))}, options()).problems, IsEmpty());
  EXPECT_TRUE(
      at::equal(read_labels(out() / "cell_0001.png").values, (picture > 0).to(at::kInt) * 255));
  EXPECT_TRUE(at::equal(read_labels(out() / "cell_0002.png").values,
                        (picture.flip({3}) > 0).to(at::kInt) * 255));
}

TEST_F(Predict, ReadsChannelsFromTheirFiles) {
  const Geometry geometry = made_geometry({2, 1, 0}, {1, 1, 1});
  const Volume object = made_volume(geometry);
  put("a_0000.nii.gz", {at::zeros_like(object.values), geometry});
  put("a_0001.nii.gz", object);
  Preparation preparation = plain_preparation();
  preparation.channels.push_back({"PET", ChannelNormalization::Kind::kNone});
  TrainedModel trained = test::threshold_model(50, 2, 1);
  trained.preparation = preparation;
  ASSERT_THAT(predict({trained}, options()).problems, IsEmpty());
  EXPECT_TRUE(at::equal(read_labels(out() / "a.nii.gz").values > 0, object.values > 50));

  Geometry moved = geometry;
  moved.origin_lps_mm[0] += 3;
  put("a_0000.nii.gz", {at::zeros_like(object.values), moved});
  EXPECT_THAT(predict({trained}, options()).problems,
              ElementsAre(HasSubstr("a_0001.nii.gz: its grid is not that of a_0000.nii.gz")));
}

TEST_F(Predict, GoesOnAfterABrokenCase) {
  const Volume volume = made_volume(made_geometry({2, 1, 0}, {1, 1, 1}));
  put("a.nii.gz", volume);
  put("c.nii.gz", volume);
  Volume broken = made_volume(made_geometry({2, 1, 0}, {1, 1, 1}));
  broken.values[0][3][3][3] = NAN;
  put("d.nii.gz", broken);
  write_text_atomically(in() / "b.nii.gz", "this is no image");
  const PredictionSummary summary = predict({threshold_model(plain_preparation())}, options());
  EXPECT_EQ(summary.predicted, 2);
  EXPECT_THAT(summary.problems, ElementsAre(HasSubstr("b.nii.gz"), HasSubstr("d")));
  EXPECT_TRUE(fs::exists(out() / "a.nii.gz"));
  EXPECT_TRUE(fs::exists(out() / "c.nii.gz"));
  EXPECT_FALSE(fs::exists(out() / "d.nii.gz"));
  EXPECT_EQ(json("manifest.json")["problems"].size(), 2u);
}

TEST_F(Predict, TellsVolumesAndIntensities) {
  const Volume volume = made_volume(made_geometry({2, 1, 0}, {1, 1, 1}));
  put("a.nii.gz", volume);
  predict({threshold_model(plain_preparation())}, options());
  const nlohmann::json statistics = json("statistics.json")["cases"]["a"]["object"];
  const Place truth = place_of({volume.values > 50, volume.geometry});
  EXPECT_NEAR(statistics["volume_ml"], truth.volume_mm3 / 1000, 1e-9);
  EXPECT_EQ(statistics["value"], kObjectValue);
  EXPECT_EQ(statistics["mean_intensity"], 100.0);
  EXPECT_EQ(statistics["sd_intensity"], 0.0);
}

TEST_F(Predict, LeavesAManifestWithoutFolders) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  PredictionOptions given = options();
  given.command_line = {"vireo", "predict"};
  predict({threshold_model(plain_preparation())}, given);
  const nlohmann::json manifest = json("manifest.json");
  EXPECT_EQ(manifest["version"], "9.9");
  EXPECT_EQ(manifest["command"], (std::vector<std::string>{"vireo", "predict"}));
  EXPECT_EQ(manifest["device"], "cpu");
  EXPECT_EQ(manifest["models"][0]["file"], "weights.safetensors");
  EXPECT_EQ(manifest["models"][0]["sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(manifest["cases"][0]["inputs"][0]["file"], "a.nii.gz");
  EXPECT_EQ(manifest["cases"][0]["inputs"][0]["sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(manifest["cases"][0]["output"], "a.nii.gz");
  EXPECT_EQ(manifest["cases"][0]["size_xyz"], (std::vector<int64_t>{20, 26, 13}));
  EXPECT_GT(manifest["peak_memory_bytes"], 1 << 20);
  EXPECT_GE(manifest["seconds"]["network"], 0.0);
  EXPECT_THAT(text(out() / "manifest.json"), Not(HasSubstr(folder_.string())));
}

TEST_F(Predict, WritesProbabilitiesAndNamesWhenAsked) {
  const Volume volume = made_volume(made_geometry({0, 2, 1}, {1, -1, 1}));
  put("a.nii", volume);
  PredictionOptions given = options();
  given.probabilities = given.labels_json = true;
  Preparation preparation = plain_preparation();
  preparation.spacing_mm = Vector3{2, 1.5, 1.5};
  predict({threshold_model(preparation)}, given);
  const Volume probabilities = read_image(out() / "a_probabilities.nii.gz");
  EXPECT_EQ(difference(probabilities.geometry, volume.geometry), "");
  ASSERT_EQ(probabilities.values.size(0), 2);
  EXPECT_TRUE(at::allclose(probabilities.values.sum(0), at::ones({1}), 1e-5, 1e-5));
  EXPECT_TRUE(at::equal(probabilities.values.argmax(0),
                        read_labels(out() / "a.nii.gz").values[0].gt(0).to(at::kLong)));
  EXPECT_EQ(json("a.labels.json")[1]["name"], "object");
  EXPECT_EQ(json("a.labels.json")[1]["value"], kObjectValue);
  for (const auto& entry : fs::directory_iterator(out()))
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr("vireo-tmp")));
}

TEST_F(Predict, ContinuesWithWhatIsNotDone) {
  const Geometry geometry = made_geometry({2, 1, 0}, {1, 1, 1});
  for (const char* name : {"a.nii.gz", "b.nii.gz", "c.nii.gz"}) put(name, made_volume(geometry));
  const std::vector<TrainedModel> models{threshold_model(plain_preparation())};
  PredictionOptions again = options();
  again.keep_done = true;
  EXPECT_EQ(predict(models, again).predicted, 3) << "nothing to continue";
  EXPECT_EQ(predict(models, options()).predicted, 3) << "anew unless asked";

  PredictionSummary summary = predict(models, again);
  EXPECT_EQ(summary.predicted, 0);
  EXPECT_EQ(summary.kept, 3);
  EXPECT_EQ(json("manifest.json")["cases"].size(), 3u);
  EXPECT_EQ(json("statistics.json")["cases"].size(), 3u);

  put("a.nii.gz", {at::zeros({1, 13, 26, 20}), geometry});     // another input
  write_text_atomically(out() / "b.nii.gz", "someone's own");  // another output
  summary = predict(models, again);
  EXPECT_EQ(summary.predicted, 2);
  EXPECT_EQ(summary.kept, 1);
  EXPECT_EQ(read_labels(out() / "a.nii.gz").values.max().item<int>(), 0);

  again.inference.overlap = 0.25;
  EXPECT_EQ(predict(models, again).predicted, 3) << "other settings";
  write_text_atomically(folder_ / "weights.safetensors", "other weights");
  EXPECT_EQ(predict(models, again).predicted, 3) << "other weights";
  write_text_atomically(out() / "manifest.json", "{ broken");
  EXPECT_EQ(predict(models, again).predicted, 3) << "a broken manifest";
}

TEST_F(Predict, DrawsAPreview) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  PredictionOptions given = options();
  given.preview = true;
  predict({threshold_model(plain_preparation())}, given);
  const Volume preview = read_image(out() / "preview.png");
  EXPECT_EQ(preview.values.size(0), 3);
  // The object's red is there, and more red than blue.
  EXPECT_GT((preview.values[0] > preview.values[2] + 60).sum().item<int64_t>(), 100);
}

TEST_F(Predict, RefusesWhatCannotGoWell) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  const TrainedModel good = threshold_model(plain_preparation());

  PredictionOptions given = options();
  given.output = in();
  EXPECT_THAT(message({good}, given), HasSubstr("would be overwritten by its own labels"));

  EXPECT_THAT(message({}, options()), HasSubstr("at least one model"));

  TrainedModel other = threshold_model(plain_preparation(9));
  EXPECT_THAT(message({good, other}, options()), HasSubstr("another preparation"));

  TrainedModel three = good;
  three.preparation.labels.push_back({"third", 8, {}});
  EXPECT_THAT(message({three}, options()), HasSubstr("2 classes, its preparation 3 labels"));

  given = options();
  given.input = folder_ / "gone";
  EXPECT_THAT(message({good}, given), HasSubstr("no such file or folder"));

  Preparation two_channels = plain_preparation();
  two_channels.channels.push_back(two_channels.channels[0]);
  TrainedModel wide = test::threshold_model(50, 2, 1);
  wide.preparation = two_channels;
  const auto problems = predict({wide}, options()).problems;
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_THAT(problems[0], HasSubstr("channel"));
}

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
