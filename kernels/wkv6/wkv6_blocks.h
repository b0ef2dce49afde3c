#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/wkv6/wkv6_math.h"

// WKV6 on the GPU: one block of threads per chunk of tokens of one head, in three kernels per
// direction: what every chunk adds to the states; the states that enter every chunk; the chunk's
// results. A Team is the threads of a block: rank(), size(), sync(). Everything here also runs on a
// CPU with a team of one, which is how it is tested.
namespace vireo::wkv6_math {

/// Scores are summed over channels in this many parts.
constexpr int kSlices = 4;
/// Tokens that one thread of a matrix product takes together.
constexpr int kTogether = 4;

/// Contiguous tensors: r, k, v, gy, log_decay [B,T,C], u [C].
template <class T, class S>
struct Problem {
  const T* r;
  const T* k;
  const T* v;
  const T* gy;
  const S* log_decay;
  const S* u;
  int64_t rows;  ///< B times heads
  int64_t tokens;
  int64_t heads;
  int head;  ///< N

  VIREO_WKV6_ANYWHERE int64_t chunks() const { return (tokens + kChunk - 1) / kChunk; }
};

/// One chunk of one row, in the order of a walk.
struct Place {
  int64_t row, chunk;
  bool from_left;

  template <class T, class S>
  VIREO_WKV6_ANYWHERE int count(const Problem<T, S>& p) const {
    const int64_t left = p.tokens - chunk * kChunk;
    return left < kChunk ? static_cast<int>(left) : kChunk;
  }
  /// Where the walk's t-th token of the chunk begins in a [B,T,C] tensor.
  template <class T, class S>
  VIREO_WKV6_ANYWHERE int64_t offset(const Problem<T, S>& p, int t) const {
    const int64_t token = chunk * kChunk + (from_left ? t : count(p) - 1 - t);
    return ((row / p.heads * p.tokens + token) * p.heads + row % p.heads) * p.head;
  }
};

/// A block's shared memory; [kChunk][N] unless said otherwise.
template <class S>
struct Tile {
  S *r, *k, *v, *g, *d, *before, *behind, *inter_r, *inter_k;
  S *pairs, *scores;  ///< [kChunk][kChunk]
  S* parts;           ///< [kSlices][kChunk][kChunk]
  S* crossed;         ///< [N]

