#include "kernels/wkv6/wkv6_rows.h"

#include "kernels/cpu_matrix.h"
#include "kernels/cpu_simd.h"
#include "kernels/wkv6/wkv6_chunk.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
//
// Tokens are taken in the order of a walk, from the left or from the right; what follows is written
// for one from the left. Inside a chunk, per channel n: d_t; before_t = prod_{s<t} d_s; behind_t =
// prod_{s>t} d_s; all products of at most kChunk factors between 0 and 1, so that nothing
// overflows, and what underflows is nothing. A state S crosses a chunk as
//     S <- S + S (prod d - 1) + sum_t behind_t k_t (x) v_t,
// with prod d - 1 = expm1(sum ln d): decays near one keep their distance from it.
namespace vireo::wkv6_rows {
namespace {

/// Weights for the states that leave a segment: of one chunk, exp(sum of ln d over all chunks
/// before it) and over all behind it; [chunks][padded] each. log_total: the sum over all.
template <class S>
void weigh_chunks(const Row& row, const Walk& walk, S* before, S* behind, S* log_total) {
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(row.head), chunks = walk.chunks();
  alignas(64) S w[kChunk * padded(kLargestHead)];
  S* sums = behind;
  for (int c = 0; c < chunks; ++c) {
    read_w(row, walk, c, w);
    for (int n = 0; n < width; n += kLanes) {
      Vector<S> sum{};
      for (int t = 0; t < kChunk; ++t) sum += log_decay(w + t * width + n);
      store(sums + c * width + n, sum);
    }
  }
  for (int n = 0; n < width; n += kLanes) {
    Vector<S> sum{};
    for (int c = 0; c < chunks; ++c) {
      store(before + c * width + n, exp_below<S>(sum, Vector<S>{}));
      sum += load(sums + c * width + n);
    }
    store(log_total + n, sum);
    sum = Vector<S>{};
    for (int c = chunks - 1; c >= 0; --c) {
      const Vector<S> own = load(sums + c * width + n);
      store(behind + c * width + n, exp_below<S>(sum, Vector<S>{}));
      sum += own;
    }
  }
}

/// to = x within factor, factor being one row for the whole chunk.
template <class S>
inline void scale_rows_twice(const S* x, const S* within, const S* factor, int width, S* to) {
  for (int t = 0; t < kChunk; ++t)
    for (int n = 0; n < width; ++n)
      to[t * width + n] = x[t * width + n] * within[t * width + n] * factor[n];
}

/// sum = sum_t prod_{s>t} d_s k_t (x) v_t over the segment for kLeft; prod_{s<t} for kRight; r and
/// gy in place of k and v for the others.
template <class T>
void summarise(const Row& row, int64_t segment, const Leaving& leaving, void* memory) {
  using S = typename StateOf<T>::type;
  const int width = padded(row.head);
  const Walk walk(row, segment, true);
  const int chunks = walk.chunks();
  Scratch<S> scratch(memory, row);
  Chunk<S> chunk(scratch.rows(Chunk<S>::kRows), width);
  S* before = scratch.rows(chunks);
  S* behind = scratch.rows(chunks);
  S* weighted = scratch.rows(kChunk);
  weigh_chunks(row, walk, before, behind, static_cast<S*>(leaving.log_total));
  for (void* state : leaving.state)
    if (state != nullptr) clear(static_cast<S*>(state), width * width);
  const auto add = [&](StateKind kind, const S* x, const S* value, int c) {
    S* state = static_cast<S*>(leaving.state[kind]);
    if (state == nullptr) return;
    const bool left = kind == kLeft || kind == kGradLeft;
    scale_rows_twice(x,
                     left ? chunk.behind : chunk.before,
                     (left ? behind : before) + int64_t{c} * width,
                     width,
                     weighted);
    multiply_add(width, kChunk, width, weighted, 1, width, value, width, state, width);
  };
  for (int c = 0; c < chunks; ++c) {
    read_decays(row, walk, c, chunk);
    read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.own_k);
    read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.own_v);
    add(kLeft, chunk.k, chunk.v, c);
    add(kRight, chunk.k, chunk.v, c);
    if (row.gy == nullptr) continue;
    read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.own_r);
    read_rows<T>(row.gy, row.gy_stride, walk, c, row.head, chunk.g);
    add(kGradLeft, chunk.r, chunk.g, c);
    add(kGradRight, chunk.r, chunk.g, c);
  }
}

