#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/cpu_scalars.h"

// Vectors as wide as the instruction set that the including file is compiled for. Arithmetic is the
// compiler's own (+, *, comparisons); here is what has no operator. Internal linkage throughout,
// for the reason in cpu_scalars.h.
namespace {

#if defined(__AVX512F__) || defined(VIREO_AMX_EMULATED)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class S>
struct Simd;

template <>
struct Simd<float> {
  static constexpr int kLanes = kVectorBytes / 4;
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef int32_t I __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t U __attribute__((vector_size(kVectorBytes)));
  typedef uint16_t Narrow __attribute__((vector_size(kVectorBytes / 2)));
  static constexpr int kBias = 127;
  static constexpr int kMantissaBits = 23;
  static constexpr float kRound = 12582912.0f;  // adding it leaves no bits behind the point
};

template <>
struct Simd<double> {
  static constexpr int kLanes = kVectorBytes / 8;
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef int64_t I __attribute__((vector_size(kVectorBytes)));
  static constexpr int kBias = 1023;
  static constexpr int kMantissaBits = 52;
  static constexpr double kRound = 6755399441055744.0;
};

template <class S>
using Vector = typename Simd<S>::V;

template <class S>
inline Vector<S> splat(S x) {
  return x - Vector<S>{};
}

/// The larger; the second argument where either is NaN.
inline Vector<float> larger(Vector<float> a, Vector<float> b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
inline Vector<double> larger(Vector<double> a, Vector<double> b) {
#if defined(__AVX512F__)
  return _mm512_max_pd(a, b);
#elif defined(__AVX2__)
  return _mm256_max_pd(a, b);
#else
  return a > b ? a : b;
#endif
}

/// To the nearest integer, for |x| below 2^22.
template <class S>
inline Vector<S> nearest(Vector<S> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4)
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT);
  else
    return _mm512_roundscale_pd(x, _MM_FROUND_TO_NEAREST_INT);
#else
  return (x + Simd<S>::kRound) - Simd<S>::kRound;
#endif
}

/// x 2^e for integral e within the normal range's; zero where it is below.
template <class S>
inline Vector<S> times_pow2(Vector<S> x, Vector<S> e) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4)
    return _mm512_scalef_ps(x, e);
  else
    return _mm512_scalef_pd(x, e);
#else
  using I = typename Simd<S>::I;
  const Vector<S> lowest = splat<S>(-Simd<S>::kBias);
  // The bits of kRound + n hold n in the low end of the mantissa.
  const Vector<S> shifted = larger(lowest, e) + (Simd<S>::kBias + Simd<S>::kRound);
  const I bits = (I)shifted << Simd<S>::kMantissaBits;
  return x * (Vector<S>)bits;
#endif
}

/// 1/x for normal x, to about one unit in the last place.
template <class S>
inline Vector<S> reciprocal(Vector<S> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) {
    const Vector<S> r = _mm512_rcp14_ps(x);
    return r + r * (S(1) - x * r);
  }
#endif
  return S(1) / x;
}

template <class S>
inline Vector<S> load(const S* from) {
  Vector<S> x;
  __builtin_memcpy(&x, from, sizeof(x));
  return x;
}
inline Vector<float> load(const Bf16* from) {
#if defined(__AVX512F__)
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#elif defined(__AVX2__)
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
#else
  Simd<float>::Narrow bits;
  __builtin_memcpy(&bits, from, sizeof(bits));
  return (Vector<float>)(__builtin_convertvector(bits, Simd<float>::U) << 16);
#endif
}
inline Vector<float> load(const Half* from) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__AVX2__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  Vector<float> x;
  for (int i = 0; i < Simd<float>::kLanes; ++i) x[i] = load_as_float(from[i]);
  return x;
#endif
}

template <class S>
inline void store(S* to, Vector<S> x) {
  __builtin_memcpy(to, &x, sizeof(x));
}
inline void store(Bf16* to, Vector<float> x) {
  using U = Simd<float>::U;
  const U bits = (U)x;
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
#if defined(__AVX512F__)
  const __mmask16 numbers = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
  const __m512i kept = _mm512_mask_mov_epi32(_mm512_set1_epi32(0x7fc0), numbers, (__m512i)rounded);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(kept));
#elif defined(__AVX2__)
  const auto kept = (__m256i)(x == x ? rounded : U{} + 0x7fc0u);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(to),
      _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1)));
#else
  const auto narrow =
      __builtin_convertvector(x == x ? rounded : U{} + 0x7fc0u, Simd<float>::Narrow);
  __builtin_memcpy(to, &narrow, sizeof(narrow));
#endif
}
inline void store(Half* to, Vector<float> x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(x, 0));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, 0));
#else
  for (int i = 0; i < Simd<float>::kLanes; ++i) store_from_float(to + i, x[i]);
#endif
}

