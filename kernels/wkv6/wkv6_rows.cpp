#include "kernels/wkv6/wkv6_rows.h"

#include "kernels/cpu_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
//
// Tokens are taken in the order of a walk, from the left or from the right; what follows is written
// for one from the left. Inside a chunk, per channel n: d_t; before_t = prod_{s<t} d_s;
// behind_t = prod_{s>t} d_s; all products of at most kChunk factors between 0 and 1, so that
// nothing overflows, and what underflows is nothing. A state S crosses a chunk as
//     S <- S + S (prod d - 1) + sum_t behind_t k_t (x) v_t,
// with prod d - 1 = expm1(sum ln d): decays near one keep their distance from it.
namespace vireo::wkv6_rows {
namespace {

template <class T>
struct StateOf {
  using type = float;
};
template <>
struct StateOf<double> {
  using type = double;
};

// ---- Small matrix products ----

/// c[i][j] += sum_l a(i,l) b[l][j] for kRows rows and kVectors vectors; a(i,l) = a[i a_row + l
/// a_column].
template <class S, int kRows, int kVectors>
inline void tile(int inner,
                 const S* a,
                 int64_t a_row,
                 int64_t a_column,
                 const S* b,
                 int64_t b_row,
                 S* c,
                 int64_t c_row) {
  constexpr int kLanes = Simd<S>::kLanes;
  Vector<S> sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) sum[i][j] = load(c + i * c_row + j * kLanes);
  for (int l = 0; l < inner; ++l) {
    Vector<S> row[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) row[j] = load(b + l * b_row + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vector<S> factor = splat<S>(a[i * a_row + l * a_column]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] += factor * row[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) store(c + i * c_row + j * kLanes, sum[i][j]);
}

/// The same for any rows and columns that are multiples of kChunk.
template <class S>
void multiply_add(int rows,
                  int inner,
                  int columns,
                  const S* a,
                  int64_t a_row,
                  int64_t a_column,
                  const S* b,
                  int64_t b_row,
                  S* c,
                  int64_t c_row) {
  constexpr int kLanes = Simd<S>::kLanes;
  constexpr int kWide = kVectorBytes == 64 ? 4 : 2;
  int column = 0;
  for (; column + kWide * kLanes <= columns; column += kWide * kLanes)
    for (int i = 0; i < rows; i += 4)
      tile<S, 4, kWide>(
          inner, a + i * a_row, a_row, a_column, b + column, b_row, c + i * c_row + column, c_row);
  for (; column < columns; column += kLanes)
    for (int i = 0; i < rows; i += 8)
      tile<S, 8, 1>(
          inner, a + i * a_row, a_row, a_column, b + column, b_row, c + i * c_row + column, c_row);
}

template <class S>
inline S sum_of(Vector<S> x) {
  S sum = 0;
  for (int i = 0; i < Simd<S>::kLanes; ++i) sum += x[i];
  return sum;
}

template <class S>
inline void clear(S* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 0;
}

/// to[column][row] = from[row][column], for kChunk rows.
template <class S>
inline void transpose_to_columns(const S* from, int columns, S* to) {
  for (int n = 0; n < columns; ++n)
    for (int t = 0; t < kChunk; ++t) to[n * kChunk + t] = from[t * columns + n];
}
template <class S>
inline void transpose_to_rows(const S* from, int columns, S* to) {
  for (int t = 0; t < kChunk; ++t)
    for (int n = 0; n < columns; ++n) to[t * columns + n] = from[n * kChunk + t];
}

// ---- Walks ----

/// A segment's tokens in the order of a walk.
struct Walk {
  int64_t begin, end;
  int step;  ///< 1 from the left, -1 from the right

  Walk(const Row& row, int64_t segment, bool from_left)
      : begin(segment * kSegment),
        end(begin + kSegment < row.tokens ? begin + kSegment : row.tokens),
        step(from_left ? 1 : -1) {}
  int chunks() const { return static_cast<int>((end - begin + kChunk - 1) / kChunk); }
  /// The first token of a chunk.
  int64_t token(int chunk) const {
    return step > 0 ? begin + chunk * kChunk : end - 1 - chunk * kChunk;
  }
  int count(int chunk) const {
    const int64_t left = end - begin - chunk * kChunk;
    return left < kChunk ? static_cast<int>(left) : kChunk;
  }
};

/// One chunk, [kChunk][padded] each; tokens and channels beyond the last are zero, and so is their
/// ln d: they change nothing.
template <class S>
struct Chunk {
  S *r, *k, *v, *g, *d, *before, *behind;
  S* total_less_one;  ///< [padded]: prod d - 1
  static constexpr int kRows = 8 * kChunk;

  Chunk(S* memory, int width) {
    S** all[] = {&r, &k, &v, &g, &d, &before, &behind, &total_less_one};
    for (S** part : all) {
      *part = memory;
      memory += kChunk * width;
    }
  }
};

template <class T, class S>
void read_rows(const void* base, int64_t stride, const Walk& walk, int chunk, int head, S* to) {
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(head), count = walk.count(chunk);
  const T* from = static_cast<const T*>(base) + walk.token(chunk) * stride;
  for (int t = 0; t < count; ++t, from += walk.step * stride, to += width) {
    int n = 0;
    for (; n + kLanes <= head; n += kLanes) store(to + n, load(from + n));
    if (n < head) {
      store(to + n, load_some<S>(from + n, head - n));
      n += kLanes;
    }
    for (; n < width; ++n) to[n] = 0;
  }
  clear(to, (kChunk - count) * width);
}

/// e^x - 1 for x <= 0.
template <class S>
inline Vector<S> exp_less_one(Vector<S> x) {
  constexpr int kTerms = sizeof(S) == 4 ? 9 : 17;
  const Vector<S> far = exp_below<S>(x, Vector<S>{}) - S(1);
  Vector<S> near = splat<S>(1);
  for (int i = kTerms; i > 1; --i) near = near * x * S(1.0 / i) + S(1);
  return x > S(-0.4) ? near * x : far;
}

/// Reads ln d and derives d, before, behind and prod d - 1; returns through log_total (if any) its
/// sum.
template <class S>
void read_decays(const Row& row, const Walk& walk, int index, Chunk<S>& chunk, S* log_total) {
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(row.head);
  read_rows<S>(row.log_decay, row.out_stride, walk, index, row.head, chunk.d);
  for (int n = 0; n < width; n += kLanes) {
    Vector<S> sum{};
    for (int t = 0; t < kChunk; ++t) {
      S* at = chunk.d + t * width + n;
      const Vector<S> log = load(at);
      sum += log;
      store(at, exp_below<S>(log, Vector<S>{}));
    }
    wkv6::products_of_decays(
        splat<S>(1),
        [&](int t) { return load(chunk.d + t * width + n); },
        [&](int t, Vector<S> x) { store(chunk.before + t * width + n, x); },
        [&](int t, Vector<S> x) { store(chunk.behind + t * width + n, x); });
    store(chunk.total_less_one + n, exp_less_one<S>(sum));
    if (log_total != nullptr) store(log_total + n, load(log_total + n) + sum);
  }
}

/// to = a * b, elementwise over a chunk.
template <class S>
inline void scale_rows(const S* a, const S* b, int width, S* to) {
  for (int i = 0; i < kChunk * width; ++i) to[i] = a[i] * b[i];
}

/// state <- state prod d + sum_t weighted_t (x) value_t
template <class S>
void cross_chunk(const Chunk<S>& chunk, const S* weighted, const S* value, int width, S* state) {
  constexpr int kLanes = Simd<S>::kLanes;
  for (int n = 0; n < width; ++n) {
    const Vector<S> less_one = splat<S>(chunk.total_less_one[n]);
    for (int m = 0; m < width; m += kLanes) {
      S* at = state + n * width + m;
      const Vector<S> x = load(at);
      store(at, x + x * less_one);
    }
  }
  multiply_add(width, kChunk, width, weighted, 1, width, value, width, state, width);
}

/// scores[t][i] = sum_n r_t k_i prod_{i<s<t} d_s for i < t; with a bonus, [t][t] = sum_n r_t u k_t;
/// zero elsewhere. x: S[padded].
template <class S>
void score(const Chunk<S>& chunk, const S* bonus, int width, S* x, S* scores) {
  constexpr int kLanes = Simd<S>::kLanes;
  clear(scores, kChunk * kChunk);
  for (int i = 0; i < kChunk; ++i) {
    const S* k = chunk.k + i * width;
    if (bonus != nullptr) {
      Vector<S> sum{};
      for (int n = 0; n < width; n += kLanes)
        sum += load(chunk.r + i * width + n) * load(bonus + n) * load(k + n);
      scores[i * kChunk + i] = sum_of<S>(sum);
    }
    for (int n = 0; n < width; ++n) x[n] = k[n];
    for (int t = i + 1; t < kChunk; ++t) {
      Vector<S> sum{};
      for (int n = 0; n < width; n += kLanes) {
        const Vector<S> weighted = load(x + n);
        sum += load(chunk.r + t * width + n) * weighted;
        store(x + n, weighted * load(chunk.d + t * width + n));
      }
      scores[t * kChunk + i] = sum_of<S>(sum);
    }
  }
}

// ---- Scratch ----

/// Results of a segment's tokens, gathered over both walks: [kSegment] rows, and kChunk more on
/// either side for the tokens that a last chunk lacks.
constexpr int64_t kResultRows = kSegment + 2 * kChunk;

template <class S>
class Scratch {
 public:
  Scratch(void* memory, int head) : next_(static_cast<S*>(memory)), width_(padded(head)) {}
  S* rows(int64_t count) {
    S* taken = next_;
    next_ += count * width_;
    return taken;
  }
  S* results() {
    S* taken = rows(kResultRows);
    clear(taken, kResultRows * width_);
    return taken + kChunk * width_;
  }

 private:
  S* next_;
  int width_;
};

/// The bonus, padded with zeros; nothing for the walk that does not count it.
template <class S>
const S* read_bonus(const Row& row, Scratch<S>& scratch) {
  S* bonus = scratch.rows(1);
  for (int n = 0; n < padded(row.head); ++n)
    bonus[n] = n < row.head ? static_cast<const S*>(row.u)[n] : S(0);
  return bonus;
}

template <class T, class S>
void write_rows(const Row& row, const Walk& walk, const S* from, void* to) {
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(row.head);
  for (int64_t t = walk.begin; t < walk.end; ++t, from += width) {
    T* out = static_cast<T*>(to) + t * row.out_stride;
    int n = 0;
    for (; n + kLanes <= row.head; n += kLanes) store(out + n, load(from + n));
    if (n < row.head) store_some<S>(out + n, load(from + n), row.head - n);
  }
}

// ---- Stages ----

template <class T>
void summarise(const Row& row,
               int64_t segment,
               StateKind kind,
               void* sum_out,
               void* log_total_out,
               void* memory) {
  using S = typename StateOf<T>::type;
  const int width = padded(row.head);
  const bool gradient = kind == kGradLeft || kind == kGradRight;
  const Walk walk(row, segment, kind == kLeft || kind == kGradLeft);
  S* sum = static_cast<S*>(sum_out);
  S* log_total = static_cast<S*>(log_total_out);
  clear(sum, width * width);
  clear(log_total, width);
  Scratch<S> scratch(memory, row.head);
  Chunk<S> chunk(scratch.rows(Chunk<S>::kRows), width);
  S* weighted = scratch.rows(kChunk);
  for (int c = 0; c < walk.chunks(); ++c) {
    read_decays(row, walk, c, chunk, log_total);
    read_rows<T>(gradient ? row.r : row.k,
                 gradient ? row.r_stride : row.k_stride,
                 walk,
                 c,
                 row.head,
                 chunk.k);
    read_rows<T>(gradient ? row.gy : row.v,
                 gradient ? row.gy_stride : row.v_stride,
                 walk,
                 c,
                 row.head,
                 chunk.v);
    scale_rows(chunk.k, chunk.behind, width, weighted);
    cross_chunk(chunk, weighted, chunk.v, width, sum);
  }
}

template <class S>
S* copied_state(const void* from, int width, S* to) {
  const S* state = static_cast<const S*>(from);
  for (int i = 0; i < width * width; ++i) to[i] = state[i];
  return to;
}

template <class T>
void forward(const Row& row, int64_t segment, const Entering& entering, void* memory) {
  using S = typename StateOf<T>::type;
  const int width = padded(row.head);
  Scratch<S> scratch(memory, row.head);
  Chunk<S> chunk(scratch.rows(Chunk<S>::kRows), width);
  S* weighted = scratch.rows(kChunk);
  S* x = scratch.rows(1);
  const S* bonus = read_bonus(row, scratch);
  S* y = scratch.results();
  S* state = scratch.rows(width);
  alignas(64) S scores[kChunk * kChunk];
  for (int turn = 0; turn < (row.causal ? 1 : 2); ++turn) {
    const bool from_left = turn == 0;
    const Walk walk(row, segment, from_left);
    copied_state(entering.state[from_left ? kLeft : kRight], width, state);
    for (int c = 0; c < walk.chunks(); ++c) {
      read_decays<S>(row, walk, c, chunk, nullptr);
      read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.r);
      read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.k);
      read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.v);
      S* out = y + (walk.token(c) - walk.begin) * width;
      const int64_t out_row = walk.step * width;
      scale_rows(chunk.r, chunk.before, width, weighted);
      multiply_add(kChunk, width, width, weighted, width, 1, state, width, out, out_row);
      score(chunk, from_left ? bonus : nullptr, width, x, scores);
      multiply_add(kChunk, kChunk, width, scores, kChunk, 1, chunk.v, width, out, out_row);
      if (c + 1 == walk.chunks()) break;
      scale_rows(chunk.k, chunk.behind, width, weighted);
      cross_chunk(chunk, weighted, chunk.v, width, state);
    }
  }
  write_rows<T>(row, Walk(row, segment, true), y, row.y);
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
    wkv6::ChannelGradients<V> g;
    const V u = bonus != nullptr ? load(bonus + n) : V{};
    wkv6::channel_gradients(ChunkChannels<S>{chunk, inter_r, inter_k, width, n},
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
  Scratch<S> scratch(memory, row.head);
  Chunk<S> chunk(scratch.rows(Chunk<S>::kRows), width);
  S* weighted_r = scratch.rows(kChunk);
  S* weighted_k = scratch.rows(kChunk);
  S* columns = scratch.rows(kChunk);
  S* products = scratch.rows(kChunk);
  S* inter_r = scratch.rows(kChunk);
  S* inter_k = scratch.rows(kChunk);
  S* x = scratch.rows(1);
  S* crossed = scratch.rows(1);
  S* gu = scratch.rows(1);
  const S* bonus = read_bonus(row, scratch);
  S* const gr = scratch.results();
  S* const gk = scratch.results();
  S* const gv = scratch.results();
  S* const ga = scratch.results();
  S* z = scratch.rows(width);
  S* kept = scratch.rows(int64_t{kSegment} / kChunk * width);  // a state per chunk
  alignas(64) S scores[kChunk * kChunk], pairs[kChunk * kChunk];
  clear(gu, width);

  for (int turn = 0; turn < (row.causal ? 1 : 2); ++turn) {
    const bool from_left = turn == 0;
    const Walk walk(row, segment, from_left);
    const int chunks = walk.chunks();
    const auto state_at = [&](int c) { return kept + int64_t{c} * width * width; };
    copied_state(entering.state[from_left ? kLeft : kRight], width, state_at(0));
    for (int c = 0; c + 1 < chunks; ++c) {
      read_decays<S>(row, walk, c, chunk, nullptr);
      read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.k);
      read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.v);
      copied_state(state_at(c), width, state_at(c + 1));
      scale_rows(chunk.k, chunk.behind, width, weighted_k);
      cross_chunk(chunk, weighted_k, chunk.v, width, state_at(c + 1));
    }

