#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace vireo {

/// part(x), keeping only x for the way back: backward runs `part` a second time and differentiates
/// that. Saves the memory of everything inside for the time of one more forward pass. Random
/// numbers and autocast are repeated as they were. Gradients of parameters inside `part` arrive in
/// their .grad alone, so use backward(), not grad().
at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& part,
                      const at::Tensor& x);

}  // namespace vireo
