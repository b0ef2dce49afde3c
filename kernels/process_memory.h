#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include <c10/core/Device.h>

namespace vireo {

/// From now on this process keeps the memory it frees, large blocks as KeptMemory does. A training
/// step asks for the same ones again and again; the C library would return them each time and get
/// them back page by page.
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

/// Highest resident memory of this process so far, and what it is now, in bytes.
int64_t peak_memory_bytes();
int64_t resident_memory_bytes();

/// Memory that this process can still take without driving others out: the machine's
/// (MemAvailable), its control group's (version 1 or 2, and the groups above) and its own limits',
/// whichever is least. Both folders are for tests.
int64_t available_memory_bytes(const std::filesystem::path& proc = "/proc",
                               const std::filesystem::path& cgroups = "/sys/fs/cgroup");

/// The same, or what is free on a CUDA device.
int64_t available_memory(c10::Device device);

}  // namespace vireo
