#pragma once

#include "kernels/wkv6/wkv6_mma.h"

// WKV6 backward by tensor cores. What weighs a pair of tokens is the same seen from either, so
//
//   gv is the forward pass with r and k exchanged, and gy for v;
//   gr and gk are one operator: gr_t = sum over i of decay k_i (v_i gy_t), and gk is the same with
//   r and k exchanged, and v and gy. For causal rows gr counts pairs to the left, gv and gk those
//   to the right.
//
// Of a term's gradient of ln d, both operators add what lies between their token and the middle of
// the pair's level, or the edge of their chunk; nothing is subtracted. The chunks between the two
// tokens' own get it from the states on either side: walks from the left keep theirs (`kept`), of k
// and v, for the other operator's walk from the right, which has the state of r and gy.
namespace vireo::wkv6_math {

/// Of gr's operator; of gk's with a Problem for that, `exchanged`.
template <class T>
struct TileGradients {
  float* part;       ///< [B,T,C], between the walks
  T* x;              ///< gr [B,T,C]
  float* log_decay;  ///< [B,T,C]
  bool add;          ///< to log_decay
  float* u;          ///< [rows][stretches][N], the stretch's own; null: gu is the other one's
  uint32_t* kept;    ///< a row's, [chunks][warps][tiles][parts][lanes][4], from the left: written
};

template <class T>
VIREO_WKV6_ANYWHERE Problem<T, float> exchanged(const Problem<T, float>& p) {
  Problem<T, float> other = p;
  other.r = p.k;
  other.k = p.r;
  other.v = p.gy;
  other.gy = p.v;
  return other;
}

/// The numbers that `kept` has for every chunk of a row.
template <int kTiles, int kParts>
constexpr int64_t kKeptOfChunk = int64_t{kTiles} * kTiles* kParts* kLanes* kOfLane / 2;

/// What one warp finds for a chunk.
template <class Warp>
struct ChunkGradients {
  Numbers<Warp> x, log_decay;
};

/// Adds what a token's terms of size `terms` add to ln d of the tokens before it (or behind it) in
/// its 2^bits tokens.
template <class Warp, class Before>
VIREO_WKV6_ANYWHERE void spread(const Warp& warp,
                                const Numbers<Warp>& terms,
                                int bits,
                                const Before& is_before,
                                Numbers<Warp>& log_decay) {
  const Scan<Warp> sums = add_rows(warp, terms, bits);
  each_number(warp, [&](int h, int e, int row, int) {
    log_decay.x[h][e] += is_before(row) ? sums.behind.x[h][e] : sums.before.x[h][e];
  });
}

/// The pairs within the chunk; `pairs` [t][i] is gy_t v_i. Returns the products of decays.
template <int kParts, class Warp>
VIREO_WKV6_ANYWHERE Scan<Warp> add_pairs_within(const Warp& warp,
                                                const Numbers<Warp>& pairs,
                                                const Numbers<Warp>& r,
                                                const Numbers<Warp>& k,
                                                const Numbers<Warp>& d,
                                                const Walk& walk,
                                                ChunkGradients<Warp>& g) {
  return multiply_rows(warp, d, [&](int l, const auto& scan) {
    if (!walk.last()) return;
    const Numbers<Warp> decay = to_middle(warp, scan, l);
    const Numbers<Warp> level = numbers(warp, [&](int h, int e, int t, int i) {
      return (t ^ i) >> l == 1 && walk.counts(t, i) ? pairs.x[h][e] : 0.0f;
    });
    const auto keys = factor<kParts>(warp, [&](int h, int e) { return k.x[h][e] * decay.x[h][e]; });
    Numbers<Warp> own = zeros(warp), terms;
    multiply(warp, own, factor<kParts>(warp, level), transposed(warp, keys));
    each_number(warp, [&](int h, int e, int, int) {
      own.x[h][e] *= decay.x[h][e];
      g.x.x[h][e] += own.x[h][e];
      terms.x[h][e] = own.x[h][e] * r.x[h][e];
    });
    spread(
        warp, terms, l, [&](int row) { return (row >> l & 1) != 0; }, g.log_decay);
  });
}

/// gr from the state on the walk's side, and the state behind the chunk. With `kept` not null on
/// the way back also what passes over the chunk.
template <class Warp, int kTiles, int kParts>
VIREO_WKV6_ANYWHERE void add_pairs_across(const Warp& warp,
                                          int w,
                                          const Numbers<Warp>& r,
                                          const Scan<Warp>& decays,
                                          const Walk& walk,
                                          const Board<kTiles, kParts>& board,
                                          const uint32_t (*kept)[kParts][kLanes][kOfLane / 2],
                                          const WarpState<Warp, kTiles>& state,
                                          ChunkGradients<Warp>& g) {
  Numbers<Warp> own = zeros(warp), terms, crossing = own;
  const auto ones = factor<kParts>(warp, [](int, int) { return 1.0f; });
  VIREO_WKV6_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    multiply(warp, own, posted<kParts>(warp, board.a[i]), factor<kParts>(warp, state.tile[i]));
    if (kept == nullptr) continue;
    const Numbers<Warp> other = sum_of_parts(warp, posted<kParts>(warp, kept[w * kTiles + i]));
    // A sum over values for every channel, in all rows.
    multiply(warp, crossing, ones, factor<kParts>(warp, [&](int h, int e) {
               return state.tile[i].x[h][e] * other.x[h][e];
             }));
  }
  each_number(warp, [&](int h, int e, int, int) {
    own.x[h][e] *= walk.from_left ? decays.before.x[h][e] : decays.behind.x[h][e];
    g.x.x[h][e] += own.x[h][e];
    g.log_decay.x[h][e] += crossing.x[h][e] * decays.all.x[h][e];
    terms.x[h][e] = own.x[h][e] * r.x[h][e];
  });
  spread(
      warp, terms, 4, [&](int) { return walk.from_left; }, g.log_decay);
}