template <class S>
S* copied_state(const void* from, int width, S* to) {
  const S* state = static_cast<const S*>(from);
  for (int i = 0; i < width * width; ++i) to[i] = state[i];
  return to;
}

/// Whether whole chunks of r, k and v can be computed with where they lie.
template <class T, class S>
bool lies_as_computed(const Row& row) {
  return sizeof(T) == sizeof(S) && row.head == padded(row.head) && row.r_stride == row.k_stride &&
         row.v_stride == row.k_stride;
}

/// The state from the right meets the chunks from the last to the first, then that from the left
/// from the first to the last, and with it the pairs inside every chunk, of both directions.
template <class T>
void forward(const Row& row, int64_t segment, const Entering& entering, void* memory) {
  using S = typename StateOf<T>::type;
  const int width = padded(row.head);
  const Walk walk(row, segment, true);
  const int chunks = walk.chunks();
  Scratch<S> scratch(memory, row);
  Chunk<S> chunk(scratch.rows(Chunk<S>::kRows), width);
  S* weighted = scratch.rows(kChunk);
  const S* bonus = read_bonus(row, scratch);
  S* y = scratch.rows(row.segment_tokens);
  S* state = scratch.rows(width);
  S* decays = scratch.rows(row.segment_tokens);
  S* totals = scratch.rows(chunks);
  for (int c = 0; c < chunks; ++c)
    read_decays(row, walk, c, decays + int64_t{c} * kChunk * width, totals + int64_t{c} * width);
  const bool lies_so = lies_as_computed<T, S>(row);
  const auto read = [&](int c) {
    chunk.d = decays + int64_t{c} * kChunk * width;
    chunk.total_less_one = totals + int64_t{c} * width;
    if (lies_so && walk.count(c) == kChunk) {
      const auto at = [&](const void* x) {
        return static_cast<const S*>(x) + walk.token(c) * row.k_stride;
      };
      chunk.r = at(row.r);
      chunk.k = at(row.k);
      chunk.v = at(row.v);
      chunk.stride = row.k_stride;
      return;
    }
    read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.own_r, 0);
    read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.own_k, 0);
    read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.own_v, 0);
    chunk.r = chunk.own_r;
    chunk.k = chunk.own_k;
    chunk.v = chunk.own_v;
    chunk.stride = width;
  };
  const auto add_state = [&](bool from_left, S* out) {
    weigh_rows(chunk, chunk.r, from_left, width, weighted);
    if (row.causal || !from_left)  // the first that is written
      multiply_add<Before::kClear>(
          kChunk, width, width, weighted, width, 1, state, width, out, width);
    else
      multiply_add(kChunk, width, width, weighted, width, 1, state, width, out, width);
  };
  const auto cross = [&](bool from_left, int next) {
    weigh_rows(chunk, chunk.k, !from_left, width, weighted);
    cross_chunk(
        chunk, weighted, chunk.v, chunk.stride, width, state, Ahead<T>(row, walk, next, from_left));
  };
  if (!row.causal) {
    copied_state(entering.state[kRight], width, state);
    for (int c = chunks - 1; c >= 0; --c) {
      read(c);
      add_state(false, y + int64_t{c} * kChunk * width);
      if (c > 0) cross(false, c - 1);
    }
  }
  copied_state(entering.state[kLeft], width, state);
  alignas(64) S scores[kChunk * kChunk];
  for (int c = 0; c < chunks; ++c) {
    read(c);
    S* out = y + int64_t{c} * kChunk * width;
    add_state(true, out);
    row.causal ? score<false>(chunk, bonus, width, scores)
               : score<true>(chunk, bonus, width, scores);
    multiply_add(kChunk, kChunk, width, scores, kChunk, 1, chunk.v, chunk.stride, out, width);
    write_rows<T>(row, walk.token(c), walk.token(c) + walk.count(c), out, row.y);
    if (c + 1 < chunks) cross(true, c + 1);
  }
}

