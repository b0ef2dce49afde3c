#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "vision/image/geometry.h"

namespace vireo::io {

/// The fields of a NIfTI-1 or NIfTI-2 header that Vireo reads or keeps (nifti1.h, nifti2.h of the
/// NIfTI Data Format Working Group). Axes are the standard's: x fastest, world RAS.
struct NiftiHeader {
  int version = 1;
  bool swapped = false;  ///< the file's byte order is not this machine's
  bool single_file = true;
  std::array<int64_t, 8> dim{};
  std::array<double, 8> pixdim{};
  int datatype = 0, bitpix = 0, intent_code = 0;
  double vox_offset = 0;
  double scl_slope = 0, scl_inter = 0;
  int xyzt_units = 0, qform_code = 0, sform_code = 0;
  std::array<double, 3> quatern_bcd{}, qoffset_xyz{};
  std::array<std::array<double, 4>, 3> srow{};

  int64_t size(int axis) const { return axis <= dim[0] ? dim[axis] : 1; }
};

inline constexpr size_t kNifti1Bytes = 348, kNifti2Bytes = 540;

/// Bytes of the header that a file starting with these four bytes has; 0 when it is not NIfTI.
size_t nifti_header_bytes(const unsigned char* first_four);

/// Parses and checks a whole header (nifti_header_bytes of it). Throws DataError (path) naming the
/// field that is wrong.
NiftiHeader parse_nifti_header(const std::filesystem::path& path, const unsigned char* bytes);

/// The header in this machine's byte order, with the four bytes that say "no extension".
std::string serialise(const NiftiHeader& header);

/// The grid that the header describes; see read_image for the rules.
Geometry nifti_geometry(const std::filesystem::path& path, const NiftiHeader& header);

/// sform and qform of a grid, codes 1 (scanner), millimetres. Sizes and types are not touched.
void set_nifti_geometry(NiftiHeader& header, const Geometry& geometry);

}  // namespace vireo::io
