#include "vision/io/nifti_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <zlib.h>

#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo::io {
namespace {

namespace fs = std::filesystem;

// What deflate can compress at most, with room.
constexpr size_t kMostCompression = 1100;

// A plain or gzip-compressed file, read from front to back.
class ByteSource {
 public:
  explicit ByteSource(const fs::path& path) : path_(path) {
    std::error_code failed;
    const fs::file_status status = fs::status(path, failed);
    if (!fs::exists(status)) throw DataError(path, "does not exist");
    if (!fs::is_regular_file(status)) throw DataError(path, "is not a file");
    file_bytes_ = fs::file_size(path, failed);
    if (failed) throw DataError(path, "cannot be read: " + failed.message());
    if (file_bytes_ == 0) throw DataError(path, "is empty (0 bytes)");
    file_ = ::gzopen(path.c_str(), "rb");
    if (!file_) throw DataError(path, "cannot be opened for reading");
    ::gzbuffer(file_, 1 << 18);
  }
  ~ByteSource() { ::gzclose(file_); }
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  bool compressed() { return ::gzdirect(file_) == 0; }
  /// No more bytes than this can come; exactly this many when not compressed.
  size_t most_bytes() { return compressed() ? file_bytes_ * kMostCompression : file_bytes_; }
  /// Bytes read, fewer than asked for at the end only.
  size_t read(void* to, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
      const auto chunk = static_cast<unsigned>(std::min<size_t>(bytes - done, 1 << 26));
      const int got = ::gzread(file_, static_cast<char*>(to) + done, chunk);
      if (got < 0) fail();
      if (got == 0) break;
      done += static_cast<size_t>(got);
    }
    int error = Z_OK;
    ::gzerror(file_, &error);
    if (error != Z_OK && error != Z_STREAM_END && done < bytes) fail();
    return done;
  }
  void skip_to(size_t offset, size_t position) {
    char ignored[4096];
    while (position < offset) {
      const size_t got = read(ignored, std::min(sizeof ignored, offset - position));
      if (got == 0) return;
      position += got;
    }
  }

 private:
  [[noreturn]] void fail() {
    int error = Z_OK;
    const std::string reason = ::gzerror(file_, &error);
    if (error == Z_BUF_ERROR)
      throw DataError(path_,
                      "is cut off: its compressed stream ends early. Copy or download it again");
    const size_t colon = reason.rfind(": ");
    throw DataError(path_,
                    "its compressed stream is broken (" +
                        (colon == std::string::npos ? reason : reason.substr(colon + 2)) +
                        "). Copy or download it again");
  }

  fs::path path_;
  size_t file_bytes_ = 0;
  gzFile file_ = nullptr;
};

struct Kind {
  int datatype;
  StoredType type;
  int components;
};
constexpr Kind kKinds[] = {{2, StoredType::kUint8, 1},
                           {4, StoredType::kInt16, 1},
                           {8, StoredType::kInt32, 1},
                           {16, StoredType::kFloat32, 1},
                           {64, StoredType::kFloat64, 1},
                           {128, StoredType::kUint8, 3},
                           {256, StoredType::kInt8, 1},
                           {512, StoredType::kUint16, 1},
                           {768, StoredType::kUint32, 1},
                           {1024, StoredType::kInt64, 1},
                           {1280, StoredType::kUint64, 1}};

std::string datatype_name(int datatype) {
  switch (datatype) {
    case 1:
      return "1 (single bits)";
    case 32:
      return "32 (complex numbers)";
    case 1536:
      return "1536 (128-bit floating point)";
    case 1792:
      return "1792 (complex numbers)";
    case 2048:
      return "2048 (complex numbers)";
    case 2304:
      return "2304 (RGBA)";
    default:
      return std::to_string(datatype);
  }
}

const Kind& kind_of(const fs::path& path, const NiftiHeader& header) {
  for (const Kind& kind : kKinds) {
    if (kind.datatype != header.datatype) continue;
    const int bits = static_cast<int>(bytes_of(kind.type)) * 8 * kind.components;
    if (header.bitpix != bits)
      throw DataError(path,
                      "header field bitpix is " + std::to_string(header.bitpix) +
                          ", but its datatype " + std::to_string(header.datatype) + " has " +
                          std::to_string(bits) + " bits. The header is broken");
    return kind;
  }
  throw DataError(path,
                  "header field datatype is " + datatype_name(header.datatype) +
                      "; integers and floating point of 8 to 64 bits and RGB are read");
}

