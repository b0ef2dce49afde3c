#include "apps/engine/prediction.h"

#include <fstream>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/engine/folder_lock.h"
#include "tests/support/exif.h"
#include "tests/support/predicted_cases.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"
#include "vision/io/nifti_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using test::all_orientations;
using test::kObjectValue;
using test::made_geometry;
using test::made_volume;
using test::Place;
using test::place_of;
using test::plain_preparation;
using test::Predict;
using test::text;
using test::threshold_model;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

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

// The network of the orientations above: it marks the pixel to the right of each bright one.
TEST_F(Predict, ShowsTheNetworkPhotographsUpright) {
  at::Tensor picture = at::zeros({1, 1, 40, 64}, at::kByte);
  picture.narrow(2, 8, 8).narrow(3, 32, 16).fill_(250);
  write_image(in() / "held.jpg", picture, {{1, 40, 64}});
  test::set_exif_orientation(in() / "held.jpg", 6);  // shown turned to the right by a quarter
  TrainedModel trained = test::fake_model(1, 2, [](const at::Tensor& image) {
    const at::Tensor logit = (image.roll(1, 3) - 50) * 20;
    return at::cat({-logit, logit}, 1);
  });
  trained.preparation = plain_preparation();
  ASSERT_THAT(predict({trained}, options()).problems, IsEmpty());
  // To the right as shown is up as stored.
  EXPECT_TRUE(at::equal(read_labels(out() / "held.png").values,
                        (picture.roll(-1, 2) > 0).to(at::kInt) * kObjectValue));
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

TEST_F(Predict, RedoesCasesOfWhichAFileIsGoneOrWasAskedForOtherwise) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  const std::vector<TrainedModel> models{threshold_model(plain_preparation())};
  PredictionOptions asked = options();
  asked.keep_done = true;
  asked.also.choose({"seg-nrrd"});
  EXPECT_EQ(predict(models, asked).predicted, 1);
  EXPECT_EQ(predict(models, asked).kept, 1);
  fs::remove(out() / "a.seg.nrrd");
  EXPECT_EQ(predict(models, asked).predicted, 1);
  EXPECT_TRUE(fs::exists(out() / "a.seg.nrrd"));
  asked.dicom.tilt = true;
  EXPECT_EQ(predict(models, asked).predicted, 1) << "other allowances";
}

TEST_F(Predict, KeepsTheRecordOfCasesThatAnotherInputHolds) {
  const Volume volume = made_volume(made_geometry({2, 1, 0}, {1, 1, 1}));
  for (const char* name : {"a.nii.gz", "b.nii.gz"}) put(name, volume);
  const std::vector<TrainedModel> models{threshold_model(plain_preparation())};
  PredictionOptions one = options();
  one.keep_done = true;
  for (const char* name : {"a.nii.gz", "b.nii.gz"}) {
    one.input = in() / name;
    EXPECT_EQ(predict(models, one).predicted, 1);
  }
  EXPECT_EQ(json("manifest.json")["cases"].size(), 2u);
  EXPECT_EQ(json("statistics.json")["cases"].size(), 2u);
}

TEST_F(Predict, NeverReplacesAnImageBesideTheInput) {
  put("a.nii", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  write_text_atomically(in() / "a.nii.gz", "another image of that name");
  const TrainedModel model = threshold_model(plain_preparation());
  PredictionOptions given = options();
  given.output = in();
  given.input = in() / "a.nii";
  EXPECT_THAT(message({model}, given), HasSubstr("would be overwritten by the labels of a"));
  EXPECT_EQ(text(in() / "a.nii.gz"), "another image of that name");
  fs::remove(in() / "a.nii.gz");
  EXPECT_EQ(predict({model}, given).predicted, 1);
  EXPECT_EQ(predict({model}, given).predicted, 1) << "what it wrote itself may be replaced";
}

TEST_F(Predict, RefusesAFolderThatAnotherRunWritesTo) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  const FolderLock lock(out(), "writing to");
  EXPECT_THAT(message({threshold_model(plain_preparation())}, options()),
              HasSubstr("another process is writing to this folder"));
}

TEST_F(Predict, RecordsWarningsAndProblemsWithoutFolders) {
  put("a.nii.gz", {at::zeros({1, 13, 26, 20}), made_geometry({2, 1, 0}, {1, 1, 1})});
  write_text_atomically(in() / "M\xfcller.nii.gz", "no image, and no UTF-8 name");
  PredictionOptions asked = options();
  asked.also.choose({"seg-nrrd"});
  const TrainedModel warner = test::fake_model(1, 2, [](const at::Tensor& image) {
    log_warning("something odd");
    return at::cat({-image, image}, 1);
  });
  TrainedModel trained = warner;
  trained.preparation = plain_preparation();
  const PredictionSummary summary = predict({trained}, asked);
  EXPECT_EQ(summary.predicted, 1);
  EXPECT_EQ(summary.problems.size(), 1u);
  const nlohmann::json manifest = json("manifest.json");
  EXPECT_THAT(manifest["warnings"], Contains("something odd"));
  ASSERT_EQ(manifest["problems"].size(), 1u);
  EXPECT_THAT(manifest["problems"][0].get<std::string>(), Not(HasSubstr(folder_.string())));
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

TEST_F(Predict, RefusesDicomOutputsOfOtherFilesBeforeItPredicts) {
  put("a.nii", made_volume(made_geometry({0, 1, 2}, {1, 1, 1})));
  TrainedModel trained = test::fake_model(
      1, 2, [](const at::Tensor&) -> at::Tensor { throw Error("the network was asked"); });
  trained.preparation = plain_preparation();
  for (const std::string format : {"dicom-seg", "rtstruct"}) {
    PredictionOptions asked = options();
    asked.also.choose({"seg-nrrd", format});
    const PredictionSummary summary = predict({trained}, asked);
    EXPECT_EQ(summary.predicted, 0);
    EXPECT_THAT(summary.problems,
                ElementsAre(AllOf(HasSubstr("a.nii"),
                                  HasSubstr("is no DICOM image, and --also " + format),
                                  HasSubstr("seg-nrrd"))));
  }
}

TEST_F(Predict, RefusesWhatCannotGoWell) {
  put("a.nii.gz", made_volume(made_geometry({2, 1, 0}, {1, 1, 1})));
  const TrainedModel good = threshold_model(plain_preparation());

  PredictionOptions given = options();
  given.output = in();
  EXPECT_THAT(message({good}, given),
              AllOf(HasSubstr("a.nii.gz: would be overwritten by the labels of a"),
                    HasSubstr("choose another output folder")));

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

}  // namespace
}  // namespace vireo
