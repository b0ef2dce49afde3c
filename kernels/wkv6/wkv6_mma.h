#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernels/wkv6/wkv6_blocks.h"
#include "kernels/wkv6/wkv6_tiles.h"

// WKV6 by tensor cores, for heads of whole tiles: bfloat16 factors, float32 sums and states.
//
// A block walks along a row, chunk after chunk, with one warp per 16 channels of the head: as
// channels of r, k and d, of which it makes factors for all warps, and as values, of which it holds
// the state and writes y. Long rows are cut into stretches: what each adds to the state, a carry
// (carry_number), then outputs from the state that enters each. Where both sides count there are
// two walks, from the left and then from the right; the last walk also counts the pairs within
// chunks.
//
// Tokens i and t of a chunk whose numbers differ first (highest) in bit l lie in the two halves of
// a block of 2^(l+1) tokens; the decay between them is that from one to the middle times that from
// the middle to the other. Both are products of decays: at most 1, without division. So the scores
// of a level are one product of matrices, of which the pairs that belong to it are taken.
//
// A Block has
//   Warp, kWarps           see wkv6_tiles.h; how many of its warps this code holds: 1, or all
//   each_warp(body)        body(warp, number of the warp, index among those held)
//   sync()                 all warps of the block
namespace vireo::wkv6_math {

static_assert(kTile == kChunk);

/// Chunks that one block walks. Rows are cut where there are too few of them to fill a GPU; only
/// the shape decides, so that results depend on nothing else.
inline int64_t stretch_length(int64_t rows, int64_t chunks) {
  constexpr int64_t kBlocksWanted = 256, kShortest = 16;
  const int64_t wanted = (kBlocksWanted + rows - 1) / rows;
  const int64_t possible = (chunks + kShortest - 1) / kShortest;
  const int64_t stretches = wanted < possible ? wanted : possible;
  return (chunks + stretches - 1) / stretches;
}

/// Which pairs count: a token's with those to its left, to its right.
struct Sides {
  bool left, right;
};

struct Walk {
  Sides sides;
  bool from_left;

  /// The last one counts the pairs within chunks, and adds what the first one, if any, left.
  VIREO_WKV6_ANYWHERE bool last() const { return !from_left || !sides.right; }
  VIREO_WKV6_ANYWHERE bool has_first() const { return last() && sides.left && sides.right; }
  VIREO_WKV6_ANYWHERE bool counts(int t, int i) const { return i < t ? sides.left : sides.right; }
};

struct Stretch {
  int64_t row, first, count;
  Walk walk;

