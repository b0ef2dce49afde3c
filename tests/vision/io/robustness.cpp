// Odd, rare and broken NIfTI files, against what NiBabel says of them.
#include <cmath>
#include <fstream>
#include <set>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Sound files that are refused on purpose: what they are has no place in a voxel grid, or says too
// little about space.
const std::set<std::string> kRefused = {
    "nifti/derived/affine_sheared_nonorthonormal.nii.gz",  // 2.9 degrees off a rotation
    "nifti/derived/analyze75_int16.hdr",                   // no orientation
    "nifti/derived/analyze75_int16.img",
    "nifti/derived/pair_float32_gz.img.gz",  // its header is not there
    "nifti/nibabel/analyze.hdr",
    "nifti/nibabel/nifti1.hdr",  // headers without voxels
    "nifti/nibabel/nifti2.hdr",
    "nifti/nibabel/row_major.dconn.nii",  // a connectivity matrix
    "nifti/nibabel/test.mgz",             // another format
};

double number(const json& value) {
  return value.is_number() ? value.get<double>() : NAN;
}

// Millimetres per unit of the header's xyzt_units.
double unit_of(const json& report) {
  switch (report.value("xyzt_units", 0) & 7) {
    case 1:
      return 1000;
    case 3:
      return 0.001;
    default:
      return 1;
  }
}

void expect_grid(const Geometry& grid, const json& nibabel) {
  const auto& shape = nibabel["shape"];
  for (size_t axis = 0; axis < 3; ++axis)
    EXPECT_EQ(grid.size_zyx[2 - axis], axis < shape.size() ? shape[axis].get<int64_t>() : 1);
  // Without either form NiBabel centres the image; we leave it at the origin, as ITK does.
  if (nibabel["sform_code"] == 0 && nibabel["qform_code"] == 0) return;
  const auto& affine = nibabel["affine"];
  const double unit = unit_of(nibabel);
  for (const Vector3 zyx : {Vector3{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}}) {
    if (grid.size_zyx[0] == 1 && zyx[0] != 0) continue;
    const Vector3 lps = grid.lps_from_voxel(zyx);
    for (size_t i = 0; i < 3; ++i) {
      double ras = affine[4 * i + 3];
      for (size_t axis = 0; axis < 3; ++axis)
        ras += affine[4 * i + axis].get<double>() * zyx[2 - axis];
      EXPECT_NEAR(lps[i] * (i < 2 ? -1 : 1), ras * unit, 1e-4 * unit);
    }
  }
}

TEST(Robustness, EveryNiftiFileIsReadRightOrRefused) {
  VIREO_REQUIRE_REAL_DATA(folder, "robustness");
  const json expected = json::parse(read_text(folder / "expected.json"));
  int read = 0, refused = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder / "nifti")) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().lexically_relative(folder).string();
    SCOPED_TRACE(name);
    Volume volume;
    ::testing::internal::CaptureStderr();
    try {
      volume = read_image(entry.path());
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), ::testing::StartsWith(folder.string()));
      EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
      EXPECT_TRUE(name.find("/invalid/") != std::string::npos || kRefused.contains(name))
          << error.what();
      ++refused;
      continue;
    }
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
    ++read;
    // The voxel file of a pair has no report of its own.
    if (!expected.contains(name) || !expected[name].contains("nibabel")) continue;
    EXPECT_FALSE(expected[name].value("invalid", false));
    EXPECT_FALSE(kRefused.contains(name));
    const json& nibabel = expected[name]["nibabel"];
    expect_grid(volume.geometry, nibabel);
    const json& range = nibabel["data"]["range"];
    if (range.is_array()) {
      const at::Tensor finite = volume.values.masked_select(at::isfinite(volume.values));
      const double low = number(range[0]), high = number(range[1]);
      EXPECT_NEAR(finite.min().item<double>(), low, 1e-6 * std::abs(low));
      EXPECT_NEAR(finite.max().item<double>(), high, 1e-6 * std::abs(high));
    }
  }
  EXPECT_GT(read, 40);
  EXPECT_GT(refused, 15);
}

}  // namespace
}  // namespace vireo