/// The state of a warp's channels, [channel][value], behind the chunk.
template <class Warp, int kTiles, int kParts>
VIREO_WKV6_ANYWHERE void pass_channels(const Warp& warp,
                                       int w,
                                       const Factor<Warp, kParts>& keys,
                                       const Board<kTiles, kParts>& board,
                                       WarpState<Warp, kTiles>& state) {
  VIREO_WKV6_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    each_number(warp, [&](int h, int e, int row, int) {
      state.tile[i].x[h][e] += state.tile[i].x[h][e] * board.less_one[w * kTile + row];
    });
    multiply(warp, state.tile[i], keys, posted<kParts>(warp, board.b[i]));
  }
}

template <class Warp, class T>
VIREO_WKV6_ANYWHERE void write_log_decay(const Warp& warp,
                                         int w,
                                         const Problem<T, float>& p,
                                         const Place& place,
                                         bool add,
                                         const Numbers<Warp>& own,
                                         float* to) {
  const int64_t first = place.offset(p, 0) + w * kTile, stride = p.heads * p.head;
  const int count = place.count(p);
  each_number(warp, [&](int h, int e, int row, int column) {
    if (row >= count || e % 2 != 0) return;
    float* at = to + first + row * stride + column;
    float left = 0, right = 0;
    if (add) unpack<float>(pair_at(at), left, right);
    put_pair(at, left + own.x[h][e], right + own.x[h][e + 1]);
  });
}