/// The first `count` elements; the other lanes are zero.
template <class S, class T>
inline Vector<S> load_some(const T* from, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_maskz_loadu_ps((1u << count) - 1, from);
  if constexpr (sizeof(T) == 8) return _mm512_maskz_loadu_pd((1u << count) - 1, from);
#endif
  T padded[Simd<S>::kLanes] = {};
  __builtin_memcpy(padded, from, sizeof(T) * static_cast<unsigned>(count));
  return load(padded);
}
template <class S, class T>
inline void store_some(T* to, Vector<S> x, int count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_mask_storeu_ps(to, (1u << count) - 1, x);
  if constexpr (sizeof(T) == 8) return _mm512_mask_storeu_pd(to, (1u << count) - 1, x);
#endif
  T padded[Simd<S>::kLanes];
  store(padded, x);
  __builtin_memcpy(to, padded, sizeof(T) * static_cast<unsigned>(count));
}

#if defined(__AVX512F__)
/// The bits of 2^(i/16), less what i, moved to the exponent as exp_below does it, adds to them.
struct Sixteenths {
  alignas(64) int32_t bits[16];
};
constexpr Sixteenths kSixteenths = [] {
  constexpr float kRoots[16] = {1.0f,
                                1.04427373f,
                                1.09050775f,
                                1.13878858f,
                                1.18920708f,
                                1.24185777f,
                                1.29683959f,
                                1.35425556f,
                                1.41421354f,
                                1.47682619f,
                                1.54221082f,
                                1.61049032f,
                                1.68179286f,
                                1.75625217f,
                                1.8340081f,
                                1.91520655f};
  Sixteenths table{};
  for (int i = 0; i < 16; ++i) table.bits[i] = __builtin_bit_cast(int32_t, kRoots[i]) - (i << 19);
  return table;
}();
#endif

/// e^x 2^-power for integral power, where that is normal; zero or nearly so where it is tiny. Of
/// several vectors, one operation on all of them before the next: each waits for its last one.
template <class S, int kCount>
inline void exp_below(Vector<S> (&xs)[kCount], Vector<S> power) {
  constexpr S kLn2 = S(0.6931471805599453);
  const Vector<S> lowest = (power - S(Simd<S>::kBias - 1)) * kLn2;
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) {
    // 2^j e^r with j in sixteenths, whose bits end `shifted`: the last four choose a root of two,
    // and the others, moved to the exponent, its power. The float nearest to ln 2 is off by 3e-9 of
    // itself, and Taylor's fourth term is below 1e-8.
    constexpr float kRound = Simd<float>::kRound / 16;
    using I = Simd<float>::I;
    Vector<S> shifted[kCount], r[kCount], root[kCount];
#define VIREO_ALL _Pragma("GCC unroll 8") for (int i = 0; i < kCount; ++i)
    VIREO_ALL xs[i] = larger(lowest, xs[i]);
    VIREO_ALL shifted[i] = xs[i] * 1.44269504f - power;
    VIREO_ALL shifted[i] += kRound;
    VIREO_ALL r[i] = shifted[i] - kRound;
    VIREO_ALL r[i] += power;
    VIREO_ALL r[i] = xs[i] - r[i] * kLn2;
    VIREO_ALL root[i] = (Vector<S>)_mm512_permutexvar_epi32((__m512i)shifted[i],
                                                            _mm512_load_si512(kSixteenths.bits));
    VIREO_ALL root[i] = (Vector<S>)((I)root[i] + ((I)shifted[i] << 19));
    VIREO_ALL xs[i] = r[i] * (1.0f / 6) + 0.5f;
    VIREO_ALL xs[i] = xs[i] * r[i] + 1.0f;
    VIREO_ALL xs[i] *= r[i];
    VIREO_ALL xs[i] = root[i] * xs[i] + root[i];
#undef VIREO_ALL
    return;
  }
#endif
  for (Vector<S>& x : xs) {
    x = larger(lowest, x);
    const Vector<S> j = nearest<S>(x * S(1.4426950408889634));
    Vector<S> p;
    if constexpr (sizeof(S) == 4) {  // minimax on +-0.3475, error 2e-8
      const Vector<S> r = (x - j * 0.693359375f) - j * -2.12194440e-4f;
      p = r * 1.383661292e-3f + 8.375001140e-3f;
      p = p * r + 4.166823998e-2f;
      p = p * r + 1.666641831e-1f;
      p = p * r + 4.999999106e-1f;
      p = p * r + 1.0f;
      p = p * r + 1.0f;
    } else {  // Taylor, error 1e-17
      const Vector<S> r = (x - j * 6.93147180369123816490e-01) - j * 1.90821492927058770002e-10;
      p = r * (1.0 / 6227020800) + 1.0 / 479001600;
      p = p * r + 1.0 / 39916800;
      p = p * r + 1.0 / 3628800;
      p = p * r + 1.0 / 362880;
      p = p * r + 1.0 / 40320;
      p = p * r + 1.0 / 5040;
      p = p * r + 1.0 / 720;
      p = p * r + 1.0 / 120;
      p = p * r + 1.0 / 24;
      p = p * r + 1.0 / 6;
      p = p * r + 0.5;
      p = p * r + 1.0;
      p = p * r + 1.0;
    }
    x = times_pow2<S>(p, j - power);
  }
}

template <class S>
inline Vector<S> exp_below(Vector<S> x, Vector<S> power) {
  Vector<S> xs[1] = {x};
  exp_below<S>(xs, power);
  return xs[0];
}

}  // namespace
