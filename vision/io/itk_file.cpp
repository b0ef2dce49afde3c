#include "vision/io/itk_file.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>

#include <itkMetaImageIO.h>
#include <itkNrrdImageIO.h>

#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo::io {
namespace {

namespace fs = std::filesystem;
using Component = itk::ImageIOBase::IOComponentType;

// MetaIO writes its complaints to std::cerr; while one of these lives they go nowhere. Readers take
// turns, since std::cerr is the process's.
class QuietErrors {
 public:
  QuietErrors() : lock_(mutex()), before_(std::cerr.rdbuf(swallowed_.rdbuf())) {
    itk::Object::SetGlobalWarningDisplay(false);
  }
  ~QuietErrors() { std::cerr.rdbuf(before_); }

 private:
  static std::mutex& mutex() {
    static std::mutex shared;
    return shared;
  }
  std::lock_guard<std::mutex> lock_;
  std::ostringstream swallowed_;
  std::streambuf* before_;
};

itk::ImageIOBase::Pointer format_of(const fs::path& path) {
  const std::string extension = image_extension(path);
  if (extension == ".nrrd" || extension == ".nhdr") return itk::NrrdImageIO::New().GetPointer();
  return itk::MetaImageIO::New().GetPointer();
}

// ITK's description without its source position.
std::string reason(const itk::ExceptionObject& error) {
  std::string text = error.GetDescription();
  const size_t start = text.find("): ");
  if (start != std::string::npos) text = text.substr(start + 3);
  for (char& c : text)
    if (c == '\n') c = ' ';
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

StoredType stored_type(const fs::path& path, Component component) {
  switch (component) {
    case Component::UCHAR:
      return StoredType::kUint8;
    case Component::CHAR:
      return StoredType::kInt8;
    case Component::USHORT:
      return StoredType::kUint16;
    case Component::SHORT:
      return StoredType::kInt16;
    case Component::UINT:
      return StoredType::kUint32;
    case Component::INT:
      return StoredType::kInt32;
    case Component::ULONG:
    case Component::ULONGLONG:
      return StoredType::kUint64;
    case Component::LONG:
    case Component::LONGLONG:
      return StoredType::kInt64;
    case Component::FLOAT:
      return StoredType::kFloat32;
    case Component::DOUBLE:
      return StoredType::kFloat64;
    default:
      throw DataError(path, "has a voxel type that is not read");
  }
}

Component component_of(StoredType type) {
  switch (type) {
    case StoredType::kUint8:
      return Component::UCHAR;
    case StoredType::kInt8:
      return Component::CHAR;
    case StoredType::kUint16:
      return Component::USHORT;
    case StoredType::kInt16:
      return Component::SHORT;
    case StoredType::kUint32:
      return Component::UINT;
    case StoredType::kInt32:
      return Component::INT;
    case StoredType::kUint64:
      return Component::ULONG;
    case StoredType::kInt64:
      return Component::LONG;
    case StoredType::kFloat32:
      return Component::FLOAT;
    case StoredType::kFloat64:
      break;
  }
  return Component::DOUBLE;
}

// The letters and digits of a text: NRRD's spellings of one thing differ in the rest.
std::string bare(const std::string& text) {
  std::string letters;
  for (const char c : text)
    if (std::isalnum(static_cast<unsigned char>(c)))
      letters += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return letters;
}

// The fields of an NRRD header by their bare names.
std::map<std::string, std::string> nrrd_fields(const fs::path& path) {
  std::map<std::string, std::string> fields;
  std::ifstream in(path, std::ios::binary);
  std::string line;
  while (std::getline(in, line) && line.find_first_not_of(" \r") != std::string::npos) {
    const size_t colon = line.find(':');
    if (line[0] != '#' && colon != std::string::npos && line.compare(colon, 2, ":=") != 0)
      fields[bare(line.substr(0, colon))] = line.substr(colon + 1);
  }
  return fields;
}

// The vectors of "(1,0,0) none (0,1,0)", each with the signs that turn it to LPS.
std::vector<Vector3> nrrd_vectors(const std::string& text, const Vector3& lps_signs) {
  std::vector<Vector3> vectors;
  for (size_t i = text.find('('); i != std::string::npos; i = text.find('(', i)) {
    Vector3 vector{};
    const char* here = text.c_str() + ++i;
    bool sound = true;
    for (size_t axis = 0; axis < 3 && sound; ++axis) {
      char* end = nullptr;
      vector[axis] = lps_signs[axis] * std::strtod(here, &end);
      while (*end == ' ') ++end;
      sound = end != here && std::isfinite(vector[axis]) && (axis == 2 || *end == ',');
      here = end + 1;
    }
    if (sound) vectors.push_back(vector);
  }
  return vectors;
}

// The place that an NRRD header gives in a space of the patient. ITK 5.2 mirrors
// left-anterior-superior along x instead of y, and takes the spaces with a time as they are.
void place_nrrd(const fs::path& path, unsigned axes, Geometry& geometry) {
  std::map<std::string, std::string> fields = nrrd_fields(path);
  std::string space = bare(fields["space"]);
  for (const char* ending : {"time", "t"})
    if (space.ends_with(ending)) space.resize(space.size() - std::strlen(ending));
  Vector3 lps_signs{1, 1, 1};
  if (space == "rightanteriorsuperior" || space == "ras")
    lps_signs = {-1, -1, 1};
  else if (space == "leftanteriorsuperior" || space == "las")
    lps_signs = {1, -1, 1};
  else if (space != "leftposteriorsuperior" && space != "lps")
    return;
  const std::vector<Vector3> columns = nrrd_vectors(fields["spacedirections"], lps_signs);
  const std::vector<Vector3> origin = nrrd_vectors(fields["spaceorigin"], lps_signs);
  if (columns.size() < axes)
    throw DataError(path,
                    "its header gives a space of the patient and " +
                        std::to_string(columns.size()) + " space directions; " +
                        std::to_string(axes) + " were expected, one for each axis of the image");
  for (unsigned axis = 0; axis < axes; ++axis) {
    const Vector3& column = columns[axis];
    const double length = std::hypot(column[0], column[1], column[2]);
    for (unsigned i = 0; i < 3; ++i) {
      double& cosine = geometry.direction_lps_from_zyx[i][2 - axis];
      // ITK may have taken another axis for the image's; its signs alone are not trusted.
      if (!(std::abs(std::abs(cosine) - std::abs(column[i] / length)) < 1e-6))
        throw DataError(path,
                        "its header's space directions do not fit the axes that its kinds make the "
                        "image's; write it with a kind for each axis");
      cosine = column[i] / length;
    }
  }
  if (!origin.empty()) geometry.origin_lps_mm = origin[0];
}

Geometry geometry_of(const fs::path& path, const itk::ImageIOBase& io) {
  const unsigned dimensions = io.GetNumberOfDimensions();
  if (dimensions < 2 || dimensions > 4)
    throw DataError(path,
                    "has " + std::to_string(dimensions) +
                        " dimensions; images have two or three, and a fourth for channels");
  Geometry geometry;
  geometry.size_zyx = {1, 1, 1};
  for (unsigned axis = 0; axis < 3 && axis < dimensions; ++axis) {
    const unsigned j = 2 - axis;
    geometry.size_zyx[j] = static_cast<int64_t>(io.GetDimensions(axis));
    geometry.spacing_mm_zyx[j] = std::abs(io.GetSpacing(axis));
    geometry.origin_lps_mm[axis] = io.GetOrigin(axis);
    const std::vector<double> direction = io.GetDirection(axis);
    for (unsigned i = 0; i < 3; ++i)
      geometry.direction_lps_from_zyx[i][j] = i < direction.size() ? direction[i] : 0;
    if (geometry.size_zyx[j] < 1 || !(geometry.spacing_mm_zyx[j] > 0) ||
        !std::isfinite(geometry.spacing_mm_zyx[j]))
      throw DataError(path, "its header declares an empty grid or a spacing that is no length");
  }
  const std::string extension = image_extension(path);
  if (extension == ".nrrd" || extension == ".nhdr")
    place_nrrd(path, std::min(dimensions, 3U), geometry);
  const double volume = geometry.voxel_volume_mm3();
  const auto& spacing = geometry.spacing_mm_zyx;
  // |det| of unit columns is 1 for a rotation; a shear of one degree leaves 0.9998.
  if (!(std::abs(volume / (spacing[0] * spacing[1] * spacing[2]) - 1) < 1e-3))
    throw DataError(path,
                    "its axes are not perpendicular; resample the image onto a rectangular grid");
  return geometry;
}

// What the file and, for a detached header, the files beside it hold.
size_t bytes_at_hand(const fs::path& path) {
  std::error_code ignored;
  const std::string extension = image_extension(path);
  size_t bytes = fs::file_size(path, ignored);
  if (extension == ".mhd" || extension == ".nhdr")
    for (const auto& entry :
         fs::directory_iterator(path.parent_path().empty() ? "." : path.parent_path(), ignored))
      if (entry.is_regular_file(ignored)) bytes += entry.file_size(ignored);
  return bytes;
}

constexpr size_t kLongestMetaName = 200, kLongestMetaLine = 4000;

// What MetaIO takes as its header has it: a number of dimensions beyond its own ten keeps it busy
// for seconds, a field's name of more than 255 bytes, ends of lines included, goes beyond its
// memory, a compressed .mha that is cut off passes for whole, and of a file of voxels that is not
// there it takes the length to be -1.
void check_meta_header(const fs::path& path) {
  const std::string extension = image_extension(path);
  if (extension != ".mha" && extension != ".mhd") return;
  std::ifstream in(path, std::ios::binary);
  std::string line;
  int64_t compressed = -1;
  size_t name_bytes = 0;
  for (int lines = 0; lines < 1000 && std::getline(in, line); ++lines) {
    const size_t separator = line.find_first_of("=:");
    name_bytes += std::min(separator, line.size()) + 1;
    if (name_bytes > kLongestMetaName || line.size() > kLongestMetaLine)
      throw DataError(path, "is broken: its header has a line that is no \"NAME = VALUE\"");
    if (separator == std::string::npos) continue;
    name_bytes = 0;
    const char* value = line.c_str() + separator + 1;
    if (line.starts_with("CompressedDataSize")) compressed = std::strtoll(value, nullptr, 10);
    if (line.find("NDims") < separator) {
      const double dimensions = std::strtod(value, nullptr);
      if (!(dimensions >= 1 && dimensions <= 10))
        throw DataError(path, "its header's NDims is no number from 1 to 10");
    }
    if (line.find("ElementDataFile") >= separator) continue;
    // MetaIO makes names of files of the numbers that follow, and divides by one of them.
    if (line.find('%', separator) != std::string::npos)
      throw DataError(path,
                      "its header names the files of its voxels by a pattern, which is not read; "
                      "convert it to a single file");
    std::string file = line.substr(separator + 1);
    file.erase(0, file.find_first_not_of(" \t"));
    file.erase(file.find_last_not_of(" \t\r") + 1);
    const bool elsewhere = !file.starts_with("LOCAL") && !file.starts_with("Local") &&
                           !file.starts_with("local") && !file.starts_with("LIST");
    // As when there is none: a name that is too long.
    std::error_code failed;
    if (elsewhere && !fs::is_regular_file(path.parent_path() / file.c_str(), failed))
      throw DataError(path,
                      "its voxels are said to be in \"" + std::string(file.c_str()) +
                          "\" (ElementDataFile), which is not there");
    const auto held = static_cast<int64_t>(fs::file_size(path)) - in.tellg();
    if (extension == ".mha" && compressed >= 0 && held < compressed)
      throw DataError(path,
                      "is cut off: it holds " + std::to_string(held) +
                          " bytes of compressed voxels, and its header declares " +
                          std::to_string(compressed) + ". Copy or download it again");
    return;
  }
}

itk::ImageIOBase::Pointer open(const fs::path& path) {
  std::error_code failed;
  if (!fs::exists(path, failed)) throw DataError(path, "does not exist");
  if (fs::file_size(path, failed) == 0 || failed) throw DataError(path, "is empty or not a file");
  check_meta_header(path);
  auto io = format_of(path);
  io->SetFileName(path.string());
  if (!io->CanReadFile(path.c_str()))
    throw DataError(path, "is not a file of the kind that its name says, or its header is broken");
  io->ReadImageInformation();
  return io;
}

int64_t volumes_of(const itk::ImageIOBase& io) {
  return io.GetNumberOfDimensions() > 3 ? static_cast<int64_t>(io.GetDimensions(3)) : 1;
}

// The bytes of all voxels, once the file can hold as many.
size_t check_size(const fs::path& path, const itk::ImageIOBase& io) {
  constexpr size_t kMostCompression = 1100;
  const Geometry geometry = geometry_of(path, io);
  const auto& size = geometry.size_zyx;
  const size_t bytes = checked_product(path,
                                       {size[0],
                                        size[1],
                                        size[2],
                                        volumes_of(io),
                                        static_cast<int64_t>(io.GetNumberOfComponents())}) *
                       bytes_of(stored_type(path, io.GetComponentType()));
  if (bytes / kMostCompression > bytes_at_hand(path))
    throw DataError(path,
                    "its header declares " + std::to_string(bytes) +
                        " bytes of voxels, which the file cannot hold. It is cut off or broken");
  return bytes;
}

template <typename Function>
auto guarded(const fs::path& path, Function&& function) {
  try {
    const QuietErrors quiet;
    return function();
  } catch (const itk::ExceptionObject& error) {
    throw DataError(path, "cannot be read; ITK says: " + reason(error));
  } catch (const std::bad_alloc&) {
    throw DataError(path, "needs more memory than there is");
  }
}

}  // namespace

ItkHeader read_itk_header(const fs::path& path) {
  return guarded(path, [&] {
    const auto io = open(path);
    check_size(path, *io);
    return ItkHeader{geometry_of(path, *io),
                     volumes_of(*io) * io->GetNumberOfComponents(),
                     stored_type(path, io->GetComponentType())};
  });
}

StoredImage read_itk(const fs::path& path) {
  return guarded(path, [&] {
    const auto io = open(path);
    const size_t bytes = check_size(path, *io);
    StoredImage image;
    image.type = stored_type(path, io->GetComponentType());
    image.geometry = geometry_of(path, *io);
    image.components = io->GetNumberOfComponents();
    image.volumes = volumes_of(*io);
    const unsigned dimensions = io->GetNumberOfDimensions();
    itk::ImageIORegion region(dimensions);
    for (unsigned axis = 0; axis < dimensions; ++axis)
      region.SetSize(axis, io->GetDimensions(axis));
    io->SetIORegion(region);
    image.bytes = allocate(path, bytes);
    io->Read(image.bytes.get());
    return image;
  });
}

void write_itk(const fs::path& path,
               const void* voxels,
               StoredType type,
               int64_t components,
               const Geometry& geometry) {
  try {
    const QuietErrors quiet;
    auto io = format_of(path);
    io->SetFileName(path.string());
    io->SetNumberOfDimensions(3);
    itk::ImageIORegion region(3);
    for (unsigned axis = 0; axis < 3; ++axis) {
      const unsigned j = 2 - axis;
      const auto extent = static_cast<size_t>(geometry.size_zyx[j]);
      io->SetDimensions(axis, extent);
      region.SetSize(axis, extent);
      io->SetSpacing(axis, geometry.spacing_mm_zyx[j]);
      io->SetOrigin(axis, geometry.origin_lps_mm[axis]);
      std::vector<double> direction(3);
      for (unsigned i = 0; i < 3; ++i) direction[i] = geometry.direction_lps_from_zyx[i][j];
      io->SetDirection(axis, direction);
    }
    io->SetIORegion(region);
    io->SetComponentType(component_of(type));
    io->SetNumberOfComponents(static_cast<unsigned>(components));
    io->SetPixelType(components > 1 ? itk::ImageIOBase::VECTOR : itk::ImageIOBase::SCALAR);
    io->SetUseCompression(true);
    io->Write(voxels);
  } catch (const itk::ExceptionObject& error) {
    throw DataError(path, "cannot be written; ITK says: " + reason(error));
  }
}

}  // namespace vireo::io
