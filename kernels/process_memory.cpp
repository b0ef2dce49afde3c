#include "kernels/process_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include <c10/core/CachingDeviceAllocator.h>
#include <malloc.h>

namespace vireo {
namespace {

// The bytes that a line "Name:   123 kB" of a file in /proc states.
std::optional<int64_t> proc_bytes(const char* path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.rfind(name + ":", 0) == 0) return std::stoll(line.substr(name.size() + 1)) << 10;
  return std::nullopt;
}

int64_t allocated(c10::Device device, bool peak) {
  const auto all =
      c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes[0];
  return peak ? all.peak : all.current;
}

// Makes the system's record of the peak begin anew.
bool reset_resident_peak() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

}  // namespace

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the largest that glibc accepts
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

PeakMemory::PeakMemory(c10::Device device) : device_(device) {
  if (!device_.is_cpu()) {
    c10::getDeviceAllocator(device_.type())->resetPeakStats(device_.index());
    before_ = allocated(device_, false);
    return;
  }
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  if (reset_resident_peak()) before_ = proc_bytes("/proc/self/status", "VmRSS");
}

std::optional<int64_t> PeakMemory::bytes() const {
  if (!before_) return std::nullopt;
  if (!device_.is_cpu()) return allocated(device_, true) - *before_;
  const auto peak = proc_bytes("/proc/self/status", "VmHWM");
  return peak ? std::optional(std::max<int64_t>(0, *peak - *before_)) : std::nullopt;
}

std::optional<int64_t> available_memory(c10::Device device) {
  if (device.is_cpu()) return proc_bytes("/proc/meminfo", "MemAvailable");
  const auto [free, total] = c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
  return static_cast<int64_t>(free);
}

}  // namespace vireo