    copied_state(entering.state[from_left ? kGradRight : kGradLeft], width, z);
    for (int c = chunks - 1; c >= 0; --c) {
      const S* state = state_at(c);
      const int64_t first = (walk.token(c) - walk.begin) * width;
      const Results<S> to{gr + first, gk + first, gv + first, ga + first, walk.step * width};
      read_decays<S>(row, walk, c, chunk, nullptr);
      read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.r);
      read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.k);
      read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.v);
      read_rows<T>(row.gy, row.gy_stride, walk, c, row.head, chunk.g);
      scale_rows(chunk.r, chunk.before, width, weighted_r);
      scale_rows(chunk.k, chunk.behind, width, weighted_k);
      const S* own_bonus = from_left ? bonus : nullptr;

      transpose_to_columns(chunk.g, width, columns);
      clear(pairs, kChunk * kChunk);
      multiply_add(kChunk, width, kChunk, chunk.v, width, 1, columns, kChunk, pairs, kChunk);
      clear(products, kChunk * width);
      multiply_add(width, width, kChunk, state, width, 1, columns, kChunk, products, kChunk);
      transpose_to_rows(products, width, inter_r);
      transpose_to_columns(chunk.v, width, columns);
      clear(products, kChunk * width);
      multiply_add(width, width, kChunk, z, width, 1, columns, kChunk, products, kChunk);
      transpose_to_rows(products, width, inter_k);
      for (int n = 0; n < width; ++n) {
        Vector<S> sum{};
        for (int m = 0; m < width; m += kLanes)
          sum += load(state + n * width + m) * load(z + n * width + m);
        crossed[n] = sum_of<S>(sum);
      }
      gradients_per_channel(chunk, inter_r, inter_k, crossed, pairs, own_bonus, width, to, gu);

      multiply_add(kChunk, width, width, weighted_k, width, 1, z, width, to.v, to.row);
      score(chunk, own_bonus, width, x, scores);
      multiply_add(kChunk, kChunk, width, scores, 1, kChunk, chunk.g, width, to.v, to.row);
      cross_chunk(chunk, weighted_r, chunk.g, width, z);
    }
  }

  const Walk walk(row, segment, true);
  write_rows<T>(row, walk, gr, row.gr);
  write_rows<T>(row, walk, gk, row.gk);
  write_rows<T>(row, walk, gv, row.gv);
  write_rows<S>(row, walk, ga, row.g_log_decay);
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
