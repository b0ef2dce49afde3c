#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include <c10/core/Allocator.h>

namespace vireo::cuda_on_cpu {

/// Memory of tensors: NaN before it is written to, and NaN on either side, where whoever writes is
/// found out when the memory is freed.
class GuardedMemory : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device cpu(c10::kCPU);
    if (bytes == 0) return {nullptr, cpu};
    const size_t all = (bytes + 2 * kGuard + kAlignment - 1) / kAlignment * kAlignment;
    auto* base = static_cast<unsigned char*>(std::aligned_alloc(kAlignment, all));
    if (base == nullptr) throw std::bad_alloc();
    std::fill_n(base, all, kPoison);
    reinterpret_cast<size_t*>(base)[0] = all;
    reinterpret_cast<size_t*>(base)[1] = bytes;
    return {base + kGuard, base, &release, cpu};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

  /// How many tensors someone wrote beyond, of those freed so far.
  static inline int64_t overrun = 0;

 private:
  static constexpr size_t kAlignment = 64, kGuard = 4096;
  static constexpr unsigned char kPoison = 0xff;

  static void release(void* context) {
    auto* base = static_cast<unsigned char*>(context);
    const size_t all = reinterpret_cast<size_t*>(base)[0];
    const size_t bytes = reinterpret_cast<size_t*>(base)[1];
    const auto clean = [](const unsigned char* from, const unsigned char* to) {
      return std::all_of(from, to, [](unsigned char c) { return c == kPoison; });
    };
    if (!clean(base + 2 * sizeof(size_t), base + kGuard) ||
        !clean(base + kGuard + bytes, base + all))
      ++overrun;
    std::free(base);
  }
};

}  // namespace vireo::cuda_on_cpu
