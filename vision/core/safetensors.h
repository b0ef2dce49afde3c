#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace vireo {

/// A safetensors file (8 bytes of header length, a JSON header, the tensors' bytes), mapped into
/// memory and checked as a whole when it is opened: sizes against the file's before anything is
/// allocated, the header's JSON (UTF-8, no duplicate keys, known fields only), known element types,
/// shapes without overflow, and byte ranges that match their shapes and cover the rest of the file
/// without hole or overlap.
///
/// Element types: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL.
/// Copies share one map. All methods may be called from several threads.
class SafetensorsFile {
 public:
  /// Throws DataError with what was found and what the format asks for.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const;
  const std::map<std::string, std::string>& metadata() const;
  /// In alphabetical order.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const;
  /// A CPU tensor that looks into the map and keeps it alive. The memory is read-only: writing to
  /// the tensor ends the program; clone() first. Data that is not aligned to its element type is
  /// copied. Throws DataError when there is no such tensor.
  at::Tensor tensor(const std::string& name) const;
  /// All of them.
  std::map<std::string, at::Tensor> tensors() const;

 private:
  struct Content;
  explicit SafetensorsFile(std::shared_ptr<const Content> content);
  std::shared_ptr<const Content> content_;
};

/// Writes a safetensors file atomically. The same tensors give the same bytes: wide element types
/// first, then by name, data aligned to 8 bytes. Tensors may be on any device and non-contiguous.
/// Throws DataError for element types that the format does not know and names that are not UTF-8.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, at::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace vireo
