#include "apps/engine/prediction_memory.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include <sys/resource.h>
#include <unistd.h>

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = int64_t{1} << 20;
// What the C library keeps of freed memory, and libraries take when they are first used.
constexpr int64_t kSlack = 96 * kMiB;
constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

std::string gibibytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", static_cast<double>(bytes) / (1 << 30));
  return text;
}

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

}  // namespace

int64_t MemoryEstimate::total() const {
  return program + image + std::max({reading, network, writing});
}

std::string MemoryEstimate::text() const {
  return memory_text(total()) + " (program " + gibibytes(program) + ", image " + gibibytes(image) +
         ", and the most of reading " + gibibytes(reading) + ", network " + gibibytes(network) +
         ", writing " + gibibytes(writing) + ")";
}

MemoryPlan plan_memory(const std::vector<TrainedModel>& models,
                       const VoxelMemory& image,
                       const PredictionShape& shape,
                       const InferenceOptions& inference,
                       int64_t program_bytes,
                       int64_t allowed_bytes) {
  const auto& stored = shape.stored_size;
  const auto& prepared = shape.prepared_size;
  const int64_t voxels = stored[0] * stored[1] * stored[2];
  const int64_t stored_area = stored[1] * stored[2], area = prepared[1] * prepared[2];
  int64_t neighbours = 0;
  for (const TrainedModel& trained : models) neighbours = std::max(neighbours, trained.neighbours);

  // Stored slices, resampled along one axis after the other: two generations and the result.
  const int64_t slice_of_input =
      3 * 4 * shape.channels * std::max(stored[1], prepared[1]) * std::max(stored[2], prepared[2]);
  const int64_t stored_per_slice = (stored[0] + prepared[0] - 1) / prepared[0];
  const int64_t per_slice =
      slice_memory_bytes(models, prepared[1], prepared[2]) + stored_per_slice * slice_of_input;
  const int64_t around = (2 * neighbours * stored_per_slice + 4) * slice_of_input +
                         4 * shape.class_count * (area + (shape.probabilities ? stored_area : 0)) +
                         kSlack;

  MemoryPlan plan;
  MemoryEstimate& estimate = plan.estimate;
  estimate.program = program_bytes;
  estimate.image = image.held;
  estimate.reading = image.reading + kSlack;
  const int64_t most = inference.batch > 0 ? inference.batch : inference.memory_bytes / per_slice;
  const int64_t spare = allowed_bytes - program_bytes - image.held - voxels - around;
  plan.batch = std::clamp<int64_t>(std::min(most, spare / per_slice), 1, prepared[0]);
  estimate.network = voxels + around + plan.batch * per_slice;

  // Class numbers, label values, and their copy in the type that is written.
  const int64_t labels = voxels * (1 + (shape.wide_labels ? 6 : 1));
  int64_t most_writing = labels + (shape.wide_labels ? 0 : voxels);
  // The bits of every class, twice; contours of an organ's surface are small beside them.
  if (shape.segments)
    most_writing = std::max(most_writing, labels + voxels * shape.class_count / 4);
  // The labels in two orders, and a class at a time.
  if (shape.probabilities) most_writing = std::max(most_writing, 6 * voxels);
  estimate.writing = most_writing + kSlack;
  return plan;
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

std::string memory_text(int64_t bytes) {
  if (bytes < (int64_t{1} << 30)) return std::to_string((bytes + kMiB - 1) / kMiB) + " MiB";
  return gibibytes(bytes) + " GiB";
}

}  // namespace vireo
