#pragma once

#include <cstdint>

// Storage types for the CPU kernels that are compiled once per instruction set. Those files include
// no Torch headers, and everything in them has internal linkage: a shared inline function compiled
// for AVX-512 could otherwise be the one the linker keeps for everyone.
namespace {

/// What a storage type is computed with.
template <class T>
struct StateOf {
  using type = float;
};
template <>
struct StateOf<double> {
  using type = double;
};

struct Bf16 {
  uint16_t bits;
};
#if defined(__aarch64__) || (defined(__clang__) && __clang_major__ < 15)
using Half = __fp16;  // which GCC 12 and Clang 14 have in place of _Float16 there
#else
using Half = _Float16;
#endif

[[maybe_unused]] inline float load_as_float(float x) {
  return x;
}
[[maybe_unused]] inline double load_as_float(double x) {
  return x;
}
[[maybe_unused]] inline float load_as_float(const Half& x) {  // __fp16 cannot be handed over
  return static_cast<float>(x);
}
[[maybe_unused]] inline float load_as_float(Bf16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

[[maybe_unused]] inline void store_from_float(float* to, float x) {
  *to = x;
}
[[maybe_unused]] inline void store_from_float(double* to, double x) {
  *to = x;
}
[[maybe_unused]] inline void store_from_float(Half* to, float x) {
  *to = static_cast<Half>(x);
}
/// Rounds to nearest, ties to even; NaN stays NaN.
[[maybe_unused]] inline void store_from_float(Bf16* to, float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to->bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}

}  // namespace
