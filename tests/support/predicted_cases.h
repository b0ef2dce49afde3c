#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "apps/engine/prediction.h"
#include "tests/support/fake_model.h"
#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/image_file.h"

// An object without symmetry on grids of any orientation, a network that finds it, and a folder to
// predict in.
namespace vireo::test {

inline constexpr int64_t kObjectValue = 7;

inline Preparation plain_preparation(int64_t value = kObjectValue) {
  Preparation preparation;
  preparation.dataset_name = "made";
  preparation.channels = {{"CT", ChannelNormalization::Kind::kNone}};
  preparation.labels = {{"background", 0, {}}, {"object", value, {200, 30, 30}}};
  return preparation;
}

inline TrainedModel threshold_model(const Preparation& preparation) {
  TrainedModel trained = threshold_model(50);
  trained.preparation = preparation;
  return trained;
}

// Three boxes of different sizes, so that no mirroring or turning leaves the object as it was;
// LPS millimetres.
inline bool in_object(const Vector3& p) {
  const auto box = [&](double x0, double x1, double y0, double y1, double z0, double z1) {
    return p[0] > x0 && p[0] < x1 && p[1] > y0 && p[1] < y1 && p[2] > z0 && p[2] < z1;
  };
  return box(-8, 9, -12, -4, -7, 8) || box(2, 9, -4, 11, -7, -1) || box(-8, -3, -4, 4, 2, 8);
}

inline Volume made_volume(const Geometry& geometry) {
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
inline Geometry made_geometry(const std::array<int, 3>& axes,
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

inline std::vector<Geometry> all_orientations() {
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

inline Place place_of(const Volume& labels) {
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

inline std::string text(const std::filesystem::path& path) {
  return read_text(path);
}

class Predict : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_quiet(true);
    std::filesystem::create_directories(in());
    write_text_atomically(folder_ / "weights.safetensors", "weights");
  }

  std::filesystem::path in() const { return folder_ / "in"; }
  std::filesystem::path out() const { return folder_ / "out"; }

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

  std::filesystem::path folder_ = scratch_folder();
};

}  // namespace vireo::test
