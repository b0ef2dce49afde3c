#include "datasets/array_file.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <hdf5.h>

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
  const Handle array(H5Dopen2(file.id(), *name, H5P_DEFAULT), H5Dclose);
  if (!array.valid()) throw DataError(path, where + "cannot be opened");
  const Handle space(H5Dget_space(array.id()), H5Sclose);
  const Handle type(H5Dget_type(array.id()), H5Tclose);
  const H5T_class_t kind = H5Tget_class(type.id());
  if (kind != H5T_INTEGER && kind != H5T_FLOAT) throw DataError(path, where + "holds no numbers");
  const int rank = H5Sget_simple_extent_ndims(space.id());
  if (rank != 2 && rank != 3)
    throw DataError(
        path,
        where + "has " + std::to_string(rank) + " dimensions; [Y, X] or [Z, Y, X] was expected");
  hsize_t extents[3];
  H5Sget_simple_extent_dims(space.id(), extents, nullptr);
  std::vector<int64_t> sizes;
  double count = 1;
  for (int i = 0; i < rank; ++i) {
    count *= static_cast<double>(extents[i]);
    sizes.push_back(static_cast<int64_t>(extents[i]));
  }
  const double bytes = count * static_cast<double>(H5Tget_size(type.id()));
  if (count < 1 ||
      bytes > kAlwaysAllowed + kMostInflation * static_cast<double>(fs::file_size(path)))
    throw DataError(path, where + "declares a size that the file cannot hold");
  // float64 holds every stored integer of up to 53 bits.
  at::Tensor values = at::empty(sizes, at::kDouble);
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
  if (!at::equal(whole.to(at::kDouble), values.to(at::kDouble)))
    throw DataError(path, "its labels are no whole numbers");
  return {whole.contiguous(), grid_of(values)};
}

}  // namespace vireo
