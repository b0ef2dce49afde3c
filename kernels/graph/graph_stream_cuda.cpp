#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/graph/graph_stream.h"

namespace vireo {
namespace {

class CudaRecording : public Recording {
 public:
  void repeat() override { graph.replay(); }
  at::cuda::CUDAGraph graph;
};

class CudaGraphStream : public GraphStream {
 public:
  explicit CudaGraphStream(at::Device device)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())) {}

  void run(const std::function<void()>& work) override {
    const c10::cuda::CUDAStream callers = c10::cuda::getCurrentCUDAStream(stream_.device_index());
    wait(stream_, callers);
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      work();
    }
    wait(callers, stream_);
  }

  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    // Nothing may be under way: what is freed meanwhile could otherwise be waited for.
    c10::cuda::device_synchronize();
    auto recording = std::make_unique<CudaRecording>();
    const c10::cuda::CUDAStreamGuard guard(stream_);
    // Other threads go on to allocate pinned memory for batches.
    recording->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      // Ends the capture, which may have failed already: its own complaint is of no interest.
      try {
        recording->graph.capture_end();
      } catch (...) {
      }
      static_cast<void>(cudaGetLastError());
      throw;
    }
    recording->graph.capture_end();
    return recording;
  }

 private:
  /// Lets `later` wait for what `earlier` holds now.
  static void wait(const c10::cuda::CUDAStream& later, const c10::cuda::CUDAStream& earlier) {
    at::cuda::CUDAEvent event;
    event.record(earlier);
    event.block(later);
  }

  c10::cuda::CUDAStream stream_;
};

const GraphStreamRegistration registration([](at::Device device) -> std::unique_ptr<GraphStream> {
  return std::make_unique<CudaGraphStream>(device);
});

}  // namespace
}  // namespace vireo
