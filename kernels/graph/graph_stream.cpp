#include "kernels/graph/graph_stream.h"

namespace vireo {
namespace {

GraphStreamMaker& cuda_maker() {
  static GraphStreamMaker maker = nullptr;
  return maker;
}

}  // namespace

GraphStreamRegistration::GraphStreamRegistration(GraphStreamMaker maker) {
  cuda_maker() = maker;
}

std::unique_ptr<GraphStream> graph_stream_of(at::Device device) {
  return device.is_cuda() && cuda_maker() != nullptr ? cuda_maker()(device) : nullptr;
}

}  // namespace vireo
