#include "vision/io/image_file.h"

#include <algorithm>
#include <cctype>

#include <ATen/Functions.h>

#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/dicom/dicom_scan.h"
#include "vision/io/dicom/dicom_volume.h"
#include "vision/io/itk_file.h"
#include "vision/io/nifti_file.h"
#include "vision/io/picture_file.h"
#include "vision/io/stored_image.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNiftiExtensions[] = {
    ".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img"};
constexpr const char* kItkExtensions[] = {".nrrd", ".nhdr", ".mha", ".mhd"};
constexpr const char* kPictureExtensions[] = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"};

template <typename List>
bool one_of(const std::string& extension, const List& list) {
  return std::find(std::begin(list), std::end(list), extension) != std::end(list);
}

[[noreturn]] void refuse_format(const fs::path& path) {
  throw DataError(path,
                  "its name does not end in a format that is known: .nii .nii.gz .hdr .img .nrrd "
                  ".nhdr .mha .mhd .png .jpg .jpeg .tif .tiff .bmp, and it is no DICOM file");
}

void check_is_file(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw DataError(path, "does not exist");
  if (fs::is_directory(path, ignored)) throw DataError(path, "is a folder; a file was expected");
}

io::StoredImage read_stored(const fs::path& path,
                            io::StoredImage (*read_any_picture)(const fs::path&)) {
  check_is_file(path);
  const std::string extension = image_extension(path);
  if (one_of(extension, kNiftiExtensions)) return io::read_nifti(path);
  if (one_of(extension, kItkExtensions)) return io::read_itk(path);
  if (one_of(extension, kPictureExtensions)) return read_any_picture(path);
  refuse_format(path);
}

bool is_dicom_file(const fs::path& path) {
  return image_extension(path).empty() && fs::is_regular_file(path) && is_dicom(path);
}

// A file's one volume or picture.
DicomSeries only_series(const fs::path& path) {
  DicomScan scan = scan_dicom(path);
  refuse_without_series(path, scan);
  if (scan.series.empty()) throw DataError(path, "holds no image");
  if (scan.series.size() > 1)
    throw DataError(path,
                    "holds " + std::to_string(scan.series.size()) +
                        " volumes; `vireo info` lists them, `vireo predict` takes them one by one");
  return scan.series[0];
}

io::StoredType stored_type(const fs::path& path, at::ScalarType type) {
  switch (type) {
    case at::kByte:
      return io::StoredType::kUint8;
    case at::kShort:
      return io::StoredType::kInt16;
    case at::kUInt16:
      return io::StoredType::kUint16;
    case at::kInt:
      return io::StoredType::kInt32;
    case at::kFloat:
      return io::StoredType::kFloat32;
    case at::kDouble:
      return io::StoredType::kFloat64;
    default:
      throw DataError(path,
                      std::string("cannot be written: voxels of type ") + c10::toString(type));
  }
}

void check_shape(const fs::path& path, const at::Tensor& values, const Geometry& geometry) {
  const auto& size = geometry.size_zyx;
  if (values.dim() != 4 || values.size(1) != size[0] || values.size(2) != size[1] ||
      values.size(3) != size[2])
    throw DataError(path,
                    "cannot be written: the values' shape " + c10::str(values.sizes()) +
                        " is not that of the grid " +
                        c10::str(at::IntArrayRef(size.data(), size.size())));
}

}  // namespace

std::string image_extension(const fs::path& path) {
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  const auto ends = [&](const char* extension) { return name.ends_with(extension); };
  for (const char* extension : kNiftiExtensions)
    if (ends(extension)) return extension;
  for (const char* extension : kItkExtensions)
    if (ends(extension)) return extension;
  for (const char* extension : kPictureExtensions)
    if (ends(extension)) return extension;
  return "";
}

std::string image_stem(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.substr(0, name.size() - image_extension(path).size());
}

bool is_nifti(const fs::path& path) {
  return one_of(image_extension(path), kNiftiExtensions);
}

bool is_picture(const fs::path& path) {
  return one_of(image_extension(path), kPictureExtensions);
}

Volume read_image(const fs::path& path) {
  if (is_dicom_file(path)) return read_dicom_series(only_series(path));
  return io::to_image(read_stored(path, io::read_picture));
}

Volume read_compact_image(const fs::path& path) {
  if (is_dicom_file(path)) return read_dicom_series(only_series(path), {}, /*compact=*/true);
  return io::to_compact_image(read_stored(path, io::read_picture));
}

Volume read_labels(const fs::path& path) {
  return io::to_labels(path, read_stored(path, io::read_label_picture));
}