/// `other`: what the other operator's walk from the left kept of the row, for walks from the right;
/// null where there is none.
template <int kTiles, int kParts, class Block, class T>
VIREO_WKV6_ANYWHERE void gradient_stretch(const Block& block,
                                          const Problem<T, float>& p,
                                          const Stretch& stretch,
                                          Board<kTiles, kParts>* boards,
                                          const float* entering,
                                          const uint32_t* other,
                                          const TileGradients<T>& to) {
  using Warp = typename Block::Warp;
  using Kept = uint32_t[kParts][kLanes][kOfLane / 2];
  const Walk& walk = stretch.walk;
  const float* u = p.u + stretch.row % p.heads * p.head;
  WarpState<Warp, kTiles> state[Block::kWarps];
  Numbers<Warp> gu[Block::kWarps];
  block.each_warp([&](const Warp& warp, int w, int index) {
    gu[index] = zeros(warp);
    VIREO_WKV6_UNROLL
    for (int i = 0; i < kTiles; ++i)
      state[index].tile[i] = numbers(warp, [&](int, int, int row, int column) {
        return entering == nullptr ? 0.0f
                                   : entering[(w * kTile + row) * p.head + i * kTile + column];
      });
  });
  walk_chunks(
      block,
      p,
      stretch,
      /*with_r=*/true,
      /*with_gy=*/true,
      boards,
      [&](const Warp& warp, int w, int, const auto& in, auto& board) {
        const auto values = factor<kParts>(warp, in.v.get());
        const auto gradients = factor<kParts>(warp, in.gy.get());
        Numbers<Warp> pairs = zeros(warp);
        if (walk.last()) multiply(warp, pairs, gradients, values);
        each_number(warp, [&](int h, int e, int, int) {
          board.shares[w][warp.lane(h)][e] = pairs.x[h][e];
        });
        post(warp, gradients, board.a[w]);
        post(warp, transposed(warp, values), board.b[w]);
        post_decay(warp, w, in, board);
      },
      [&](const Warp& warp, int w, int index, const auto& in, const auto& board, const Place& at) {
        const Numbers<Warp> r = in.r.get(), k = in.k.get();
        const Numbers<Warp> pairs = walk.last() ? sum_of_shares(warp, board) : zeros(warp);
        ChunkGradients<Warp> g{zeros(warp), zeros(warp)};
        const auto decays =
            add_pairs_within<kParts>(warp, pairs, r, k, decays_of(warp, in), walk, g);
        if (walk.last()) {
          const Numbers<Warp> own = numbers(
              warp, [&](int h, int e, int t, int i) { return t == i ? pairs.x[h][e] : 0.0f; });
          Numbers<Warp> bonus = zeros(warp);  // without u
          multiply(
              warp, bonus, factor<kParts>(warp, own), transposed(warp, factor<kParts>(warp, k)));
          each_number(warp, [&](int h, int e, int, int column) {
            g.x.x[h][e] += u[w * kTile + column] * bonus.x[h][e];
            gu[index].x[h][e] += r.x[h][e] * bonus.x[h][e];
          });
        }
        const int64_t of_row = at.chunk * kKeptOfChunk<kTiles, kParts>;
        if (walk.from_left && to.kept != nullptr) {
          Kept* kept = reinterpret_cast<Kept*>(to.kept + of_row);
          VIREO_WKV6_UNROLL
          for (int i = 0; i < kTiles; ++i)
            post(warp, factor<kParts>(warp, state[index].tile[i]), kept[w * kTiles + i]);
        }
        const bool over = !walk.from_left && other != nullptr;
        add_pairs_across(warp,
                         w,
                         r,
                         decays,
                         walk,
                         board,
                         over ? reinterpret_cast<const Kept*>(other + of_row) : nullptr,
                         state[index],
                         g);
        pass_channels(warp, w, keys_of<kParts>(warp, in, walk, decays), board, state[index]);
        write_chunk(warp, w, p, at, walk, g.x, to.part, to.x);
        write_log_decay(warp, w, p, at, to.add, g.log_decay, to.log_decay);
      });
  if (to.u == nullptr || !walk.last()) return;
  block.each_warp([&](const Warp& warp, int w, int index) {
    const Numbers<Warp> total = add_rows(warp, gu[index], 4).all;
    each_number(warp, [&](int h, int e, int row, int column) {
      if (row == 0) to.u[w * kTile + column] = total.x[h][e];
    });
  });
}

}  // namespace vireo::wkv6_math