/// Where one walk of backward adds its results, a chunk's first token first.
template <class S>
struct Results {
  S *r, *k, *v, *log_decay;
  int64_t row;
};

/// A vector of a chunk's channels, for channel_gradients.
template <class S>
struct ChunkChannels {
  using V = Vector<S>;
  const Chunk<S>& chunk;
  const S *inter_r_rows, *inter_k_rows;
  int width, n;

  V at(const S* rows, int t) const { return load(rows + t * width + n); }
  V r(int t) const { return at(chunk.r, t); }
  V k(int t) const { return at(chunk.k, t); }
  V d(int t) const { return at(chunk.d, t); }
  V before(int t) const { return at(chunk.before, t); }
  V behind(int t) const { return at(chunk.behind, t); }
  V inter_r(int t) const { return at(inter_r_rows, t); }
  V inter_k(int t) const { return at(inter_k_rows, t); }
};

/// All gradients of one chunk but v's.
template <class S>
void gradients_per_channel(const Chunk<S>& chunk,
                           const S* inter_r,
                           const S* inter_k,
                           const S* crossed,
                           const S* pairs,
                           const S* bonus,
                           int width,
                           const Results<S>& to,
                           S* gu) {
  using V = Vector<S>;
  for (int n = 0; n < width; n += Simd<S>::kLanes) {
    wkv6_math::ChannelGradients<V> g;
    const V u = bonus != nullptr ? load(bonus + n) : V{};
    wkv6_math::channel_gradients(ChunkChannels<S>{chunk, inter_r, inter_k, width, n},
                                 splat<S>(1),
                                 load(crossed + n),
                                 pairs,
                                 bonus != nullptr ? &u : nullptr,
                                 g);
    const auto add = [&](S* x, V value) { store(x, load(x) + value); };
    for (int t = 0; t < kChunk; ++t) {
      add(to.r + t * to.row + n, g.r[t]);
      add(to.k + t * to.row + n, g.k[t]);
      add(to.log_decay + t * to.row + n, g.log_decay[t]);
    }
    add(gu + n, g.u);
  }
}

