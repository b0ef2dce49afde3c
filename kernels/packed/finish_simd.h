#pragma once

#include "kernels/cpu_simd.h"
#include "kernels/packed/linear_rows.h"

// What the loops over packed weights share. Internal linkage, for the reason in cpu_scalars.h.
namespace {

/// 1 / (1 + e^-x), without overflow.
inline Vector<float> logistic(Vector<float> x) {
  const Vector<float> e = exp_below<float>(x < 0 ? x : -x, Vector<float>{});
  const Vector<float> one = splat(1.0f);
  return (x < 0 ? e : one) * reciprocal<float>(one + e);
}

template <vireo::linear_rows::Finish kFinish>
inline Vector<float> finished(Vector<float> x) {
  using vireo::linear_rows::Finish;
  if constexpr (kFinish == Finish::kRelu || kFinish == Finish::kReluSquared)
    x = x < 0 ? Vector<float>{} : x;
  if constexpr (kFinish == Finish::kReluSquared) x = x * x;
  if constexpr (kFinish == Finish::kSilu) x = x * logistic(x);
  if constexpr (kFinish == Finish::kSigmoid) x = logistic(x);
  return x;
}

/// The first `count` elements; the other lanes are zero.
template <class T>
inline Vector<float> load_first(const T* from, int count) {
#if defined(__AVX512F__)
  const auto lanes = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (sizeof(T) == 4)
    return _mm512_maskz_loadu_ps(lanes, from);
  else
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from)), 16));
#else
  return load_some<float>(from, count);
#endif
}

template <class T>
inline void store_first(T* to, Vector<float> x, int count) {
#if defined(__AVX512F__)
  const auto lanes = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(to, lanes, x);
  } else {
    alignas(32) T all[Simd<float>::kLanes];
    store(all, x);
    _mm256_mask_storeu_epi16(to, lanes, _mm256_load_si256(reinterpret_cast<const __m256i*>(all)));
  }
#else
  store_some<float>(to, x, count);
#endif
}

}  // namespace
