#include "datasets/array_file.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <hdf5.h>

#include "datasets/array_room.h"
#include "datasets/npz.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArrayEndings[] = {".npy.h5", ".npz", ".h5", ".hdf5"};
// Deflate reaches 1000:1 at best; smaller files may declare this much in any case.
constexpr double kMostInflation = 1032, kAlwaysAllowed = 64 << 20;

std::string ending_of(const fs::path& path) {
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  for (const char* ending : kArrayEndings)
    if (name.ends_with(ending)) return ending;
  return "";
}

// An identifier of the HDF5 library, closed at the end.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t id() const { return id_; }
  bool valid() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// The library's own clean-up at the program's end cannot close what a file that it failed to open
// has left behind, and prints a list of it. Nothing is written that it would have to finish. It has
// to be told before its first use.
[[maybe_unused]] const herr_t kNoCleanUp = H5dont_atexit();

herr_t add_name(hid_t, const char* name, const H5L_info_t*, void* list) {
  static_cast<std::vector<std::string>*>(list)->emplace_back(name);
  return 0;
}

std::string names_text(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "nothing" : text;
}

[[noreturn]] void refuse_names(const fs::path& path,
                               const std::vector<std::string>& found,
                               std::initializer_list<const char*> wanted) {
  throw DataError(
      path, "holds " + names_text(found) + "; an array \"" + *wanted.begin() + "\" was expected");
}