template <class T>
void backward(
    const Row& row, int64_t segment, const Entering& entering, void* memory, double* gu_out) {
  using S = typename StateOf<T>::type;
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(row.head);
  Scratch<S> scratch(memory, row);
  Chunk<S> chunk(scratch.rows(Chunk<S>::kRows), width);
  S* weighted_r = scratch.rows(kChunk);
  S* weighted_k = scratch.rows(kChunk);
  S* columns = scratch.rows(kChunk);
  S* products = scratch.rows(kChunk);
  S* inter_r = scratch.rows(kChunk);
  S* inter_k = scratch.rows(kChunk);
  S* crossed = scratch.rows(1);
  S* gu = scratch.rows(1);
  const S* bonus = read_bonus(row, scratch);
  S* const gr = scratch.results();
  S* const gk = scratch.results();
  S* const gv = scratch.results();
  S* const ga = scratch.results();
  S* z = scratch.rows(width);
  S* kept = scratch.rows(row.segment_tokens / kChunk * width);  // a state per chunk
  alignas(64) S scores[kChunk * kChunk], pairs[kChunk * kChunk];
  clear(gu, width);

  for (int turn = 0; turn < (row.causal ? 1 : 2); ++turn) {
    const bool from_left = turn == 0;
    const Walk walk(row, segment, from_left);
    const int chunks = walk.chunks();
    const auto state_at = [&](int c) { return kept + int64_t{c} * width * width; };
    copied_state(entering.state[from_left ? kLeft : kRight], width, state_at(0));
    for (int c = 0; c + 1 < chunks; ++c) {
      read_decays(row, walk, c, chunk);
      read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.own_k);
      read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.own_v);
      copied_state(state_at(c), width, state_at(c + 1));
      scale_rows(chunk.k, chunk.behind, width, weighted_k);
      cross_chunk(chunk, weighted_k, chunk.v, width, width, state_at(c + 1));
    }

    copied_state(entering.state[from_left ? kGradRight : kGradLeft], width, z);
    for (int c = chunks - 1; c >= 0; --c) {
      const S* state = state_at(c);
      const int64_t first = (walk.token(c) - walk.begin) * width;
      const Results<S> to{gr + first, gk + first, gv + first, ga + first, walk.step * width};
      read_decays(row, walk, c, chunk, -1);
      read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.own_r, -1);
      read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.own_k, -1);
      read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.own_v, -1);
      read_rows<T>(row.gy, row.gy_stride, walk, c, row.head, chunk.g, -1);
      scale_rows(chunk.r, chunk.before, width, weighted_r);
      scale_rows(chunk.k, chunk.behind, width, weighted_k);
      const S* own_bonus = from_left ? bonus : nullptr;

      transposed(chunk.g, kChunk, width, columns);
      multiply_add<Before::kClear>(
          kChunk, width, kChunk, chunk.v, width, 1, columns, kChunk, pairs, kChunk);
      multiply_add<Before::kClear>(
          width, width, kChunk, state, width, 1, columns, kChunk, products, kChunk);
      transposed(products, width, kChunk, inter_r);
      transposed(chunk.v, kChunk, width, columns);
      multiply_add<Before::kClear>(
          width, width, kChunk, z, width, 1, columns, kChunk, products, kChunk);
      transposed(products, width, kChunk, inter_k);
      for (int n = 0; n < width; n += kLanes) {
        Vector<S> sums[kLanes] = {};
        for (int l = 0; l < kLanes; ++l)
          for (int m = 0; m < width; m += kLanes)
            sums[l] += load(state + (n + l) * width + m) * load(z + (n + l) * width + m);
        store(crossed + n, sums_of<S>(sums));
      }
      gradients_per_channel(chunk, inter_r, inter_k, crossed, pairs, own_bonus, width, to, gu);

      multiply_add(kChunk, width, width, weighted_k, width, 1, z, width, to.v, to.row);
      score<false>(chunk, own_bonus, width, scores);
      multiply_add(kChunk, kChunk, width, scores, 1, kChunk, chunk.g, width, to.v, to.row);
      if (c > 0) cross_chunk(chunk, weighted_r, chunk.g, width, width, z);
    }
  }

  const Walk walk(row, segment, true);
  write_rows<T>(row, walk.begin, walk.end, gr, row.gr);
  write_rows<T>(row, walk.begin, walk.end, gk, row.gk);
  write_rows<T>(row, walk.begin, walk.end, gv, row.gv);
  for (int c = 0; c < walk.chunks(); ++c) {  // gw = the gradient of ln d, times ln d
    read_w(row, walk, c, chunk.d);
    for (int i = 0; i < kChunk * width; i += kLanes) {
      S* at = ga + int64_t{c} * kChunk * width + i;
      store(at, load(at) * log_decay(chunk.d + i));
    }
  }
  write_rows<S>(row, walk.begin, walk.end, ga, row.gw);
  for (int n = 0; n < row.head; ++n) gu_out[n] = static_cast<double>(gu[n]);
}

template <class T>
constexpr Functions functions() {
  return {summarise<T>, forward<T>, backward<T>};
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{
      functions<float>(), functions<double>(), functions<Bf16>(), functions<Half>()};
  return table;
}

}  // namespace vireo::wkv6_rows