  VIREO_WKV6_ANYWHERE Tile(S* memory, int head, bool backward) {
    const auto take = [&](int64_t count) {
      S* taken = memory;
      memory += count;
      return taken;
    };
    const int64_t rows = int64_t{kChunk} * head;
    r = take(rows);
    k = take(rows);
    v = take(rows);
    d = take(rows);
    before = take(rows);
    behind = take(rows);
    scores = take(kChunk * kChunk);
    parts = take(kSlices * kChunk * kChunk);
    if (!backward) return;
    g = take(rows);
    inter_r = take(rows);
    inter_k = take(rows);
    pairs = take(kChunk * kChunk);
    crossed = take(head);
  }
  static int64_t size(int head, bool backward) {
    return int64_t{kChunk} * head * (backward ? 9 : 6) +
           kChunk * kChunk * (1 + kSlices + (backward ? 1 : 0)) + (backward ? head : 0);
  }
};

/// Tokens that the chunk lacks are zero, and so is their ln d.
template <class Team, class From, class T, class S>
VIREO_WKV6_ANYWHERE void read(
    const Team& team, const Problem<T, S>& p, const Place& place, const From* from, S* to) {
  const int count = place.count(p);
  for (int e = team.rank(); e < kChunk * p.head; e += team.size()) {
    const int t = e / p.head, n = e % p.head;
    to[e] = t < count ? static_cast<S>(from[place.offset(p, t) + n]) : S(0);
  }
}

/// d, before and behind from ln d, which d holds.
template <class Team, class S>
VIREO_WKV6_ANYWHERE void derive_decays(const Team& team, int head, const Tile<S>& tile) {
  for (int n = team.rank(); n < head; n += team.size()) {
    for (int t = 0; t < kChunk; ++t) tile.d[t * head + n] = ::exp(tile.d[t * head + n]);
    products_of_decays(
        S(1),
        [&](int t) { return tile.d[t * head + n]; },
        [&](int t, S x) { tile.before[t * head + n] = x; },
        [&](int t, S x) { tile.behind[t * head + n] = x; });
  }
}

/// What a chunk adds to a state, sum [N][N], and prod d - 1 over it, less_one [N]. Of k and v, or
/// with `gradient` of r and gy.
template <class Team, class T, class S>
VIREO_WKV6_ANYWHERE void summarise_chunk(const Team& team,
                                         const Problem<T, S>& p,
                                         const Place& place,
                                         bool gradient,
                                         const Tile<S>& tile,
                                         S* sum,
                                         S* less_one) {
  read(team, p, place, gradient ? p.r : p.k, tile.k);
  read(team, p, place, gradient ? p.gy : p.v, tile.v);
  read(team, p, place, p.log_decay, tile.d);
  team.sync();
  for (int n = team.rank(); n < p.head; n += team.size()) {
    S log_total = 0;
    for (int t = 0; t < kChunk; ++t) log_total += tile.d[t * p.head + n];
    less_one[n] = ::expm1(log_total);
  }
  team.sync();
  derive_decays(team, p.head, tile);
  team.sync();
  for (int e = team.rank(); e < kChunk * p.head; e += team.size()) tile.k[e] *= tile.behind[e];
  team.sync();
  for (int e = team.rank(); e < p.head * p.head; e += team.size()) {
    const int n = e / p.head, m = e % p.head;
    S total = 0;
    for (int t = 0; t < kChunk; ++t) total += tile.k[t * p.head + n] * tile.v[t * p.head + m];
    sum[e] = total;
  }
}

/// Replaces one number of every chunk's sum by what enters the chunk. `states` is the row's
/// [chunks][N][N], less_one its [chunks][N].
template <class S>
VIREO_WKV6_ANYWHERE void carry_number(
    int64_t chunks, int head, bool from_left, int n, int m, S* states, const S* less_one) {
  S running = 0;
  for (int64_t j = 0; j < chunks; ++j) {
    const int64_t chunk = from_left ? j : chunks - 1 - j;
    S* place = states + (chunk * head + n) * head + m;
    const S own = *place;
    *place = running;
    running += running * less_one[chunk * head + n] + own;
  }
}

/// scores[t][i] = sum_n r_t k_i prod_{i<s<t} d_s for i < t; [t][t] = sum_n r_t u k_t where u is
/// given; zero elsewhere.
template <class Team, class S>
VIREO_WKV6_ANYWHERE void score_chunk(const Team& team, int head, const S* u, const Tile<S>& tile) {
  for (int e = team.rank(); e < kChunk * kSlices; e += team.size()) {
    const int i = e % kChunk, slice = e / kChunk;
    S sum[kChunk];
    for (int t = 0; t < kChunk; ++t) sum[t] = 0;
    for (int n = slice; n < head; n += kSlices) {
      S x = tile.k[i * head + n];
      if (u != nullptr) sum[i] += tile.r[i * head + n] * u[n] * x;
      for (int t = 0; t < kChunk; ++t) {
        if (t <= i) continue;
        sum[t] += tile.r[t * head + n] * x;
        x *= tile.d[t * head + n];
      }
    }
    for (int t = 0; t < kChunk; ++t) tile.parts[(slice * kChunk + t) * kChunk + i] = sum[t];
  }
  team.sync();
  for (int e = team.rank(); e < kChunk * kChunk; e += team.size()) {
    S sum = 0;
    for (int slice = 0; slice < kSlices; ++slice) sum += tile.parts[slice * kChunk * kChunk + e];
    tile.scores[e] = sum;
  }
}

/// to(t, m, sum_n weighted[t][n] state[n][m] + sum_i scores(t, i) value[i][m])
template <class Team, class S, class Score, class Write>
VIREO_WKV6_ANYWHERE void mix_tokens(const Team& team,
                                    int head,
                                    const S* weighted,
                                    const S* state,
                                    const S* value,
                                    const Score& scores,
                                    const Write& to) {
  for (int e = team.rank(); e < kChunk / kTogether * head; e += team.size()) {
    const int m = e % head, first = e / head * kTogether;
    S sum[kTogether];
    for (int j = 0; j < kTogether; ++j) sum[j] = 0;
    for (int n = 0; n < head; ++n) {
      const S x = state[n * head + m];
      for (int j = 0; j < kTogether; ++j) sum[j] += weighted[(first + j) * head + n] * x;
    }
    for (int i = 0; i < kChunk; ++i) {
      const S x = value[i * head + m];
      for (int j = 0; j < kTogether; ++j) sum[j] += scores(first + j, i) * x;
    }
    for (int j = 0; j < kTogether; ++j) to(first + j, m, sum[j]);
  }
}

/// to[t][n] = sum_m state[n][m] value[t][m]
template <class Team, class S>
VIREO_WKV6_ANYWHERE void apply_state(
    const Team& team, int head, const S* state, const S* value, S* to) {
  for (int e = team.rank(); e < kChunk / kTogether * head; e += team.size()) {
    const int n = e % head, first = e / head * kTogether;
    S sum[kTogether];
    for (int j = 0; j < kTogether; ++j) sum[j] = 0;
    for (int m = 0; m < head; ++m) {
      const S x = state[n * head + m];
      for (int j = 0; j < kTogether; ++j) sum[j] += x * value[(first + j) * head + m];
    }
    for (int j = 0; j < kTogether; ++j) to[(first + j) * head + n] = sum[j];
  }
}

/// The walk from the left comes first: it writes and counts the bonus; the other one adds.
template <class S>
VIREO_WKV6_ANYWHERE void put(const Place& place, S value, S* to) {
  *to = place.from_left ? value : *to + value;
}

/// y [B,T,C], from the state that enters the chunk.
template <class Team, class T, class S>
VIREO_WKV6_ANYWHERE void forward_chunk(const Team& team,
                                       const Problem<T, S>& p,
                                       const Place& place,
                                       const S* state,
                                       const Tile<S>& tile,
                                       S* y) {
  read(team, p, place, p.r, tile.r);
  read(team, p, place, p.k, tile.k);
  read(team, p, place, p.v, tile.v);
  read(team, p, place, p.log_decay, tile.d);
  team.sync();
  derive_decays(team, p.head, tile);
  team.sync();
  const S* u = place.from_left ? p.u + place.row % p.heads * p.head : nullptr;
  score_chunk(team, p.head, u, tile);
  for (int e = team.rank(); e < kChunk * p.head; e += team.size()) tile.before[e] *= tile.r[e];
  team.sync();
  const int count = place.count(p);
  mix_tokens(
      team,
      p.head,
      tile.before,
      state,
      tile.v,
      [&](int t, int i) { return tile.scores[t * kChunk + i]; },
      [&](int t, int m, S value) {
        if (t < count) put(place, value, y + place.offset(p, t) + m);
      });
}

/// One channel of a tile, for channel_gradients.
template <class S>
struct TileChannel {
  const Tile<S>& tile;
  int head, n;