ImageHeader read_image_header(const fs::path& path) {
  if (is_dicom_file(path)) return read_series_header(only_series(path));
  const std::string extension = image_extension(path);
  if (one_of(extension, kNiftiExtensions)) {
    const io::NiftiHeader header = io::read_nifti_header(path);
    const int64_t components = header.datatype == 128 ? 3 : 1;
    return {io::nifti_geometry(path, header),
            header.size(4) * header.size(5) * components,
            io::nifti_memory(path, header)};
  }
  if (one_of(extension, kItkExtensions)) {
    const io::ItkHeader header = io::read_itk_header(path);
    const int64_t values = header.geometry.voxel_count() * header.channels;
    VoxelMemory memory = io::compact_memory(header.type, values, header.channels == 1);
    // ITK holds a copy of its own while it reads.
    memory.reading += values * static_cast<int64_t>(io::bytes_of(header.type));
    return {header.geometry, header.channels, memory};
  }
  check_is_file(path);
  if (!one_of(extension, kPictureExtensions)) refuse_format(path);
  const io::PictureHeader picture = io::read_picture_header(path);
  Geometry grid;
  grid.size_zyx = {1, picture.height, picture.width};
  const int64_t values = grid.voxel_count() * picture.components;
  VoxelMemory memory = io::compact_memory(picture.type, values, picture.components == 1);
  // The file, and what OpenCV decodes from it, colours in two orders.
  memory.reading += static_cast<int64_t>(fs::file_size(path)) +
                    values * 2 * static_cast<int64_t>(io::bytes_of(picture.type));
  return {grid, picture.components, memory};
}

void write_channels(const fs::path& path,
                    int64_t channels,
                    const std::function<at::Tensor(int64_t)>& channel,
                    const Geometry& geometry,
                    const fs::path& like) {
  if (!is_nifti(path))
    throw DataError(path, "cannot be written: only NIfTI takes channels in turn");
  at::Tensor current;
  const auto voxels = [&](int64_t c) -> const void* {
    current.reset();
    current = channel(c);
    check_shape(path, current.unsqueeze(0), geometry);
    TORCH_CHECK(current.scalar_type() == at::kFloat && current.is_contiguous(),
                "a channel is float32 and contiguous");
    return current.const_data_ptr();
  };
  write_file_atomically(path, [&](const fs::path& temporary) {
    io::write_nifti(temporary,
                    voxels,
                    io::StoredType::kFloat32,
                    channels,
                    geometry,
                    is_nifti(like) ? like : "");
  });
}

void write_image(const fs::path& path,
                 const at::Tensor& values,
                 const Geometry& geometry,
                 const fs::path& like) {
  check_shape(path, values, geometry);
  const io::StoredType type = stored_type(path, values.scalar_type());
  const int64_t channels = values.size(0);
  const std::string extension = image_extension(path);
  if (extension == ".nii" || extension == ".nii.gz") {
    const at::Tensor voxels = values.cpu().contiguous();
    const auto channel = [&](int64_t c) { return voxels[c].const_data_ptr(); };
    write_file_atomically(path, [&](const fs::path& temporary) {
      io::write_nifti(temporary, channel, type, channels, geometry, is_nifti(like) ? like : "");
    });
    return;
  }
  const bool volume = extension == ".nrrd" || extension == ".mha";
  if (!volume && !one_of(extension, kPictureExtensions)) refuse_format(path);
  const at::Tensor voxels = values.cpu().permute({1, 2, 3, 0}).contiguous();
  write_file_atomically(path, [&](const fs::path& temporary) {
    const auto write = volume ? io::write_itk : io::write_picture;
    write(temporary, voxels.const_data_ptr(), type, channels, geometry);
  });
}

void write_labels(const fs::path& path,
                  const at::Tensor& labels,
                  const Geometry& geometry,
                  const fs::path& like) {
  if (labels.dim() != 3 || labels.is_floating_point())
    throw DataError(path, "cannot be written: labels are an integer tensor [Z, Y, X]");
  // LibTorch compares no unsigned integers but bytes.
  const bool comparable = labels.scalar_type() != at::kUInt16;
  const at::Tensor values = comparable ? labels : labels.to(at::kInt);
  const auto lowest = values.numel() ? values.min().item<int64_t>() : 0;
  const auto highest = values.numel() ? values.max().item<int64_t>() : 0;
  if (lowest < 0 || highest > 65535)
    throw DataError(path,
                    "cannot be written: label " + std::to_string(lowest < 0 ? lowest : highest) +
                        " is outside 0..65535");
  const at::ScalarType type = highest <= 255 ? at::kByte : at::kUInt16;
  write_image(path, values.to(type).unsqueeze(0), geometry, like);
}

}  // namespace vireo
