#pragma once

#if defined(__CUDACC__)
#define VIREO_WKV6_ANYWHERE __host__ __device__ __forceinline__
#else
#define VIREO_WKV6_ANYWHERE inline __attribute__((always_inline))
#endif

// The arithmetic of one chunk of tokens, the same on CPU and GPU. No Torch headers, as the CPU's
// loops that include it are compiled once per instruction set. V is a number on the GPU and a
// vector of neighbouring channels on the CPU. Tokens are numbered in the order of a walk; what is
// written for one from the left holds, mirrored, for one from the right.
namespace vireo::wkv6_math {

/// Within a chunk every pair of tokens is weighed by a running product of decays, which neither
/// overflows nor divides; between chunks a state of N x N numbers is carried.
constexpr int kChunk = 16;

/// before(t) = prod_{s<t} d_s and behind(t) = prod_{s>t} d_s over a chunk; `d(t)` reads, the others
/// write.
template <class V, class Decay, class WriteBefore, class WriteBehind>
VIREO_WKV6_ANYWHERE void products_of_decays(V one,
                                            const Decay& d,
                                            const WriteBefore& before,
                                            const WriteBehind& behind) {
  V product = one;
  for (int t = 0; t < kChunk; ++t) {
    before(t, product);
    product *= d(t);
  }
  product = one;
  for (int t = kChunk - 1; t >= 0; --t) {
    behind(t, product);
    product *= d(t);
  }
}

/// The gradients of one channel (or vector of them) over a chunk.
template <class V>
struct ChannelGradients {
  V r[kChunk];
  V k[kChunk];
  V log_decay[kChunk];
  V u;
};

/// Chunk gives a channel's numbers by token: r(t), k(t), d(t), before(t), behind(t), and from the
/// states that enter the chunk, A from before it and Z from behind it: inter_r(t) = sum_m A_m
/// gy_tm, inter_k(t) = sum_m Z_m v_tm. crossed = sum_m A_m Z_m; pairs[i kChunk + t] = sum_m v_im
/// gy_tm. u is null in the walk that does not count the bonus.
///
/// The gradient of ln d_j gathers the pairs i < j < t without subtracting anything: those with
/// neither end in the chunk, with one, and with both.
template <class V, class S, class Chunk>
VIREO_WKV6_ANYWHERE void channel_gradients(
    const Chunk& chunk, V one, V crossed, const S* pairs, const V* u, ChannelGradients<V>& g) {
  const V none = one - one;
  const V across = chunk.before(kChunk - 1) * chunk.d(kChunk - 1) * crossed;
  V sum = none;
  for (int t = kChunk - 1; t >= 0; --t) {
    g.r[t] = chunk.inter_r(t) * chunk.before(t);
    g.log_decay[t] = across + sum;
    sum += g.r[t] * chunk.r(t);
  }
  sum = none;
  for (int i = 0; i < kChunk; ++i) {
    g.k[i] = chunk.inter_k(i) * chunk.behind(i);
    g.log_decay[i] += sum;
    sum += g.k[i] * chunk.k(i);
  }
  V share[kChunk];
  for (int i = 0; i < kChunk; ++i) {
    const V k = chunk.k(i);
    V between = one;
    for (int t = i + 1; t < kChunk; ++t) {
      const V weight = between * pairs[i * kChunk + t];
      const V weighted_r = weight * chunk.r(t);
      g.r[t] += weight * k;
      g.k[i] += weighted_r;
      share[t] = weighted_r * k;
      between *= chunk.d(t);
    }
    V behind = none;
    for (int t = kChunk - 1; t > i + 1; --t) {
      behind += share[t];
      g.log_decay[t - 1] += behind;
    }
  }
  g.u = none;
  if (u == nullptr) return;
  for (int t = 0; t < kChunk; ++t) {
    const V r = chunk.r(t), k = chunk.k(t);
    const V own = r * pairs[t * kChunk + t];
    g.r[t] += *u * k * pairs[t * kChunk + t];
    g.k[t] += *u * own;
    g.u += own * k;
  }
}

}  // namespace vireo::wkv6_math
