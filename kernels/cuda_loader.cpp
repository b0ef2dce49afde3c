#include "kernels/cuda_loader.h"

#include <filesystem>

#include <c10/util/Exception.h>
#include <dlfcn.h>

namespace vireo {
namespace {

/// The folder that this library was loaded from.
std::filesystem::path own_folder() {
  Dl_info info;
  TORCH_CHECK(dladdr(reinterpret_cast<const void*>(&load_cuda_kernels), &info) != 0,
              "load_cuda_kernels: the library's own path is unknown");
  return std::filesystem::canonical(info.dli_fname).parent_path();
}

bool load() {
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL) == nullptr) return false;
  const std::filesystem::path library = own_folder() / "libvireo_kernels_cuda.so";
  if (!std::filesystem::exists(library)) return false;
  const void* loaded = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  TORCH_CHECK(loaded != nullptr, "load_cuda_kernels: ", dlerror());
  return true;
}

}  // namespace

bool load_cuda_kernels() {
  static const bool loaded = load();
  return loaded;
}

}  // namespace vireo
