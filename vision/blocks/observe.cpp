#include "vision/blocks/observe.h"

#include <utility>

namespace vireo {
namespace {

thread_local ModuleObserver* current = nullptr;

}  // namespace

ObserverScope::ObserverScope(ModuleObserver& observer)
    : previous_(std::exchange(current, &observer)) {}

ObserverScope::~ObserverScope() {
  current = previous_;
}

bool is_observed() {
  return current != nullptr;
}

at::Tensor observed(const torch::nn::Module& module, at::Tensor output, size_t index) {
  if (current) current->on_output(module, index, output);
  return output;
}

}  // namespace vireo
