#pragma once

namespace vireo {

/// An operator's loops for one instruction set, one set of them per storage type.
template <class Functions>
struct ByStorage {
  Functions f32;
  Functions f64;
  Functions bf16;
  Functions f16;
};

}  // namespace vireo
