#include "kernels/bench/plain_copy.h"

#include <cstring>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace vireo {

PlainCopy::PlainCopy(int64_t bytes, at::Device device)
    : from_(at::ones({bytes / 2}, at::device(device).dtype(at::kByte))),
      to_(at::zeros_like(from_)) {}

void PlainCopy::operator()() const {
  if (!from_.is_cpu()) {
    at::Tensor(to_).copy_(from_);
    return;
  }
  const uint8_t* from = from_.const_data_ptr<uint8_t>();
  uint8_t* to = to_.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, from_.numel(), at::internal::GRAIN_SIZE, [&](int64_t begin, int64_t end) {
    std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

}  // namespace vireo
