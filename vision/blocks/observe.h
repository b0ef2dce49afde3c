#pragma once

#include <cstddef>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

// LibTorch's modules have no hooks in C++; Vireo's blocks report what they compute through these.
namespace vireo {

/// Sees the outputs of modules while an ObserverScope of this thread is open.
class ModuleObserver {
 public:
  virtual ~ModuleObserver() = default;
  /// `index` counts the tensors of a module that returns several; 0 otherwise.
  virtual void on_output(const torch::nn::Module& module,
                         size_t index,
                         const at::Tensor& output) = 0;
};

/// Opens `observer` to the blocks that run on this thread, until the end of the scope.
class ObserverScope {
 public:
  explicit ObserverScope(ModuleObserver& observer);
  ~ObserverScope();
  ObserverScope(const ObserverScope&) = delete;
  ObserverScope& operator=(const ObserverScope&) = delete;

 private:
  ModuleObserver* previous_;
};

bool is_observed();

/// Reports `output` as what `module` computed, and returns it.
at::Tensor observed(const torch::nn::Module& module, at::Tensor output, size_t index = 0);

/// Runs a module of LibTorch's on `input` and reports its output.
template <typename Holder>
at::Tensor run(Holder& module, const at::Tensor& input) {
  return observed(*module, module->forward(input));
}

}  // namespace vireo
