#include "apps/engine/prediction_memory.h"

#include <algorithm>
#include <cstdio>

namespace vireo {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
// What the C library keeps of freed memory, and libraries take when they are first used.
constexpr int64_t kSlack = 96 * kMiB;

std::string gibibytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", static_cast<double>(bytes) / (1 << 30));
  return text;
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
  const int64_t most = slices_at_once(inference, per_slice, prepared[1], prepared[2]);
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

std::string memory_text(int64_t bytes) {
  if (bytes < (int64_t{1} << 30)) return std::to_string((bytes + kMiB - 1) / kMiB) + " MiB";
  return gibibytes(bytes) + " GiB";
}

}  // namespace vireo