void swap_bytes(std::byte* bytes, size_t count, size_t width) {
  for (size_t i = 0; i < count; ++i) std::reverse(bytes + i * width, bytes + (i + 1) * width);
}

// "scan.img.gz" -> "scan.hdr.gz" and back, whichever of the endings exists.
fs::path partner(const fs::path& path, const std::string& extension) {
  std::string stem = path.string();
  for (const char* ending : {".gz", ".hdr", ".img"})
    if (stem.ends_with(ending)) stem = stem.substr(0, stem.size() - std::strlen(ending));
  for (const std::string& candidate : {stem + extension, stem + extension + ".gz"})
    if (fs::exists(candidate)) return candidate;
  return stem + extension;
}

bool is_pair_name(const fs::path& path) {
  const std::string extension = image_extension(path);
  return extension == ".hdr" || extension == ".img" || extension == ".hdr.gz" ||
         extension == ".img.gz";
}

NiftiHeader read_header(ByteSource& source, const fs::path& path, size_t& position) {
  unsigned char bytes[kNifti2Bytes];
  position = source.read(bytes, 4);
  const size_t size = position == 4 ? nifti_header_bytes(bytes) : 0;
  if (size == 0)
    throw DataError(path, "is not a NIfTI file: it does not begin with the header size 348 or 540");
  position += source.read(bytes + 4, size - 4);
  if (position != size)
    throw DataError(path,
                    "is cut off inside its header: " + std::to_string(position) + " of " +
                        std::to_string(size) + " bytes. Copy or download it again");
  return parse_nifti_header(path, bytes);
}

// nifti1.h: a slope of 0 means that the voxels are not scaled, whatever the intercept says.
bool is_scaled(const NiftiHeader& header, const Kind& kind) {
  return std::isfinite(header.scl_slope) && header.scl_slope != 0 && kind.components == 1;
}

std::string size_text(const NiftiHeader& header) {
  std::string text;
  for (int64_t i = 1; i <= header.dim[0]; ++i)
    text += (i > 1 ? "x" : "") + std::to_string(header.dim[i]);
  return text;
}

[[noreturn]] void refuse_size(const fs::path& path,
                              const NiftiHeader& header,
                              const std::string& found,
                              size_t expected) {
  throw DataError(path,
                  "holds " + found + " bytes of voxels, but its header declares " +
                      size_text(header) + " voxels of " + std::to_string(header.bitpix) +
                      " bits, which are " + std::to_string(expected) +
                      " bytes. The file is cut off or its header is broken");
}

}  // namespace

NiftiHeader read_nifti_header(const fs::path& path) {
  const fs::path header_path = is_pair_name(path) ? partner(path, ".hdr") : path;
  ByteSource source(header_path);
  size_t position = 0;
  NiftiHeader header = read_header(source, header_path, position);
  kind_of(header_path, header);
  return header;
}

VoxelMemory nifti_memory(const fs::path& path, const NiftiHeader& header) {
  const Kind& kind = kind_of(path, header);
  const int64_t values = header.size(1) * header.size(2) * header.size(3) * header.size(4) *
                         header.size(5) * kind.components;
  const bool scaled = is_scaled(header, kind) && !(header.scl_slope == 1 && header.scl_inter == 0);
  return compact_memory(kind.type, values, kind.components == 1 && !scaled);
}

