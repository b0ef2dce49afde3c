#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "vision/image/volume.h"

// Image files in and out. The format is told by the extension:
//   .nii .nii.gz .hdr/.img (NIfTI-1 and NIfTI-2), .nrrd .nhdr .mha .mhd: volumes;
//   DICOM files, told by their first bytes whatever their name: one image, or the volume of a
//   multi-frame file (series of many files: dicom/dicom_series.h);
//   .png .jpg .jpeg .tif .tiff .bmp: 2-D pictures, as grids of one slice with 1 mm spacing.
//
// What is broken, truncated or not understood is a DataError that names the file, what was found
// and what to do; nothing is printed, and no memory is taken that the file's size cannot justify.
namespace vireo {

/// An image as float32 [C, Z, Y, X], with the stored slope and intercept applied once. Components
/// (colour in the order R, G, B; alpha dropped) and a fourth dimension (time, modalities) are
/// channels. NaN and infinities are kept for the caller to judge.
///
/// NIfTI: the sform places the grid where its code is set, else the qform, else the grid is
/// axis-aligned with its origin at 0. A sheared sform is replaced by the nearest rotation, with a
/// warning, up to kMaxShearDegrees; beyond that the file is refused.
Volume read_image(const std::filesystem::path& path);

/// As read_image(), but int16 where every value is a whole number that it holds.
Volume read_compact_image(const std::filesystem::path& path);

/// A label map as int32 [1, Z, Y, X]. Labels stored as floating point are accepted where they are
/// whole numbers; colour pictures where R = G = B; of a PNG with a palette its indices are read.
Volume read_labels(const std::filesystem::path& path);

/// The grid of an image file and its channel count; volumes are not read further than the header.
struct VoxelMemory {
  int64_t held = 0;     ///< bytes of the values that read_compact_image() returns, at most
  int64_t reading = 0;  ///< bytes that it takes beside these on the way
};
struct ImageHeader {
  Geometry geometry;
  int64_t channels = 1;
  VoxelMemory memory;
};
ImageHeader read_image_header(const std::filesystem::path& path);

/// How far, in degrees, an axis of a sheared NIfTI sform may be from the nearest rotation's.
inline constexpr double kMaxShearDegrees = 1.0;

/// Writes integer labels [Z, Y, X] (0..65535) in the smallest of uint8 and uint16, atomically.
/// NIfTI: with `like`, a NIfTI file of the same size, its sform, qform, codes, units and pixdim are
/// kept to the bit; without, both forms are made from `geometry`. Pictures must have Z = 1.
void write_labels(const std::filesystem::path& path,
                  const at::Tensor& labels,
                  const Geometry& geometry,
                  const std::filesystem::path& like = {});

/// Writes NIfTI of float32 channels, one after the other: `channel(c)` gives [Z, Y, X], contiguous,
/// for c = 0..channels-1. Otherwise as write_image().
void write_channels(const std::filesystem::path& path,
                    int64_t channels,
                    const std::function<at::Tensor(int64_t)>& channel,
                    const Geometry& geometry,
                    const std::filesystem::path& like = {});

/// Writes [C, Z, Y, X] in the tensor's own type (uint8, int16, uint16, int32, float32, float64),
/// atomically; several channels become NIfTI's fourth dimension, NRRD's and MetaImage's components,
/// or a picture's colours. `like` as above. Pictures take uint8 and uint16.
void write_image(const std::filesystem::path& path,
                 const at::Tensor& values,
                 const Geometry& geometry,
                 const std::filesystem::path& like = {});

/// The extension by which formats are told, in lower case: ".nii.gz" for "a.b.nii.gz"; empty when
/// it is none of those above.
std::string image_extension(const std::filesystem::path& path);
/// The file name without image_extension.
std::string image_stem(const std::filesystem::path& path);
bool is_nifti(const std::filesystem::path& path);
bool is_picture(const std::filesystem::path& path);

}  // namespace vireo
