#pragma once

#include <memory>
#include <string>
#include <type_traits>

#include <torch/library.h>

namespace vireo {

/// While it lives, networks compute the operator vireo::NAME by `form`, a function of the same
/// signature made of differentiable operations. For comparisons; not for several threads.
class OperatorInUse {
 public:
  template <typename Form>
  OperatorInUse(const char* name, Form* form, c10::DeviceType device)
      : library_(
            torch::Library::IMPL,
            "vireo",
            device == c10::kCUDA ? c10::DispatchKey::AutogradCUDA : c10::DispatchKey::AutogradCPU,
            __FILE__,
            __LINE__) {
    static_assert(std::is_function_v<Form>);
    library_.impl(name, form);
  }

 private:
  torch::Library library_;
};

}  // namespace vireo
