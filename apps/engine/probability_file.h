#pragma once

#include <array>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

#include "vision/image/geometry.h"
#include "vision/image/orientation.h"

namespace vireo {

/// Puts a slice to its place in `whole` [Z, Y, X]: `axes` leads from the axes of the whole to those
/// of the slices.
void put_slice(const at::Tensor& whole,
               const Reorientation& axes,
               int64_t index,
               const at::Tensor& slice);

/// The class probabilities of a volume on their way to a file: they come slice by slice, and NIfTI
/// keeps them class by class, so that they wait in a scratch file beside it.
class ProbabilityFile {
 public:
  /// For slices [class_count, H, W], as many as there are: float32. Throws DataError where the disk
  /// has no room for them.
  ProbabilityFile(const std::filesystem::path& output, int64_t class_count, const Geometry& grid);
  ~ProbabilityFile();
  ProbabilityFile(const ProbabilityFile&) = delete;
  ProbabilityFile& operator=(const ProbabilityFile&) = delete;

  void add(const at::Tensor& slice);
  /// Writes the output, a class at a time in memory; see write_channels() and put_slice().
  void write(const Reorientation& axes, const std::filesystem::path& like);

 private:
  void move(bool to_file, void* values, size_t bytes);

  std::filesystem::path output_, scratch_;
  int64_t class_count_;
  Geometry grid_;
  std::FILE* file_ = nullptr;
};

}  // namespace vireo