  VIREO_WKV6_ANYWHERE Place place(int64_t step) const {
    // Tokens keep their order in both walks.
    return {row, walk.from_left ? first + step : first + count - 1 - step, /*from_left=*/true};
  }
};

/// What the warps of a block tell each other about a chunk.
template <int kTiles, int kParts>
struct alignas(16) Board {
  float shares[kTiles][kLanes][kOfLane];  ///< every warp's part of a tile
  uint32_t a[kTiles][kParts][kLanes][kOfLane / 2];
  uint32_t b[kTiles][kParts][kLanes][kOfLane / 2];
  float less_one[kTiles * kTile];  ///< prod d - 1
};

template <class Warp, int kTiles, int kParts>
VIREO_WKV6_ANYWHERE Numbers<Warp> sum_of_shares(const Warp& warp,
                                                const Board<kTiles, kParts>& board) {
  Numbers<Warp> sum = zeros(warp);
  VIREO_WKV6_UNROLL
  for (int i = 0; i < kTiles; ++i)
    each_number(warp,
                [&](int h, int e, int, int) { sum.x[h][e] += board.shares[i][warp.lane(h)][e]; });
  return sum;
}

template <int kParts, class Warp>
VIREO_WKV6_ANYWHERE void post(const Warp& warp,
                              const Factor<Warp, kParts>& f,
                              uint32_t (*to)[kLanes][kOfLane / 2]) {
  for (int h = 0; h < Warp::kHeld; ++h) VIREO_WKV6_UNROLL
  for (int part = 0; part < kParts; ++part)
    for (int i = 0; i < kOfLane / 2; ++i) to[part][warp.lane(h)][i] = f.part[part].x[h][i];
}

template <int kParts, class Warp>
VIREO_WKV6_ANYWHERE Factor<Warp, kParts> posted(const Warp& warp,
                                                const uint32_t (*from)[kLanes][kOfLane / 2]) {
  Factor<Warp, kParts> f;
  for (int h = 0; h < Warp::kHeld; ++h) VIREO_WKV6_UNROLL
  for (int part = 0; part < kParts; ++part)
    for (int i = 0; i < kOfLane / 2; ++i) f.part[part].x[h][i] = from[part][warp.lane(h)][i];
  return f;
}

/// Two neighbours as they are stored; where they lie is aligned to them.
template <class T>
using Pair = std::conditional_t<sizeof(T) == 2, uint32_t, uint64_t>;
template <class T>
struct __attribute__((may_alias)) StoredPair {
  Pair<T> pair;
};

template <class T>
VIREO_WKV6_ANYWHERE Pair<T> pair_at(const T* from) {
  return reinterpret_cast<const StoredPair<T>*>(from)->pair;
}
template <class T>
VIREO_WKV6_ANYWHERE void unpack(Pair<T> pair, float& left, float& right) {
  T both[2];
  __builtin_memcpy(both, &pair, sizeof(pair));
  left = static_cast<float>(both[0]);
  right = static_cast<float>(both[1]);
}
template <class T>
VIREO_WKV6_ANYWHERE void put_pair(T* to, float left, float right) {
  const T both[2] = {static_cast<T>(left), static_cast<T>(right)};
  Pair<T> pair;
  __builtin_memcpy(&pair, both, sizeof(pair));
  reinterpret_cast<StoredPair<T>*>(to)->pair = pair;
}

/// A chunk's tokens by 16 channels as they are stored.
template <class Warp, class T>
struct Stored {
  Pair<T> x[Warp::kHeld][kOfLane / 2];

  /// Tokens from `count` on are zero.
  VIREO_WKV6_ANYWHERE void read(const Warp& warp, const T* from, int64_t stride, int count) {
    for (int h = 0; h < Warp::kHeld; ++h) {
      const int lane = warp.lane(h);
      VIREO_WKV6_UNROLL
      for (int i = 0; i < kOfLane / 2; ++i) {
        const int row = row_of(lane, 2 * i);
        x[h][i] = row < count ? pair_at(from + row * stride + column_of(lane, 2 * i)) : 0;
      }
    }
  }

  VIREO_WKV6_ANYWHERE Numbers<Warp> get() const {
    Numbers<Warp> result;
    for (int h = 0; h < Warp::kHeld; ++h) VIREO_WKV6_UNROLL
    for (int i = 0; i < kOfLane / 2; ++i)
      unpack<T>(x[h][i], result.x[h][2 * i], result.x[h][2 * i + 1]);
    return result;
  }
};

template <class Warp, class T>
struct ChunkInputs {
  Stored<Warp, T> r, k, v, gy;
  Stored<Warp, float> log_decay;

