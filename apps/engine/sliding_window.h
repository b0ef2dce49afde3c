#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "apps/engine/trained_model.h"

// Inference over a prepared image, slice by slice and within bounded memory: the class
// probabilities of a whole volume never exist at once.
namespace vireo {

struct InferenceOptions {
  /// Average over mirrored copies of the input. Nothing: along the axes that training flipped;
  /// true: the same (both axes where training flipped none); false: never.
  std::optional<bool> mirroring;
  /// Share of a window that neighbouring windows have in common, in [0, 0.95].
  double overlap = 0.5;
  /// Slices that go through a network together; 0: as many as `memory_bytes` allows, and no more
  /// than let progress and a wish to stop be seen (2^22 pixels).
  int64_t batch = 0;
  /// Working memory that a batch may take (activations and probabilities), as estimated by
  /// slice_memory_bytes(). At least one slice is always processed.
  int64_t memory_bytes = int64_t{512} << 20;
  at::Device device = at::kCPU;
  /// That the caller prepared the models in; recorded with the results.
  Arithmetic precision = Arithmetic::kFloat32;
  /// Called after each slab with the number of slices done and their total.
  std::function<void(int64_t done, int64_t total)> progress;
};

/// A prepared image of which only some slices need exist at once.
struct SliceSource {
  int64_t channels = 1;
  std::array<int64_t, 3> size{};  ///< slices, height, width
  /// Slices first..first+count-1: float32 [C, count, H, W] on the CPU.
  std::function<at::Tensor(int64_t first, int64_t count)> read;
};

/// A whole prepared image [C, D, H, W].
SliceSource slices_of(const at::Tensor& image);

/// Receives class probabilities float32 [S, K, H, W] of slices first..first+S-1, in order and
/// without gaps, on the options' device.
using ProbabilitySink = std::function<void(int64_t first_slice, const at::Tensor& probabilities)>;

/// Class probabilities of `image`, averaged over models, mirrored
/// copies and overlapping windows. A slice that fits a model's window is padded to it (as training
/// pads) and taken whole; a larger one is covered by windows, blended with Gaussian weights (sigma
/// = window / 8, zeros raised to the smallest positive weight). Neighbouring slices beyond the ends
/// repeat the last one. Slices are asked for once, a batch and its neighbours at a time. Every
/// model must be on options.device, in eval mode, and have the same number of classes. Throws Error
/// where the image does not suit the models.
void predict_probabilities(const std::vector<TrainedModel>& models,
                           const SliceSource& image,
                           const InferenceOptions& options,
                           const ProbabilitySink& sink);

/// The most probable class of every voxel of `image` [C, D, H, W]: uint8 [D, H, W] on the CPU.
at::Tensor predict_labels(const std::vector<TrainedModel>& models,
                          const at::Tensor& image,
                          const InferenceOptions& options);

/// Estimated working memory of one slice [H, W] in a batch, in bytes.
int64_t slice_memory_bytes(const std::vector<TrainedModel>& models, int64_t height, int64_t width);

/// What `options` ask for: slices [H, W] of `bytes_per_slice` each at once; may be 0.
int64_t slices_at_once(const InferenceOptions& options,
                       int64_t bytes_per_slice,
                       int64_t height,
                       int64_t width);

/// Slices per batch that `options` and slice_memory_bytes() lead to for an image of `size` (slices,
/// height, width), 1..slices.
int64_t batch_size(const std::vector<TrainedModel>& models,
                   const std::array<int64_t, 3>& size,
                   const InferenceOptions& options);

/// Starts of windows of length `window` that cover `size`, evenly spread, overlapping by at least
/// `overlap`; {0} where one suffices.
std::vector<int64_t> window_starts(int64_t size, int64_t window, double overlap);

/// Gaussian importance [height, width], float32, largest value 1, all positive.
at::Tensor gaussian_importance(int64_t height, int64_t width);

}  // namespace vireo