StoredImage read_nifti(const fs::path& path) {
  const bool pair = is_pair_name(path);
  const fs::path header_path = pair ? partner(path, ".hdr") : path;
  auto source = std::make_unique<ByteSource>(header_path);
  size_t position = 0;
  const NiftiHeader header = read_header(*source, header_path, position);
  const Kind& kind = kind_of(header_path, header);
  if (header.single_file == pair)
    throw DataError(header_path,
                    pair ? "is a header of a .hdr/.img pair by its name, but says that the voxels "
                           "are in the same file; rename it to .nii"
                         : "is only the header of a .hdr/.img pair; give it its name .hdr and put "
                           "its .img beside it");
  const fs::path voxel_path = pair ? partner(path, ".img") : path;
  if (pair) {
    source = std::make_unique<ByteSource>(voxel_path);
    position = 0;
  }

  StoredImage image;
  image.type = kind.type;
  image.components = kind.components;
  image.volumes = header.size(4) * header.size(5);
  image.geometry = nifti_geometry(header_path, header);
  if (kind.components == 3) image.full_scale = 255;
  const size_t width = bytes_of(kind.type);
  const size_t values = checked_product(
      header_path,
      {header.size(1), header.size(2), header.size(3), image.volumes, image.components});
  const size_t bytes = values * width;
  const auto offset = static_cast<size_t>(header.vox_offset);

  // Before any memory is taken: can the file hold what the header claims?
  const size_t most = source->most_bytes();
  const size_t room = most > offset ? most - offset : 0;
  if (room < bytes)
    refuse_size(
        voxel_path, header, (source->compressed() ? "at most " : "") + std::to_string(room), bytes);
  if (!source->compressed() && room > bytes)
    refuse_size(voxel_path, header, std::to_string(room), bytes);

  image.bytes = allocate(voxel_path, bytes);
  source->skip_to(offset, position);
  const size_t got = source->read(image.bytes.get(), bytes);
  if (got != bytes) refuse_size(voxel_path, header, std::to_string(got), bytes);
  char beyond = 0;
  if (source->read(&beyond, 1) != 0)  // the end of a gzip stream is where its checksum is verified
    refuse_size(voxel_path, header, "more than " + std::to_string(bytes), bytes);
  if (header.swapped && width > 1) swap_bytes(image.bytes.get(), values, width);

  if (is_scaled(header, kind)) {
    if (!std::isfinite(header.scl_inter))
      throw DataError(header_path, "header field scl_inter is not a finite number");
    image.slope = header.scl_slope;
    image.intercept = header.scl_inter;
  }
  return image;
}

void write_nifti(const fs::path& path,
                 const std::function<const void*(int64_t channel)>& voxels,
                 StoredType type,
                 int64_t channels,
                 const Geometry& geometry,
                 const fs::path& like) {
  const auto& size = geometry.size_zyx;
  NiftiHeader header;
  header.pixdim = {1, 1, 1, 1, 0, 0, 0, 0};
  if (like.empty()) {
    set_nifti_geometry(header, geometry);
  } else {
    const NiftiHeader kept = read_nifti_header(like);
    const std::array<int64_t, 3> kept_size{kept.size(3), kept.size(2), kept.size(1)};
    if (kept_size != size)
      throw DataError(like,
                      "its grid of " + size_text(kept) + " voxels is not that of " +
                          path.filename().string() + ", whose header was to be taken from it");
    header.version = kept.version;
    header.pixdim = kept.pixdim;
    header.xyzt_units = kept.xyzt_units;
    header.qform_code = kept.qform_code;
    header.sform_code = kept.sform_code;
    header.quatern_bcd = kept.quatern_bcd;
    header.qoffset_xyz = kept.qoffset_xyz;
    header.srow = kept.srow;
  }
  for (const int64_t extent : size)
    if (extent > 32767) header.version = 2;
  header.dim = {channels > 1 ? 4 : 3, size[2], size[1], size[0], channels, 1, 1, 1};
  for (const Kind& kind : kKinds)
    if (kind.type == type && kind.components == 1) header.datatype = kind.datatype;
  header.bitpix = static_cast<int>(bytes_of(type)) * 8;
  header.scl_slope = 1;
  header.vox_offset = static_cast<double>((header.version == 1 ? kNifti1Bytes : kNifti2Bytes) + 4);

  // "T" writes without compression through the same calls.
  const std::string name = path.string();
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(
      ::gzopen(name.c_str(), name.ends_with(".gz") ? "wb3" : "wbT"),
      [](gzFile f) { return f ? ::gzclose(f) : 0; });
  const auto write = [&](const void* from, size_t bytes) {
    for (size_t done = 0; file && done < bytes;) {
      const auto chunk = static_cast<unsigned>(std::min<size_t>(bytes - done, 1 << 26));
      if (::gzwrite(file.get(), static_cast<const char*>(from) + done, chunk) <= 0) return false;
      done += chunk;
    }
    return file != nullptr;
  };
  const std::string bytes = serialise(header);
  const size_t count = checked_product(path, {size[0], size[1], size[2]});
  bool written = write(bytes.data(), bytes.size());
  for (int64_t c = 0; written && c < channels; ++c)
    written = write(voxels(c), count * bytes_of(type));
  written = written && ::gzflush(file.get(), Z_FINISH) == Z_OK;
  if (!written) throw DataError(path, "cannot be written; is the disk full?");
}

}  // namespace vireo::io
