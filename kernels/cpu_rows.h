#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cpu_isa.h"

// What the CPU operators do alike around their rows, the loops compiled once per instruction set.
namespace vireo {

/// An operator's table of loops for cpu_isa().
template <class Table>
const Table& table_in_use(const Table& (*portable)(),
                          const Table& (*avx2)(),
                          const Table& (*avx512)()) {
  return cpu_isa() >= CpuIsa::kAvx512 ? avx512() : cpu_isa() == CpuIsa::kAvx2 ? avx2() : portable();
}

/// That of a namespace of loops; other processors than x86-64 have the portable one alone.
#if defined(__x86_64__)
#define VIREO_TABLE_IN_USE(rows) ::vireo::table_in_use(rows::portable, rows::avx2, rows::avx512)
#else
#define VIREO_TABLE_IN_USE(rows) rows::portable()
#endif

/// The loops of a table for one storage type: float32, float64, bfloat16 or float16.
template <class Table>
const auto& functions_of(const Table& table, at::ScalarType type) {
  return type == at::kFloat      ? table.f32
         : type == at::kDouble   ? table.f64
         : type == at::kBFloat16 ? table.bf16
                                 : table.f16;
}

/// [B,T,C] with channels side by side, as the loops want them; batch and token strides may be
/// anything.
inline at::Tensor with_unit_channels(const at::Tensor& x) {
  return x.stride(2) == 1 || x.size(2) == 1 ? x : x.contiguous();
}

}  // namespace vireo
