// Odd, rare and broken NIfTI and DICOM files, against what NiBabel and pydicom say of them.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/test_data.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/sha256.h"
#include "vision/io/dicom/dicom_file.h"
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

// The stored integers that values came from, as bytes of numpy's type `dtype`.
std::string stored_bytes(const DicomFile& file,
                         const at::Tensor& values,
                         const std::string& dtype) {
  const std::map<std::string, at::ScalarType> types = {{"u1", at::kByte},
                                                       {"uint8", at::kByte},
                                                       {"uint16", at::kUInt16},
                                                       {">u2", at::kUInt16},
                                                       {"int16", at::kShort},
                                                       {">i2", at::kShort},
                                                       {"int32", at::kInt},
                                                       {"uint32", at::kUInt32},
                                                       {">u4", at::kUInt32}};
  std::string bytes;
  for (int64_t f = 0; f < values.size(0); ++f) {
    const DicomFrame& frame = file.frames[static_cast<size_t>(f)];
    at::Tensor stored = ((values[f].to(at::kDouble) - frame.intercept) / frame.slope).round();
    if (file.photometric == "MONOCHROME1") stored = std::ldexp(1.0, file.bits_stored) - 1 - stored;
    const at::Tensor typed = stored.permute({1, 2, 0}).contiguous().to(types.at(dtype));
    bytes.append(static_cast<const char*>(typed.const_data_ptr()), typed.nbytes());
  }
  return bytes;
}

// Pictures that pydicom reads and we refuse.
const std::set<std::string> kNotDecoded = {
    "dicom/pydicom_testfiles/SC_rgb_jpeg.dcm",   // its sequence of fragments has no end
    "dicom/pydicom_testfiles/liver_1frame.dcm",  // one frame is declared, three are described
    // Compressed in ways that the libraries here do not know.
    "dicom/pydicom_data/HTJ2KLossless_08_RGB.dcm",
    "dicom/pydicom_data/HTJ2K_08_RGB.dcm",
    "dicom/pydicom_data/JLSL_08_07_0_1F.dcm"};
// Broken in a way that nothing tells: a JPEG 2000 stream has no checksum.
const std::string kUndetectable = "dicom/invalid/corrupt_j2k_payload.dcm";

// Decoders of lossy data may differ by a grey level or two.
bool is_lossy(const DicomFile& file) {
  for (const char* syntax : {".4.50", ".4.51", ".4.81", ".4.91"})
    if (file.transfer_syntax_uid.ends_with(syntax)) return true;
  return false;
}

TEST(Robustness, EveryDicomFileIsReadRightOrRefused) {
  VIREO_REQUIRE_REAL_DATA(folder, "robustness");
  const json expected = json::parse(read_text(folder / "expected.json"));
  int equal = 0, near = 0, refused = 0;
  for (const auto& [name, report] : expected.items()) {
    if (!name.starts_with("dicom/") || !report.contains("pydicom")) continue;
    SCOPED_TRACE(name);
    const json& pydicom = report["pydicom"];
    const json pixels = pydicom.is_object() ? pydicom.value("pixels", json()) : json();
    const bool comparable = pixels.contains("sha256") && pixels["range"].is_array();
    DicomFile file;
    at::Tensor values;
    try {
      file = read_dicom_header(folder / name);
      values = read_dicom_pixels(file);
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), ::testing::StartsWith(folder.string()));
      EXPECT_TRUE(!comparable || report.value("invalid", false) || kNotDecoded.contains(name))
          << error.what();
      ++refused;
      continue;
    }
    EXPECT_TRUE(!report.value("invalid", false) || name == kUndetectable);
    const std::string dtype = pixels.value("dtype", "");
    // pydicom leaves palettes alone.
    if (!comparable || file.photometric == "PALETTE COLOR" || file.has_modality_lut ||
        name == kUndetectable)
      continue;
    // float32 holds integers of up to 24 bits.
    const bool exact = !is_lossy(file) && dtype.find("32") == std::string::npos &&
                       dtype.find("u4") == std::string::npos &&
                       dtype.find("float") == std::string::npos;
    if (exact) {
      EXPECT_EQ(sha256(stored_bytes(file, values, dtype)), pixels["sha256"])
          << file.transfer_syntax_uid << " " << file.photometric << " " << values.sizes();
      ++equal;
      continue;
    }
    if (file.photometric == "MONOCHROME1") continue;
    for (const bool low : {true, false}) {
      const double wanted = number(pixels["range"][low ? 0 : 1]);
      const DicomFrame& frame = file.frames[0];
      const double found =
          ((low ? values.min() : values.max()).item<double>() - frame.intercept) / frame.slope;
      EXPECT_NEAR(found, wanted, is_lossy(file) ? 2.5 : 1e-6 * std::abs(wanted));
    }
    ++near;
  }
  EXPECT_GT(equal, 170);
  EXPECT_GT(near, 20);
  EXPECT_GT(refused, 20);
  std::cout << equal << " equal, " << near << " near, " << refused << " refused\n";
}

}  // namespace
}  // namespace vireo
