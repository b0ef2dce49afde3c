#include "kernels/process_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#include <c10/core/CachingDeviceAllocator.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernels/kept_memory.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number behind a name in files such as /proc/meminfo and memory.stat.
std::optional<int64_t> value_of(const fs::path& file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string word;
    int64_t value = 0;
    if (words >> word && word == name && words >> value) return value;
  }
  return std::nullopt;
}

// A file of one number; "max" and a missing file are none.
std::optional<int64_t> number_in(const fs::path& file) {
  std::ifstream in(file);
  int64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

// What a control group leaves; file pages that it could drop count as free.
int64_t room_in(const fs::path& group, bool second_version) {
  const auto limit = number_in(group / (second_version ? "memory.max" : "memory.limit_in_bytes"));
  const auto used =
      number_in(group / (second_version ? "memory.current" : "memory.usage_in_bytes"));
  if (!limit || !used) return kNoLimit;
  const auto droppable =
      value_of(group / "memory.stat", second_version ? "inactive_file" : "total_inactive_file");
  return std::max<int64_t>(0, *limit - (*used - std::min(*used, droppable.value_or(0))));
}

int64_t room_in_groups(const fs::path& proc, const fs::path& cgroups) {
  int64_t room = kNoLimit;
  std::ifstream in(proc / "self/cgroup");
  // "4:memory:/path" in version 1, "0::/path" in version 2.
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool second_version = controllers == ",,";
    if (!second_version && controllers.find(",memory,") == std::string::npos) continue;
    const fs::path root = second_version ? cgroups : cgroups / "memory";
    // In a container the path may be one that only the host sees: then the root is its group.
    for (fs::path group = fs::path(line.substr(second + 1)).relative_path();;
         group = group.parent_path()) {
      room = std::min(room, room_in(root / group, second_version));
      if (group.empty()) break;
    }
  }
  return room;
}

int64_t pages(const fs::path& statm, int index) {
  std::ifstream in(statm);
  int64_t value = 0;
  for (int i = 0; i <= index; ++i) in >> value;
  return value * ::sysconf(_SC_PAGESIZE);
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
  static const KeptMemory large_blocks;
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
  release_kept_memory();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  if (reset_resident_peak()) before_ = resident_memory_bytes();
}

std::optional<int64_t> PeakMemory::bytes() const {
  if (!before_) return std::nullopt;
  if (!device_.is_cpu()) return allocated(device_, true) - *before_;
  const auto peak = value_of("/proc/self/status", "VmHWM:");
  return peak ? std::optional(std::max<int64_t>(0, *peak * 1024 - *before_)) : std::nullopt;
}

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

int64_t resident_memory_bytes() {
  return pages("/proc/self/statm", 1);
}

int64_t available_memory_bytes(const fs::path& proc, const fs::path& cgroups) {
  int64_t room = room_in_groups(proc, cgroups);
  if (const auto machine = value_of(proc / "meminfo", "MemAvailable:"))
    room = std::min(room, *machine * 1024);
  for (const auto kind : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit limit{};
    if (getrlimit(kind, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) continue;
    const int64_t used = pages(proc / "self/statm", kind == RLIMIT_AS ? 0 : 5);
    room = std::min(room, std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - used));
  }
  return room;
}

int64_t available_memory(c10::Device device) {
  if (device.is_cpu()) return available_memory_bytes();
  const auto [free, total] = c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
  return static_cast<int64_t>(free);
}

}  // namespace vireo
