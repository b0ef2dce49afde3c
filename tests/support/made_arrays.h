#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/Functions.h>
#include <hdf5.h>
#include <zlib.h>

#include "vision/core/atomic_file.h"

// Slices and volumes as published research code keeps them: arrays "image" (float32) and "label"
// (uint8), the latter left out where it is undefined.
namespace vireo::test {

inline void put_array(hid_t file, const char* name, const at::Tensor& values) {
  std::vector<hsize_t> sizes;
  for (const int64_t size : values.sizes()) sizes.push_back(static_cast<hsize_t>(size));
  const hid_t space = H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
  const hid_t type = values.scalar_type() == at::kFloat ? H5T_NATIVE_FLOAT : H5T_NATIVE_UINT8;
  const hid_t array = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(array, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.contiguous().const_data_ptr());
  H5Dclose(array);
  H5Sclose(space);
}

inline void write_hdf5(const std::filesystem::path& path,
                       const at::Tensor& image,
                       const at::Tensor& label) {
  std::filesystem::create_directories(path.parent_path());
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  put_array(file, "image", image);
  if (label.defined()) put_array(file, "label", label);
  H5Fclose(file);
}

/// A NumPy archive without compression.
inline void write_npz(const std::filesystem::path& path,
                      const at::Tensor& image,
                      const at::Tensor& label) {
  const auto little = [](uint64_t value, int bytes) {
    std::string text;
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
    return text;
  };
  std::string local, central;
  int count = 0;
  for (const auto& [name, given] : {std::pair{"image.npy", image}, {"label.npy", label}}) {
    const at::Tensor values = given.contiguous();
    std::string shape;
    for (const int64_t size : values.sizes()) shape += std::to_string(size) + ", ";
    std::string header = std::string("{'descr': '") +
                         (values.scalar_type() == at::kFloat ? "<f4" : "|u1") +
                         "', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.resize(118, ' ');
    std::string array = "\x93NUMPY" + std::string("\1\0", 2) + little(118, 2) + header;
    array.append(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
    const auto crc =
        ::crc32(0, reinterpret_cast<const Bytef*>(array.data()), static_cast<uInt>(array.size()));
    const std::string common = little(20, 2) + little(0, 8) + little(crc, 4) +
                               little(array.size(), 4) + little(array.size(), 4) +
                               little(std::strlen(name), 2) + little(0, 2);
    central += "PK\1\2" + little(20, 2) + common + little(0, 10) + little(local.size(), 4) + name;
    local += "PK\3\4" + common + name + array;
    ++count;
  }
  write_text_atomically(path,
                        local + central + "PK\5\6" + little(0, 4) + little(count, 2) +
                            little(count, 2) + little(central.size(), 4) + little(local.size(), 4) +
                            little(0, 2));
}

}  // namespace vireo::test