  /// k, v and decays; with r, and with gy, if they count.
  VIREO_WKV6_ANYWHERE void read(const Warp& warp,
                                const Problem<T, float>& p,
                                const Place& place,
                                int first_channel,
                                bool with_r,
                                bool with_gy) {
    const int64_t at = place.offset(p, 0) + first_channel, stride = p.heads * p.head;
    const int count = place.count(p);
    k.read(warp, p.k + at, stride, count);
    v.read(warp, p.v + at, stride, count);
    log_decay.read(warp, p.log_decay + at, stride, count);
    if (with_r) r.read(warp, p.r + at, stride, count);
    if (with_gy) gy.read(warp, p.gy + at, stride, count);
  }
};

/// The state of a warp's 16 values by all channels, or of its 16 channels by all values.
template <class Warp, int kTiles>
struct WarpState {
  Numbers<Warp> tile[kTiles];
};

/// For every chunk, in the order of the walk, first post(warp, w, index, in, board), what all warps
/// need of a warp, and then pass(warp, w, index, in, board, place). Two boards: a warp may be a
/// chunk ahead of another.
template <class Block, class T, class AnyBoard, class Post, class Pass>
VIREO_WKV6_ANYWHERE void walk_chunks(const Block& block,
                                     const Problem<T, float>& p,
                                     const Stretch& stretch,
                                     bool with_r,
                                     bool with_gy,
                                     AnyBoard* boards,
                                     const Post& post,
                                     const Pass& pass) {
  using Warp = typename Block::Warp;
  // The next chunk is asked for before this one is worked on.
  ChunkInputs<Warp, T> in[Block::kWarps], next[Block::kWarps];
  const auto ask = [&](const Warp& warp, int w, int index, int64_t step) {
    next[index].read(warp, p, stretch.place(step), w * kTile, with_r, with_gy);
  };
  block.each_warp([&](const Warp& warp, int w, int index) { ask(warp, w, index, 0); });
  for (int64_t step = 0; step < stretch.count; ++step) {
    AnyBoard& board = boards[step % 2];
    block.each_warp([&](const Warp& warp, int w, int index) {
      in[index] = next[index];
      if (step + 1 < stretch.count) ask(warp, w, index, step + 1);
      post(warp, w, index, in[index], board);
    });
    block.sync();
    block.each_warp([&](const Warp& warp, int w, int index) {
      pass(warp, w, index, in[index], board, stretch.place(step));
    });
  }
}

/// Sums of ln d over the chunk, in all rows; prod d - 1 on the board.
template <class Warp, class T, class AnyBoard>
VIREO_WKV6_ANYWHERE Numbers<Warp> post_decay(const Warp& warp,
                                             int w,
                                             const ChunkInputs<Warp, T>& in,
                                             AnyBoard& board) {
  const Numbers<Warp> total = add_rows(warp, in.log_decay.get(), 4).all;
  each_number(warp, [&](int h, int e, int row, int column) {
    if (row == 0) board.less_one[w * kTile + column] = ::expm1(total.x[h][e]);
  });
  return total;
}

template <class Warp, class T>
VIREO_WKV6_ANYWHERE Numbers<Warp> decays_of(const Warp& warp, const ChunkInputs<Warp, T>& in) {
  const Numbers<Warp> log_decay = in.log_decay.get();
  return numbers(warp, [&](int h, int e, int, int) { return ::exp(log_decay.x[h][e]); });
}

/// With the scan of blocks of 2^l tokens: the product of d between a token and the middle of the
/// 2^(l+1) tokens around it.
template <class Warp>
VIREO_WKV6_ANYWHERE Numbers<Warp> to_middle(const Warp& warp, const Scan<Warp>& decays, int l) {
  return numbers(warp, [&](int h, int e, int row, int) {
    return row >> l & 1 ? decays.before.x[h][e] : decays.behind.x[h][e];
  });
}

/// A warp's share of the chunk's scores, [token][other token].
template <class Warp, class T, int kTiles, int kParts>
VIREO_WKV6_ANYWHERE Scan<Warp> post_scores(const Warp& warp,
                                           int w,
                                           const ChunkInputs<Warp, T>& in,
                                           const float* u,
                                           const Walk& walk,
                                           Board<kTiles, kParts>& board) {
  const Numbers<Warp> r = in.r.get(), k = in.k.get();
  Numbers<Warp> scores = zeros(warp);
  // Of all sums over channels of receiving(h, e) times sending(h, e) those that belong(t, i).
  const auto score = [&](const auto& receiving, const auto& sending, const auto& belongs) {
    Numbers<Warp> all = zeros(warp);
    multiply(warp, all, factor<kParts>(warp, receiving), factor<kParts>(warp, sending));
    each_number(warp, [&](int h, int e, int t, int i) {
      if (belongs(t, i)) scores.x[h][e] = all.x[h][e];
    });
  };
  const auto decays = multiply_rows(warp, decays_of(warp, in), [&](int l, const auto& scan) {
    if (!walk.last()) return;
    const Numbers<Warp> d = to_middle(warp, scan, l);
    score([&](int h, int e) { return r.x[h][e] * d.x[h][e]; },
          [&](int h, int e) { return k.x[h][e] * d.x[h][e]; },
          [&](int t, int i) { return (t ^ i) >> l == 1 && walk.counts(t, i); });
  });
  if (walk.last())
    score([&](int h, int e) { return r.x[h][e] * u[column_of(warp.lane(h), e)]; },
          [&](int h, int e) { return k.x[h][e]; },
          [](int t, int i) { return t == i; });
  each_number(warp,
              [&](int h, int e, int, int) { board.shares[w][warp.lane(h)][e] = scores.x[h][e]; });
  return decays;
}

/// k decayed to the side that the walk goes to, [channel][token].
template <int kParts, class Warp, class T>
VIREO_WKV6_ANYWHERE Factor<Warp, kParts> keys_of(const Warp& warp,
                                                 const ChunkInputs<Warp, T>& in,
                                                 const Walk& walk,
                                                 const Scan<Warp>& decays) {
  const Numbers<Warp> k = in.k.get();
  return transposed(warp, factor<kParts>(warp, [&](int h, int e) {
                      return k.x[h][e] *
                             (walk.from_left ? decays.behind.x[h][e] : decays.before.x[h][e]);
                    }));
}

/// The state of a warp's values, [value][channel], behind the chunk.
template <class Warp, int kTiles, int kParts>
VIREO_WKV6_ANYWHERE void pass_state(const Warp& warp,
                                    const Factor<Warp, kParts>& values,
                                    const Board<kTiles, kParts>& board,
                                    WarpState<Warp, kTiles>& state) {
  VIREO_WKV6_UNROLL
  for (int i = 0; i < kTiles; ++i) {
    each_number(warp, [&](int h, int e, int, int column) {
      state.tile[i].x[h][e] += state.tile[i].x[h][e] * board.less_one[i * kTile + column];
    });
    multiply(warp, state.tile[i], values, posted<kParts>(warp, board.b[i]));
  }
}

/// What a stretch adds to a state, sum [N][N], and prod d - 1 over it, less_one [N].
template <int kTiles, int kParts, class Block, class T>
VIREO_WKV6_ANYWHERE void summarise_stretch(const Block& block,
                                           const Problem<T, float>& p,
                                           const Stretch& stretch,
                                           Board<kTiles, kParts>* boards,
                                           float* sum,
                                           float* less_one) {
  using Warp = typename Block::Warp;
  WarpState<Warp, kTiles> state[Block::kWarps];
  Numbers<Warp> passed[Block::kWarps];  // sum of ln d
  block.each_warp([&](const Warp& warp, int, int index) {
    passed[index] = zeros(warp);
    VIREO_WKV6_UNROLL
    for (int i = 0; i < kTiles; ++i) state[index].tile[i] = zeros(warp);
  });
  walk_chunks(
      block,
      p,
      stretch,
      /*with_r=*/false,
      /*with_gy=*/false,
      boards,
      [&](const Warp& warp, int w, int index, const auto& in, auto& board) {
        const auto decays = multiply_rows(warp, decays_of(warp, in), [](int, const auto&) {});
        post(warp, keys_of<kParts>(warp, in, stretch.walk, decays), board.b[w]);
        const Numbers<Warp> total = post_decay(warp, w, in, board);
        each_number(warp, [&](int h, int e, int, int) { passed[index].x[h][e] += total.x[h][e]; });
      },
      [&](const Warp& warp, int, int index, const auto& in, const auto& board, const Place&) {
        const auto values = transposed(warp, factor<kParts>(warp, in.v.get()));
        pass_state(warp, values, board, state[index]);
      });
  block.each_warp([&](const Warp& warp, int w, int index) {
    VIREO_WKV6_UNROLL
    for (int i = 0; i < kTiles; ++i)
      each_number(warp, [&](int h, int e, int row, int column) {
        sum[(i * kTile + column) * p.head + w * kTile + row] = state[index].tile[i].x[h][e];
      });
    each_number(warp, [&](int h, int e, int row, int column) {
      if (row == 0) less_one[w * kTile + column] = ::expm1(passed[index].x[h][e]);
    });
  });
}

/// A chunk's tokens by a warp's 16 channels: the first of two walks writes `part`, float32 [B,T,C];
/// the last one adds it and writes `to`.
template <class Warp, class T>
VIREO_WKV6_ANYWHERE void write_chunk(const Warp& warp,
                                     int w,
                                     const Problem<T, float>& p,
                                     const Place& place,
                                     const Walk& walk,
                                     const Numbers<Warp>& own,
                                     float* part,
                                     T* to) {
  const int64_t first = place.offset(p, 0) + w * kTile, stride = p.heads * p.head;
  const int count = place.count(p);
  each_number(warp, [&](int h, int e, int row, int column) {
    if (row >= count || e % 2 != 0) return;
    const int64_t at = first + row * stride + column;
    if (!walk.last()) {
      put_pair(part + at, own.x[h][e], own.x[h][e + 1]);
      return;
    }
    float left = 0, right = 0;
    if (walk.has_first()) unpack<float>(pair_at(part + at), left, right);
    put_pair(to + at, left + own.x[h][e], right + own.x[h][e + 1]);
  });
}

/// `entering`: the state that enters the stretch, [N][N], or null for none; part and y as in
/// write_chunk.
template <int kTiles, int kParts, class Block, class T>
VIREO_WKV6_ANYWHERE void forward_stretch(const Block& block,
                                         const Problem<T, float>& p,
                                         const Stretch& stretch,
                                         Board<kTiles, kParts>* boards,
                                         const float* entering,
                                         float* part,
                                         T* y) {
  using Warp = typename Block::Warp;
  const Walk& walk = stretch.walk;
  const float* u = p.u + stretch.row % p.heads * p.head;
  WarpState<Warp, kTiles> state[Block::kWarps];
  block.each_warp([&](const Warp& warp, int w, int index) {
    VIREO_WKV6_UNROLL
    for (int i = 0; i < kTiles; ++i)
      state[index].tile[i] = numbers(warp, [&](int, int, int row, int column) {
        return entering == nullptr ? 0.0f
                                   : entering[(i * kTile + column) * p.head + w * kTile + row];
      });
  });
  walk_chunks(
      block,
      p,
      stretch,
      /*with_r=*/true,
      /*with_gy=*/false,
      boards,
      [&](const Warp& warp, int w, int, const auto& in, auto& board) {
        const auto decays = post_scores(warp, w, in, u + w * kTile, walk, board);
        const Numbers<Warp> r = in.r.get();
        const auto queries = factor<kParts>(warp, [&](int h, int e) {
          return r.x[h][e] * (walk.from_left ? decays.before.x[h][e] : decays.behind.x[h][e]);
        });
        post(warp, queries, board.a[w]);
        post(warp, keys_of<kParts>(warp, in, walk, decays), board.b[w]);
        post_decay(warp, w, in, board);
      },
      [&](const Warp& warp, int w, int index, const auto& in, const auto& board, const Place& at) {
        const auto values = transposed(warp, factor<kParts>(warp, in.v.get()));
        Numbers<Warp> own = zeros(warp);
        if (walk.last())
          multiply(warp, own, factor<kParts>(warp, sum_of_shares(warp, board)), values);
        VIREO_WKV6_UNROLL
        for (int i = 0; i < kTiles; ++i)
          multiply(warp,
                   own,
                   posted<kParts>(warp, board.a[i]),
                   factor<kParts>(warp, state[index].tile[i]));
        write_chunk(warp, w, p, at, walk, own, part, y);
        pass_state(warp, values, board, state[index]);
      });
}

}  // namespace vireo::wkv6_math
