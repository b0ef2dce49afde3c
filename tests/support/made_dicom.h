#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include "vision/core/error.h"
#include "vision/image/geometry.h"
#include "vision/io/dicom/dicom_volume.h"

// DICOM files made by the tests.
namespace vireo::test {

/// One slice of int16 or uint16 pixels and what its header says.
struct MadeSlice {
  std::vector<int16_t> pixels;  ///< [rows * columns]
  int rows = 0, columns = 0;
  Vector3 position_lps_mm{};
  Vector3 x_lps{1, 0, 0}, y_lps{0, 1, 0};
  double spacing_y_mm = 1, spacing_x_mm = 1;
  int instance = 1;
  std::string series_uid = "1.2.826.0.1.3680043.10.1", sop_uid, image_type = "ORIGINAL\\PRIMARY";
  std::string photometric = "MONOCHROME2", slope, intercept, echo;
  std::string modality = "CT";
  int bits_stored = 16;
  bool is_signed = true;
  /// What is changed of the whole, last of all; may be empty.
  std::function<void(DcmItem&)> change;
};

inline std::string decimals(std::initializer_list<double> values) {
  std::string text;
  for (const double value : values) {
    char number[32];
    std::snprintf(number, sizeof number, "%s%.10g", text.empty() ? "" : "\\", value);
    text += number;
  }
  return text;
}

inline void put(DcmItem& item, const DcmTagKey& tag, const std::string& value) {
  item.putAndInsertString(tag, value.c_str());
}

inline void write_slice(const std::filesystem::path& path,
                        const MadeSlice& slice,
                        E_TransferSyntax syntax = EXS_LittleEndianExplicit) {
  DcmFileFormat format;
  DcmDataset& item = *format.getDataset();
  put(item, DCM_SOPClassUID, UID_CTImageStorage);
  put(item,
      DCM_SOPInstanceUID,
      slice.sop_uid.empty() ? slice.series_uid + ".9." + std::to_string(slice.instance)
                            : slice.sop_uid);
  put(item, DCM_StudyInstanceUID, "1.2.826.0.1.3680043.10");
  put(item, DCM_SeriesInstanceUID, slice.series_uid);
  put(item, DCM_FrameOfReferenceUID, "1.2.826.0.1.3680043.10.7");
  put(item, DCM_Modality, slice.modality);
  put(item, DCM_ImageType, slice.image_type);
  put(item, DCM_InstanceNumber, std::to_string(slice.instance));
  if (!slice.echo.empty()) put(item, DCM_EchoNumbers, slice.echo);
  const Vector3 &p = slice.position_lps_mm, &x = slice.x_lps, &y = slice.y_lps;
  put(item, DCM_ImagePositionPatient, decimals({p[0], p[1], p[2]}));
  put(item, DCM_ImageOrientationPatient, decimals({x[0], x[1], x[2], y[0], y[1], y[2]}));
  put(item, DCM_PixelSpacing, decimals({slice.spacing_y_mm, slice.spacing_x_mm}));
  put(item, DCM_PhotometricInterpretation, slice.photometric);
  if (!slice.slope.empty()) put(item, DCM_RescaleSlope, slice.slope);
  if (!slice.intercept.empty()) put(item, DCM_RescaleIntercept, slice.intercept);
  const auto number = [&](const DcmTagKey& tag, int value) {
    item.putAndInsertUint16(tag, static_cast<Uint16>(value));
  };
  number(DCM_SamplesPerPixel, 1);
  number(DCM_Rows, slice.rows);
  number(DCM_Columns, slice.columns);
  number(DCM_BitsAllocated, 16);
  number(DCM_BitsStored, slice.bits_stored);
  number(DCM_HighBit, slice.bits_stored - 1);
  number(DCM_PixelRepresentation, slice.is_signed ? 1 : 0);
  std::vector<Uint16> words(slice.pixels.size());
  std::memcpy(words.data(), slice.pixels.data(), words.size() * 2);
  item.putAndInsertUint16Array(DCM_PixelData, words.data(), words.size());
  if (slice.change) slice.change(item);
  format.saveFile(path.c_str(), syntax);
}

/// The slices of a grid in its own order, pixels counting up from `first_value`.
inline std::vector<MadeSlice> slices_of(const Geometry& grid, int16_t first_value = 0) {
  std::vector<MadeSlice> slices;
  const auto axis = [&](int which) {
    return Vector3{grid.direction_lps_from_zyx[0][which],
                   grid.direction_lps_from_zyx[1][which],
                   grid.direction_lps_from_zyx[2][which]};
  };
  int16_t value = first_value;
  for (int64_t z = 0; z < grid.size_zyx[0]; ++z) {
    MadeSlice slice;
    slice.rows = static_cast<int>(grid.size_zyx[1]);
    slice.columns = static_cast<int>(grid.size_zyx[2]);
    slice.position_lps_mm = grid.lps_from_voxel({static_cast<double>(z), 0, 0});
    slice.x_lps = axis(2);
    slice.y_lps = axis(1);
    slice.spacing_y_mm = grid.spacing_mm_zyx[1];
    slice.spacing_x_mm = grid.spacing_mm_zyx[2];
    slice.instance = static_cast<int>(z) + 1;
    for (int i = 0; i < slice.rows * slice.columns; ++i) slice.pixels.push_back(value++);
    slices.push_back(slice);
  }
  return slices;
}

/// A small stack of unequal sizes and steps.
inline Geometry plain_grid() {
  Geometry grid;
  grid.size_zyx = {5, 4, 6};
  grid.spacing_mm_zyx = {2.5, 0.75, 1.25};
  grid.origin_lps_mm = {-10.5, 20.25, 30.125};
  return grid;
}

/// Written under names that say nothing, with instance numbers that mislead.
inline void write_shuffled(const std::filesystem::path& folder, std::vector<MadeSlice> slices) {
  std::mt19937 random(7);
  std::shuffle(slices.begin(), slices.end(), random);
  for (size_t i = 0; i < slices.size(); ++i) {
    slices[i].instance = static_cast<int>(i) + 1;
    write_slice(folder / ("IM" + std::to_string(random() % 100000)), slices[i]);
  }
}

/// Why a series is no volume; empty: it is one.
inline std::string refusal(const DicomSeries& series, const DicomAllowances& allowed = {}) {
  try {
    read_dicom_series(series, allowed);
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

/// Makes a data set one of `samples` 8-bit values a pixel, all 7.
inline void put_octets(DcmItem& item, int samples, int rows, int columns) {
  const std::vector<Uint8> pixels(static_cast<size_t>(samples * rows * columns) + 1, 7);
  const auto number = [&](const DcmTagKey& tag, int value) {
    item.putAndInsertUint16(tag, static_cast<Uint16>(value));
  };
  number(DCM_SamplesPerPixel, samples);
  number(DCM_Rows, rows);
  number(DCM_Columns, columns);
  number(DCM_BitsAllocated, 8);
  number(DCM_BitsStored, 8);
  number(DCM_HighBit, 7);
  number(DCM_PixelRepresentation, 0);
  item.putAndInsertUint8Array(DCM_PixelData, pixels.data(), pixels.size() / 2 * 2);
}

}  // namespace vireo::test
