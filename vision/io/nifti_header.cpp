#include "vision/io/nifti_header.h"

#include <algorithm>
#include <cstring>

#include "vision/core/error.h"

namespace vireo::io {
namespace {

namespace fs = std::filesystem;

// Where fields lie, in bytes from the header's start.
struct Layout {
  int dim, pixdim, datatype, bitpix, intent_code, vox_offset, scl_slope, scl_inter, xyzt_units,
      qform_code, sform_code, quatern, qoffset, srow, magic;
};
constexpr Layout kLayout1{40, 76, 70, 72, 68, 108, 112, 116, 123, 252, 254, 256, 268, 280, 344};
constexpr Layout kLayout2{16, 104, 12, 14, 504, 168, 176, 184, 500, 344, 348, 352, 376, 400, 4};

template <typename T>
T get(const unsigned char* bytes, int offset, bool swapped) {
  unsigned char raw[sizeof(T)];
  std::memcpy(raw, bytes + offset, sizeof(T));
  if (swapped) std::reverse(raw, raw + sizeof(T));
  T value;
  std::memcpy(&value, raw, sizeof(T));
  return value;
}

template <typename T>
void put(std::string& bytes, int offset, double value) {
  const T stored = static_cast<T>(value);
  std::memcpy(bytes.data() + offset, &stored, sizeof(T));
}

template <typename Count, typename Code, typename Real, typename Offset>
void read_fields(const unsigned char* bytes, const Layout& at, NiftiHeader& header) {
  const auto count = [&](int offset) { return get<Count>(bytes, offset, header.swapped); };
  const auto code = [&](int offset) { return get<Code>(bytes, offset, header.swapped); };
  const auto real = [&](int offset) {
    return static_cast<double>(get<Real>(bytes, offset, header.swapped));
  };
  const int n = sizeof(Real);
  for (int i = 0; i < 8; ++i) header.dim[i] = count(at.dim + i * static_cast<int>(sizeof(Count)));
  for (int i = 0; i < 8; ++i) header.pixdim[i] = real(at.pixdim + i * n);
  header.datatype = get<int16_t>(bytes, at.datatype, header.swapped);
  header.bitpix = get<int16_t>(bytes, at.bitpix, header.swapped);
  header.intent_code = code(at.intent_code);
  header.vox_offset = static_cast<double>(get<Offset>(bytes, at.vox_offset, header.swapped));
  header.scl_slope = real(at.scl_slope);
  header.scl_inter = real(at.scl_inter);
  header.qform_code = code(at.qform_code);
  header.sform_code = code(at.sform_code);
  for (int i = 0; i < 3; ++i) {
    header.quatern_bcd[i] = real(at.quatern + i * n);
    header.qoffset_xyz[i] = real(at.qoffset + i * n);
    for (int j = 0; j < 4; ++j) header.srow[i][j] = real(at.srow + (4 * i + j) * n);
  }
}

template <typename Count, typename Code, typename Real, typename Offset>
void write_fields(const NiftiHeader& header, const Layout& at, std::string& bytes) {
  const int n = sizeof(Real);
  for (int i = 0; i < 8; ++i) {
    put<Count>(
        bytes, at.dim + i * static_cast<int>(sizeof(Count)), static_cast<double>(header.dim[i]));
    put<Real>(bytes, at.pixdim + i * n, header.pixdim[i]);
  }
  put<int16_t>(bytes, at.datatype, header.datatype);
  put<int16_t>(bytes, at.bitpix, header.bitpix);
  put<Code>(bytes, at.intent_code, header.intent_code);
  put<Offset>(bytes, at.vox_offset, header.vox_offset);
  put<Real>(bytes, at.scl_slope, header.scl_slope);
  put<Real>(bytes, at.scl_inter, header.scl_inter);
  put<Code>(bytes, at.qform_code, header.qform_code);
  put<Code>(bytes, at.sform_code, header.sform_code);
  for (int i = 0; i < 3; ++i) {
    put<Real>(bytes, at.quatern + i * n, header.quatern_bcd[i]);
    put<Real>(bytes, at.qoffset + i * n, header.qoffset_xyz[i]);
    for (int j = 0; j < 4; ++j) put<Real>(bytes, at.srow + (4 * i + j) * n, header.srow[i][j]);
  }
}

void check_magic(const fs::path& path, const unsigned char* bytes, NiftiHeader& header) {
  const Layout& at = header.version == 1 ? kLayout1 : kLayout2;
  const std::string magic(reinterpret_cast<const char*>(bytes) + at.magic, 4);
  const std::string digit = std::to_string(header.version);
  if (magic == "n+" + digit + '\0') {
    header.single_file = true;
  } else if (magic == "ni" + digit + '\0') {
    header.single_file = false;
  } else {
    throw DataError(path,
                    "has no NIfTI signature in its header; an Analyze 7.5 file does not say where "
                    "left and right are. Convert it to NIfTI with a tool that you tell");
  }
}

void check_dimensions(const fs::path& path, const NiftiHeader& header) {
  const int64_t dimensions = header.dim[0];
  if (dimensions < 1 || dimensions > 7)
    throw DataError(path,
                    "header field dim[0] is " + std::to_string(dimensions) +
                        "; 1 to 7 dimensions are possible. The header is broken");
  for (int64_t i = 1; i <= dimensions; ++i)
    if (header.dim[i] < 1)
      throw DataError(path,
                      "header field dim[" + std::to_string(i) + "] is " +
                          std::to_string(header.dim[i]) + "; sizes are at least 1");
  double voxels = 1;
  for (int64_t i = 1; i <= dimensions; ++i) voxels *= static_cast<double>(header.dim[i]);
  if (voxels > 0x1p48)
    throw DataError(path,
                    "header fields dim declare more voxels than any file could hold. The header is "
                    "broken");
  if (header.intent_code >= 3000 && header.intent_code < 3100)
    throw DataError(path, "is a CIFTI file (a surface or connectivity matrix), not a voxel image");
  if (header.size(6) > 1 || header.size(7) > 1 || (header.size(4) > 1 && header.size(5) > 1))
    throw DataError(path,
                    "has more than four dimensions; an image has x, y, z and channels (time or "
                    "vector components)");
}

}  // namespace

size_t nifti_header_bytes(const unsigned char* first_four) {
  for (const bool swapped : {false, true}) {
    const auto size = get<int32_t>(first_four, 0, swapped);
    if (size == static_cast<int32_t>(kNifti1Bytes)) return kNifti1Bytes;
    if (size == static_cast<int32_t>(kNifti2Bytes)) return kNifti2Bytes;
  }
  return 0;
}

NiftiHeader parse_nifti_header(const fs::path& path, const unsigned char* bytes) {
  NiftiHeader header;
  const size_t size = nifti_header_bytes(bytes);
  header.version = size == kNifti1Bytes ? 1 : 2;
  header.swapped = static_cast<size_t>(get<int32_t>(bytes, 0, false)) != size;
  if (header.version == 1) {
    read_fields<int16_t, int16_t, float, float>(bytes, kLayout1, header);
    header.xyzt_units = bytes[kLayout1.xyzt_units];
  } else {
    read_fields<int64_t, int32_t, double, int64_t>(bytes, kLayout2, header);
    header.xyzt_units = get<int32_t>(bytes, kLayout2.xyzt_units, header.swapped);
  }
  check_magic(path, bytes, header);
  check_dimensions(path, header);
  const double least = header.single_file ? static_cast<double>(size) : 0;
  if (!(header.vox_offset >= least) || header.vox_offset > 0x1p48)
    throw DataError(path,
                    "header field vox_offset is " + std::to_string(header.vox_offset) +
                        "; the voxels cannot begin there. The header is broken");
  return header;
}

std::string serialise(const NiftiHeader& header) {
  const bool first = header.version == 1;
  std::string bytes((first ? kNifti1Bytes : kNifti2Bytes) + 4, '\0');
  put<int32_t>(bytes, 0, first ? kNifti1Bytes : kNifti2Bytes);
  if (first) {
    bytes[38] = 'r';  // "regular", which old readers ask for
    bytes[kLayout1.xyzt_units] = static_cast<char>(header.xyzt_units);
    write_fields<int16_t, int16_t, float, float>(header, kLayout1, bytes);
    bytes.replace(kLayout1.magic, 4, std::string("n+1\0", 4));
  } else {
    put<int32_t>(bytes, kLayout2.xyzt_units, header.xyzt_units);
    write_fields<int64_t, int32_t, double, int64_t>(header, kLayout2, bytes);
    bytes.replace(kLayout2.magic, 8, std::string("n+2\0\r\n\x1a\n", 8));
  }
  return bytes;
}

}  // namespace vireo::io
