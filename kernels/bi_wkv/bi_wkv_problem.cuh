#pragma once

#include <cstdint>
#include <type_traits>

#include <ATen/OpMathType.h>

#include "kernels/bi_wkv/bi_wkv_blocks.h"

// What Bi-WKV's CUDA kernels share: their input, and what one thread does with its block of kBlock
// tokens of one channel. Lanes of a warp are neighbouring channels. For bi_wkv_cuda.cu alone.
namespace vireo {
namespace {

using namespace wkv;

/// Everything contiguous, [B,T,C]; w, u [C].
template <class T>
struct Problem {
  using S = at::opmath_type<T>;
  const S* w;
  const S* u;
  const T* k;
  const T* v;
  const T* gy;
  int64_t batch;
  int64_t tokens;
  int64_t channels;

  C10_HOST_DEVICE int64_t blocks() const { return (tokens + kBlock - 1) / kBlock; }
  C10_HOST_DEVICE int64_t tiles() const { return (channels + 31) / 32; }

  __device__ int64_t first(int64_t b, int64_t j, int64_t c) const {
    return (b * tokens + j * kBlock) * channels + c;
  }
  __device__ int count(int64_t j) const {
    const int64_t left = tokens - j * kBlock;
    return left < kBlock ? static_cast<int>(left) : kBlock;
  }
  __device__ Block<S> read(int64_t b, int64_t j, int64_t c) const {
    const int64_t at = first(b, j, c);
    Block<S> block;
    block.read(
        count(j),
        [&](int i) { return static_cast<S>(k[at + i * channels]); },
        [&](int i) { return static_cast<S>(v[at + i * channels]); });
    return block;
  }
};

/// Calls body(std::bool_constant<wide>) as this channel's decay asks.
template <class T, class Body>
__device__ void with_way(const Problem<T>& p, int64_t c, const Body& body) {
  if (row_is_safe(static_cast<double>(p.w[c]), static_cast<double>(p.u[c]), p.tokens))
    body(std::false_type{});
  else
    body(std::true_type{});
}

template <class T, class S>
__device__ Ends<S> key_ends(const Problem<T>& p, const Block<S>& block, int64_t c) {
  Ends<S> ends;
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    ends = summarise_keys<kWide>(block, channel_of<kWide>(p.w[c], p.u[c], p.tokens));
  });
  return ends;
}

template <class T, class S>
__device__ void write_y(const Problem<T>& p,
                        const Block<S>& block,
                        const Ends<S>& entering,
                        int64_t at,
                        int64_t c,
                        T* y) {
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    apply_keys<kWide>(
        block, entering, channel_of<kWide>(p.w[c], p.u[c], p.tokens), [&](int i, S value) {
          y[at + i * p.channels] = static_cast<T>(value);
        });
  });
}

template <class T, class S>
__device__ Ends<S> gradient_ends(
    const Problem<T>& p, const Block<S>& block, const Ends<S>& entering, int64_t at, int64_t c) {
  Ends<S> ends;
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    ends = summarise_gradients<kWide>(
        block, entering, channel_of<kWide>(p.w[c], p.u[c], p.tokens), [&](int i) {
          return static_cast<S>(p.gy[at + i * p.channels]);
        });
  });
  return ends;
}

template <class T, class S>
__device__ Share<S> write_gradients(const Problem<T>& p,
                                    const Block<S>& block,
                                    const Ends<S>& entering,
                                    const Ends<S>& gentering,
                                    int64_t at,
                                    int64_t c,
                                    T* gk,
                                    T* gv) {
  Share<S> share;
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    share = apply_gradients<kWide>(
        block,
        entering,
        gentering,
        channel_of<kWide>(p.w[c], p.u[c], p.tokens),
        [&](int i) { return static_cast<S>(p.gy[at + i * p.channels]); },
        [&](int i, S at_k, S at_v) {
          gk[at + i * p.channels] = static_cast<T>(at_k);
          gv[at + i * p.channels] = static_cast<T>(at_v);
        });
  });
  return share;
}

}  // namespace
}  // namespace vireo