  VIREO_WKV6_ANYWHERE S r(int t) const { return tile.r[t * head + n]; }
  VIREO_WKV6_ANYWHERE S k(int t) const { return tile.k[t * head + n]; }
  VIREO_WKV6_ANYWHERE S d(int t) const { return tile.d[t * head + n]; }
  VIREO_WKV6_ANYWHERE S before(int t) const { return tile.before[t * head + n]; }
  VIREO_WKV6_ANYWHERE S behind(int t) const { return tile.behind[t * head + n]; }
  VIREO_WKV6_ANYWHERE S inter_r(int t) const { return tile.inter_r[t * head + n]; }
  VIREO_WKV6_ANYWHERE S inter_k(int t) const { return tile.inter_k[t * head + n]; }
};

/// Gradients [B,T,C], and every chunk's share of gu, [rows][chunks][N].
template <class S>
struct Gradients {
  S *r, *k, *v, *log_decay, *u;
};

/// state: what enters the chunk from before it; z: the gradients' sum from behind it.
template <class Team, class T, class S>
VIREO_WKV6_ANYWHERE void backward_chunk(const Team& team,
                                        const Problem<T, S>& p,
                                        const Place& place,
                                        const S* state,
                                        const S* z,
                                        const Tile<S>& tile,
                                        const Gradients<S>& to) {
  const int head = p.head, count = place.count(p);
  read(team, p, place, p.r, tile.r);
  read(team, p, place, p.k, tile.k);
  read(team, p, place, p.v, tile.v);
  read(team, p, place, p.gy, tile.g);
  read(team, p, place, p.log_decay, tile.d);
  team.sync();
  derive_decays(team, head, tile);
  apply_state(team, head, state, tile.g, tile.inter_r);
  apply_state(team, head, z, tile.v, tile.inter_k);
  for (int e = team.rank(); e < kChunk * kChunk; e += team.size()) {
    const int i = e / kChunk, t = e % kChunk;
    S sum = 0;
    for (int m = 0; m < head; ++m) sum += tile.v[i * head + m] * tile.g[t * head + m];
    tile.pairs[e] = sum;
  }
  for (int n = team.rank(); n < head; n += team.size()) {
    S sum = 0;
    for (int m = 0; m < head; ++m) sum += state[n * head + m] * z[n * head + m];
    tile.crossed[n] = sum;
  }
  team.sync();
  const S* u = place.from_left ? p.u + place.row % p.heads * head : nullptr;
  score_chunk(team, head, u, tile);
  for (int n = team.rank(); n < head; n += team.size()) {
    ChannelGradients<S> g;
    const S bonus = u == nullptr ? S(0) : u[n];
    channel_gradients(TileChannel<S>{tile, head, n},
                      S(1),
                      tile.crossed[n],
                      tile.pairs,
                      u == nullptr ? nullptr : &bonus,
                      g);
    for (int t = 0; t < count; ++t) {
      const int64_t at = place.offset(p, t) + n;
      put(place, g.r[t], to.r + at);
      put(place, g.k[t], to.k + at);
      put(place, g.log_decay[t], to.log_decay + at);
    }
    if (u != nullptr) to.u[(place.row * p.chunks() + place.chunk) * head + n] = g.u;
  }
  team.sync();
  for (int e = team.rank(); e < kChunk * head; e += team.size()) tile.behind[e] *= tile.k[e];
  team.sync();
  mix_tokens(
      team,
      head,
      tile.behind,
      z,
      tile.g,
      [&](int t, int i) { return tile.scores[i * kChunk + t]; },
      [&](int t, int m, S value) {
        if (t < count) put(place, value, to.v + place.offset(p, t) + m);
      });
}

}  // namespace vireo::wkv6_math
