#pragma once

#include <cstdint>
#include <optional>

#include <c10/core/Device.h>

namespace vireo {

/// From now on this process keeps the memory it frees. A training step asks for the same blocks
/// again and again; the C library would return the large ones each time and get them back page by
/// page.
void keep_freed_memory();

/// The most memory held at once since this was made, beyond what was held then: resident memory of
/// the process (Linux), or what LibTorch has handed out on a CUDA device.
class PeakMemory {
 public:
  /// Gives freed memory back to the system first, so that taking it again counts.
  explicit PeakMemory(c10::Device device);
  /// Nothing where the system does not tell.
  std::optional<int64_t> bytes() const;

 private:
  c10::Device device_;
  std::optional<int64_t> before_;
};

/// Memory that programs can still take without swapping, in bytes (Linux), or of a CUDA device.
std::optional<int64_t> available_memory(c10::Device device);

}  // namespace vireo
