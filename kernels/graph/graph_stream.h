#pragma once

#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

namespace vireo {

/// Work that a device has recorded, and repeats by a single launch: the same operations on the same
/// memory.
class Recording {
 public:
  virtual ~Recording() = default;
  /// On the caller's stream.
  virtual void repeat() = 0;
};

/// A stream on which work can be recorded, apart from the caller's.
class GraphStream {
 public:
  virtual ~GraphStream() = default;
  /// Does the work now: after what the caller's stream holds, before what follows there.
  virtual void run(const std::function<void()>& work) = 0;
  /// Records the work without doing it. Throws where it holds what cannot be recorded, such as
  /// reading a result back; the stream is usable afterwards. The tensors that the work makes live
  /// as long as the recording.
  virtual std::unique_ptr<Recording> record(const std::function<void()>& work) = 0;
};

/// CUDA graphs; null for a device that has none (load_cuda_kernels must have succeeded before).
std::unique_ptr<GraphStream> graph_stream_of(at::Device device);

using GraphStreamMaker = std::unique_ptr<GraphStream> (*)(at::Device device);
/// For the CUDA half, which is loaded at run time.
struct GraphStreamRegistration {
  explicit GraphStreamRegistration(GraphStreamMaker maker);
};

}  // namespace vireo
