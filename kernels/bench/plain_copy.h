#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace vireo {

/// The limit of an operator that must read and write `bytes` bytes in all: half of them copied to
/// the other half, by all threads, each with one memcpy. The memory that it touches is as large as
/// the operator's, so caches help both alike.
class PlainCopy {
 public:
  PlainCopy(int64_t bytes, at::Device device);
  void operator()() const;

 private:
  at::Tensor from_, to_;
};

}  // namespace vireo
