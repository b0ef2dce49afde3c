#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "apps/engine/sliding_window.h"
#include "apps/engine/trained_model.h"
#include "vision/io/image_file.h"

// How much memory predicting a case takes, told before it starts.
namespace vireo {

/// The most resident memory of this process while it predicts a case, in bytes: the program and the
/// image, and the largest of what is needed beside them in turn.
struct MemoryEstimate {
  int64_t program = 0;  ///< before the case: the program, its libraries, the weights
  int64_t image = 0;    ///< the image as it is held to the end
  int64_t reading = 0;  ///< to read it
  int64_t network = 0;  ///< the labels, and one slab of slices on its way through the network
  int64_t writing = 0;  ///< the labels, and what the outputs make of them

  int64_t total() const;
  /// "1.7 GiB (program 0.4, image 0.5, reading 0.0, network 0.7, writing 0.5)"
  std::string text() const;
};

/// What the estimate depends on beside the image.
struct PredictionShape {
  std::array<int64_t, 3> stored_size{};    ///< in the order of the prepared axes
  std::array<int64_t, 3> prepared_size{};  ///< slices, height, width
  int64_t channels = 1;                    ///< of the prepared image
  int64_t class_count = 2;
  bool wide_labels = false;    ///< label values beyond 255
  bool probabilities = false;  ///< written too
  bool segments = false;       ///< DICOM SEG, RTSTRUCT or seg.nrrd are written too
};

struct MemoryPlan {
  MemoryEstimate estimate;
  int64_t batch = 1;  ///< slices that go through the network together
};

/// Takes as many slices at once as `inference` wishes and `allowed_bytes` leave room for, at least
/// one: then the estimate may exceed what is allowed.
MemoryPlan plan_memory(const std::vector<TrainedModel>& models,
                       const VoxelMemory& image,
                       const PredictionShape& shape,
                       const InferenceOptions& inference,
                       int64_t program_bytes,
                       int64_t allowed_bytes);

/// "512 MiB", "1.7 GiB".
std::string memory_text(int64_t bytes);

}  // namespace vireo