// Values that lie in another file are not read: a set's files could bring any file's.
void check_kept_inside(const fs::path& path,
                       const std::string& where,
                       hid_t file,
                       const char* name) {
  H5L_info_t link;
  if (H5Lget_info(file, name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
    throw DataError(path,
                    where +
                        "is a link, which can lead out of the data set's folder; such links "
                        "are not followed. Copy the values into the file");
}

// What the array's properties say before its values are read: where they lie, and how packed.
void check_storage(const fs::path& path, const std::string& where, hid_t properties) {
  const bool external = H5Pget_external_count(properties) > 0;
  if (external || H5Pget_layout(properties) == H5D_VIRTUAL)
    throw DataError(path,
                    where +
                        (external ? "keeps its values in another file (external storage)"
                                  : "is made of other files' values (a virtual data set)") +
                        ", which can lead out of the data set's folder and is not read. Copy the "
                        "values into the file");
  for (int i = 0; i < H5Pget_nfilters(properties); ++i) {
    unsigned flags = 0, config = 0;
    size_t parameters = 0;
    char name[64] = "";
    const H5Z_filter_t filter = H5Pget_filter2(properties,
                                               static_cast<unsigned>(i),
                                               &flags,
                                               &parameters,
                                               nullptr,
                                               sizeof name,
                                               name,
                                               &config);
    if (filter >= 0 && H5Zfilter_avail(filter) > 0) continue;
    name[sizeof name - 1] = 0;
    throw DataError(path,
                    where + "is packed with the filter " + (*name ? name : "without a name") +
                        " (" + std::to_string(filter) +
                        "), which is not read here. Pack it with gzip: "
                        "create_dataset(..., compression=\"gzip\") in h5py");
  }
}

// Sizes that the file cannot hold, whole or in one chunk, which is unpacked at once.
void check_size(const fs::path& path,
                const std::string& where,
                hid_t array,
                hid_t properties,
                const std::vector<hsize_t>& extents) {
  const Handle type(H5Dget_type(array), H5Tclose);
  const auto width = static_cast<double>(H5Tget_size(type.id()));
  const double stored =
      static_cast<double>(std::min<uint64_t>(H5Dget_storage_size(array), fs::file_size(path)));
  const double most = kAlwaysAllowed + kMostInflation * stored;
  double values = 1, in_chunk = 0;
  for (const hsize_t extent : extents) values *= static_cast<double>(extent);
  if (H5Pget_layout(properties) == H5D_CHUNKED) {
    std::vector<hsize_t> chunk(extents.size());
    H5Pget_chunk(properties, static_cast<int>(chunk.size()), chunk.data());
    in_chunk = 1;
    for (const hsize_t extent : chunk) in_chunk *= static_cast<double>(extent);
  }
  if (values < 1 || std::max(values, in_chunk) * width > most)
    throw DataError(path, where + "declares a size that the file cannot hold");
  check_room(path, where, std::max(values, in_chunk), sizeof(double) + sizeof(float));
}

at::Tensor hdf5_array(const fs::path& path, std::initializer_list<const char*> wanted) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.valid()) throw DataError(path, "is no sound HDF5 file");
  std::vector<std::string> names;
  H5Literate(file.id(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, add_name, &names);
  const auto name = std::find_if(wanted.begin(), wanted.end(), [&](const char* one) {
    return std::find(names.begin(), names.end(), one) != names.end();
  });
  if (name == wanted.end()) refuse_names(path, names, wanted);
  const std::string where = std::string("its array \"") + *name + "\" ";
  check_kept_inside(path, where, file.id(), *name);
  const Handle array(H5Dopen2(file.id(), *name, H5P_DEFAULT), H5Dclose);
  if (!array.valid()) throw DataError(path, where + "cannot be opened");
  const Handle space(H5Dget_space(array.id()), H5Sclose);
  const Handle type(H5Dget_type(array.id()), H5Tclose);
  const Handle properties(H5Dget_create_plist(array.id()), H5Pclose);
  const H5T_class_t kind = H5Tget_class(type.id());
  // Truth values are an enumeration.
  if (kind != H5T_INTEGER && kind != H5T_FLOAT && kind != H5T_ENUM)
    throw DataError(path, where + "holds no numbers");
  const int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank != 2 && rank != 3)
    throw DataError(
        path,
        where + "has " + std::to_string(rank) + " dimensions; [Y, X] or [Z, Y, X] was expected");
  std::vector<hsize_t> extents(static_cast<size_t>(rank));
  H5Sget_simple_extent_dims(space.id(), extents.data(), nullptr);
  check_storage(path, where, properties.id());
  check_size(path, where, array.id(), properties.id(), extents);
  // float64 holds every stored integer of up to 53 bits.
  at::Tensor values = at::empty(std::vector<int64_t>(extents.begin(), extents.end()), at::kDouble);
  if (H5Dread(array.id(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data_ptr()) < 0)
    throw DataError(path, where + "is cut off or broken");
  return values;
}

at::Tensor npz_array(const fs::path& path, std::initializer_list<const char*> wanted) {
  const NpzFile file = NpzFile::open(path);
  for (const char* name : wanted)
    if (file.contains(name)) return file.array(name);
  refuse_names(path, file.names(), wanted);
}

at::Tensor volume_of(const fs::path& path, std::initializer_list<const char*> wanted) {
  at::Tensor values =
      ending_of(path) == ".npz" ? npz_array(path, wanted) : hdf5_array(path, wanted);
  if (values.dim() == 2) values = values.unsqueeze(0);
  if (values.dim() != 3 || values.numel() == 0)
    throw DataError(path,
                    std::string("its array \"") + *wanted.begin() + "\" has the shape " +
                        c10::str(values.sizes()) + "; [Y, X] or [Z, Y, X] was expected");
  return values.unsqueeze(0);
}

Geometry grid_of(const at::Tensor& values) {
  Geometry grid;
  grid.size_zyx = {values.size(1), values.size(2), values.size(3)};
  return grid;
}

}  // namespace

bool is_array_file(const fs::path& path) {
  return !ending_of(path).empty();
}

std::string array_stem(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.substr(0, name.size() - ending_of(path).size());
}

Volume read_array_image(const fs::path& path) {
  const at::Tensor values = volume_of(path, {"image", "img"});
  return {values.to(at::kFloat).contiguous(), grid_of(values)};
}

Volume read_array_labels(const fs::path& path) {
  const at::Tensor values = volume_of(path, {"label", "mask", "seg"});
  const at::Tensor whole = values.to(at::kInt);
  if (!at::equal(whole.to(values.scalar_type()), values))
    throw DataError(path, "its labels are no whole numbers");
  return {whole.contiguous(), grid_of(values)};
}

}  // namespace vireo
