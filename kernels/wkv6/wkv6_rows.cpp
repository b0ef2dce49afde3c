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

/// What becomes of the product's target c first.
enum class Before {
  kKeep,
  kClear,  ///< c = 0
  kGrow,   ///< c[i][j] grows by growth[i] c[i][j]
};

/// c[i][j] += sum_l a(i,l) b[l][j] for kRows rows and kVectors vectors; a(i,l) = a[i a_row + l
/// a_column].
template <Before kBefore, class S, int kRows, int kVectors>
inline void tile(const S* growth,
                 int inner,
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
    for (int j = 0; j < kVectors; ++j)
      sum[i][j] = kBefore == Before::kClear ? Vector<S>{} : load(c + i * c_row + j * kLanes);
  if constexpr (kBefore == Before::kGrow) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sum[i][j] += sum[i][j] * splat<S>(growth[i]);
  }
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
template <Before kBefore = Before::kKeep, class S>
void multiply_add(int rows,
                  int inner,
                  int columns,
                  const S* a,
                  int64_t a_row,
                  int64_t a_column,
                  const S* b,
                  int64_t b_row,
                  S* c,
                  int64_t c_row,
                  const S* growth = nullptr) {
  constexpr int kLanes = Simd<S>::kLanes;
  constexpr int kWide = kVectorBytes == 64 ? 4 : 2;
  const auto from = [&](int i) { return kBefore == Before::kGrow ? growth + i : nullptr; };
  int column = 0;
  for (; column + kWide * kLanes <= columns; column += kWide * kLanes)
    for (int i = 0; i < rows; i += 4)
      tile<kBefore, S, 4, kWide>(from(i),
                                 inner,
                                 a + i * a_row,
                                 a_row,
                                 a_column,
                                 b + column,
                                 b_row,
                                 c + i * c_row + column,
                                 c_row);
  for (; column < columns; column += kLanes)
    for (int i = 0; i < rows; i += 8)
      tile<kBefore, S, 8, 1>(from(i),
                             inner,
                             a + i * a_row,
                             a_row,
                             a_column,
                             b + column,
                             b_row,
                             c + i * c_row + column,
                             c_row);
}

// ---- Vectors across ----

/// Lane l takes the first argument's lane l, or, where l has the bit kHalf, the second's lane l -
/// kHalf.
template <class S, int kHalf>
inline Vector<S> lower_halves(Vector<S> a, Vector<S> b) {
  typename Simd<S>::I from;
  for (int l = 0; l < Simd<S>::kLanes; ++l) from[l] = l & kHalf ? Simd<S>::kLanes + l - kHalf : l;
  return __builtin_shuffle(a, b, from);
}
/// Lane l takes the first argument's lane l + kHalf, or, where l has the bit kHalf, the second's
/// lane l.
template <class S, int kHalf>
inline Vector<S> upper_halves(Vector<S> a, Vector<S> b) {
  typename Simd<S>::I from;
  for (int l = 0; l < Simd<S>::kLanes; ++l) from[l] = l & kHalf ? Simd<S>::kLanes + l : l + kHalf;
  return __builtin_shuffle(a, b, from);
}

/// The sums of kLanes vectors, each in the lane of its number; overwrites them.
template <class S, int kHalf = Simd<S>::kLanes / 2>
inline Vector<S> sums_of(Vector<S>* x) {
#pragma GCC unroll 8
  for (int i = 0; i < kHalf; ++i)
    x[i] = lower_halves<S, kHalf>(x[i], x[i + kHalf]) + upper_halves<S, kHalf>(x[i], x[i + kHalf]);
  if constexpr (kHalf > 1) return sums_of<S, kHalf / 2>(x);
  return x[0];
}

/// Transposes kLanes vectors.
template <class S, int kHalf = Simd<S>::kLanes / 2>
inline void transpose(Vector<S>* x) {
#pragma GCC unroll 16
  for (int i = 0; i < Simd<S>::kLanes; ++i) {
    if (i & kHalf) continue;
    const Vector<S> low = x[i], high = x[i + kHalf];
    x[i] = lower_halves<S, kHalf>(low, high);
    x[i + kHalf] = upper_halves<S, kHalf>(low, high);
  }
  if constexpr (kHalf > 1) transpose<S, kHalf / 2>(x);
}

template <class S>
inline void clear(S* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 0;
}

/// to[column][row] = from[row][column]; rows and columns are multiples of kChunk.
template <class S>
inline void transposed(const S* from, int rows, int columns, S* to) {
  constexpr int kLanes = Simd<S>::kLanes;
  for (int row = 0; row < rows; row += kLanes)
    for (int column = 0; column < columns; column += kLanes) {
      Vector<S> x[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) x[i] = load(from + (row + i) * columns + column);
      transpose<S>(x);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(to + (column + i) * rows + row, x[i]);
    }
}

// ---- Walks ----

/// A segment's tokens in the order of a walk.
struct Walk {
  int64_t begin, end;
  int step;  ///< 1 from the left, -1 from the right

  Walk(const Row& row, int64_t segment, bool from_left)
      : begin(segment * row.segment_tokens),
        end(begin + row.segment_tokens < row.tokens ? begin + row.segment_tokens : row.tokens),
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

/// Reads a chunk, with `fill` beyond its tokens and channels. Also asks for the rows of the next
/// chunk, or with next = -1 for those of the one before.
template <class T, class S>
void read_rows(const void* base,
               int64_t stride,
               const Walk& walk,
               int chunk,
               int head,
               S* to,
               int next = 1,
               S fill = 0) {
  constexpr int kLanes = Simd<S>::kLanes, kLine = 64 / sizeof(T);
  const int width = padded(head), count = walk.count(chunk);
  const T* from = static_cast<const T*>(base) + walk.token(chunk) * stride;
  const int64_t ahead = next * walk.step * kChunk * stride;
  for (int t = 0; t < count; ++t, from += walk.step * stride, to += width) {
    for (int n = 0; n < head; n += kLine) __builtin_prefetch(from + ahead + n);
    int n = 0;
    for (; n + kLanes <= head; n += kLanes) store(to + n, load(from + n));
    if (n < head) store(to + n, load_some<S>(from + n, head - n));
    for (n = head; n < width; ++n) to[n] = fill;
  }
  for (int n = 0; n < (kChunk - count) * width; ++n) to[n] = fill;
}

template <class S>
void read_w(const Row& row, const Walk& walk, int chunk, S* to, int next = 1) {
  constexpr S kNoDecay = -1000;  // d = 1
  read_rows<S>(row.w, row.w_stride, walk, chunk, row.head, to, next, kNoDecay);
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

/// ln d = -exp(w), with w at most 10.
template <class S>
inline Vector<S> log_decay(const S* w) {
  const Vector<S> x = load(w), most = splat<S>(kLargestW);
  return -exp_below<S>(x > most ? most : x, Vector<S>{});
}

/// Writes d and prod d - 1 of a chunk.
template <class S>
void read_decays(
    const Row& row, const Walk& walk, int index, S* decays, S* total_less_one, int next = 1) {
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(row.head);
  read_w(row, walk, index, decays, next);
  for (int n = 0; n < width; n += kLanes) {
    Vector<S> sum{};
    for (int t = 0; t < kChunk; ++t) {
      S* at = decays + t * width + n;
      const Vector<S> log = log_decay(at);
      sum += log;
      store(at, exp_below<S>(log, Vector<S>{}));
    }
    store(total_less_one + n, exp_less_one<S>(sum));
  }
}

/// Derives before and behind from d.
template <class S>
void multiply_decays(Chunk<S>& chunk, int width) {
  for (int n = 0; n < width; n += Simd<S>::kLanes)
    wkv6_math::products_of_decays(
        splat<S>(1),
        [&](int t) { return load(chunk.d + t * width + n); },
        [&](int t, Vector<S> x) { store(chunk.before + t * width + n, x); },
        [&](int t, Vector<S> x) { store(chunk.behind + t * width + n, x); });
}

template <class S>
void read_decays(const Row& row, const Walk& walk, int index, Chunk<S>& chunk, int next = 1) {
  read_decays(row, walk, index, chunk.d, chunk.total_less_one, next);
  multiply_decays(chunk, padded(row.head));
}

/// to_t = x_t prod d, over the tokens before t of the chunk (walking from its first) or behind.
template <class S>
inline void weigh_rows(const Chunk<S>& chunk, const S* x, bool by_those_before, int width, S* to) {
  for (int n = 0; n < width; n += Simd<S>::kLanes) {
    Vector<S> product = splat<S>(1);
    for (int i = 0; i < kChunk; ++i) {
      const int at = (by_those_before ? i : kChunk - 1 - i) * width + n;
      store(to + at, load(x + at) * product);
      product *= load(chunk.d + at);
    }
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
  multiply_add<Before::kGrow>(
      width, kChunk, width, weighted, 1, width, value, width, state, width, chunk.total_less_one);
}

/// For kVectors vectors of channels and all t > i: behind[t - i - 1] += r_t k_i prod_{i<s<t} d_s,
/// and with kBoth before[t - i - 1] += r_i k_t prod_{i<s<t} d_s; from n = 0 on, where they begin.
template <class S, int kVectors, bool kBoth>
inline void add_pairs(
    const Chunk<S>& chunk, int i, int width, int n, Vector<S>* behind, Vector<S>* before) {
  constexpr int kLanes = Simd<S>::kLanes;
  const auto at = [&](const S* rows, int t, int j) {
    return load(rows + t * width + n + j * kLanes);
  };
  Vector<S> k[kVectors], r[kVectors];
#pragma GCC unroll 4
  for (int j = 0; j < kVectors; ++j) {
    k[j] = at(chunk.k, i, j);
    if constexpr (kBoth) r[j] = at(chunk.r, i, j);
  }
  for (int t = i + 1; t < kChunk; ++t) {
    Vector<S> sum_behind = n == 0 ? Vector<S>{} : behind[t - i - 1], sum_before{};
    if constexpr (kBoth)
      if (n != 0) sum_before = before[t - i - 1];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) {
      const Vector<S> d = at(chunk.d, t, j);
      sum_behind += at(chunk.r, t, j) * k[j];
      k[j] *= d;
      if constexpr (kBoth) {
        sum_before += at(chunk.k, t, j) * r[j];
        r[j] *= d;
      }
    }
    behind[t - i - 1] = sum_behind;
    if constexpr (kBoth) before[t - i - 1] = sum_before;
  }
}

/// scores[t][i] = sum_n r_t k_i prod d between them, for i < t, and with kBoth for i > t; with a
/// bonus, [t][t] = sum_n r_t u k_t; zero elsewhere.
template <bool kBoth, class S>
void score(const Chunk<S>& chunk, const S* bonus, int width, S* scores) {
  constexpr int kLanes = Simd<S>::kLanes;
  constexpr int kWide = kVectorBytes == 64 ? 4 : 2;
  constexpr int kPairs = kChunk * (kChunk - 1) / 2, kDirections = kBoth ? 2 : 1;
  // Own terms, then pairs ordered by i and t; summed across a group of vectors at a time.
  constexpr int kSums = (kChunk + kDirections * kPairs + kLanes - 1) / kLanes * kLanes;
  Vector<S> terms[kSums];
  for (int t = 0; t < kChunk; ++t) {
    terms[t] = Vector<S>{};
    if (bonus == nullptr) continue;
    for (int n = 0; n < width; n += kLanes)
      terms[t] += load(chunk.r + t * width + n) * load(bonus + n) * load(chunk.k + t * width + n);
  }
  for (int i = kChunk + kDirections * kPairs; i < kSums; ++i) terms[i] = Vector<S>{};
  Vector<S>* behind = terms + kChunk;
  for (int i = 0; i < kChunk; ++i) {
    int n = 0;
    for (; n + kWide * kLanes <= width; n += kWide * kLanes)
      add_pairs<S, kWide, kBoth>(chunk, i, width, n, behind, behind + kPairs);
    for (; n < width; n += kLanes)
      add_pairs<S, 1, kBoth>(chunk, i, width, n, behind, behind + kPairs);
    behind += kChunk - 1 - i;
  }
  alignas(64) S sums[kSums];
  for (int i = 0; i < kSums; i += kLanes) store(sums + i, sums_of<S>(terms + i));
  const S* next = sums + kChunk;
  for (int i = 0; i < kChunk; ++i) {
    scores[i * kChunk + i] = sums[i];
    for (int t = i + 1; t < kChunk; ++t, ++next) {
      scores[t * kChunk + i] = *next;
      scores[i * kChunk + t] = kBoth ? next[kPairs] : S(0);
    }
  }
}

// ---- Scratch ----

template <class S>
class Scratch {
 public:
  Scratch(void* memory, const Row& row)
      : next_(static_cast<S*>(memory)), width_(padded(row.head)), segment_(row.segment_tokens) {}
  S* rows(int64_t count) {
    S* taken = next_;
    next_ += count * width_;
    return taken;
  }
  /// Results of a segment's tokens, gathered over both walks, and room on either side for the
  /// tokens that a last chunk lacks.
  S* results() {
    const int64_t count = segment_ + 2 * kChunk;
    S* taken = rows(count);
    clear(taken, count * width_);
    return taken + kChunk * width_;
  }

 private:
  S* next_;
  int width_;
  int64_t segment_;
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
    read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.k);
    read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.v);
    add(kLeft, chunk.k, chunk.v, c);
    add(kRight, chunk.k, chunk.v, c);
    if (row.gy == nullptr) continue;
    read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.r);
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
  const auto read = [&](int c, int next) {
    chunk.d = decays + int64_t{c} * kChunk * width;
    chunk.total_less_one = totals + int64_t{c} * width;
    read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.r, next);
    read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.k, next);
    read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.v, next);
  };
  const auto add_state = [&](bool from_left, S* out) {
    weigh_rows(chunk, chunk.r, from_left, width, weighted);
    if (row.causal || !from_left)  // the first that is written
      multiply_add<Before::kClear>(
          kChunk, width, width, weighted, width, 1, state, width, out, width);
    else
      multiply_add(kChunk, width, width, weighted, width, 1, state, width, out, width);
  };
  const auto cross = [&](bool from_left) {
    weigh_rows(chunk, chunk.k, !from_left, width, weighted);
    cross_chunk(chunk, weighted, chunk.v, width, state);
  };
  if (!row.causal) {
    copied_state(entering.state[kRight], width, state);
    for (int c = chunks - 1; c >= 0; --c) {
      read(c, -1);
      add_state(false, y + int64_t{c} * kChunk * width);
      if (c > 0) cross(false);
    }
  }
  copied_state(entering.state[kLeft], width, state);
  alignas(64) S scores[kChunk * kChunk];
  for (int c = 0; c < chunks; ++c) {
    read(c, 1);
    S* out = y + int64_t{c} * kChunk * width;
    add_state(true, out);
    row.causal ? score<false>(chunk, bonus, width, scores)
               : score<true>(chunk, bonus, width, scores);
    multiply_add(kChunk, kChunk, width, scores, kChunk, 1, chunk.v, width, out, width);
    if (c + 1 < chunks) cross(true);
  }
  write_rows<T>(row, walk, y, row.y);
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
      read_decays(row, walk, c, chunk, -1);
      read_rows<T>(row.r, row.r_stride, walk, c, row.head, chunk.r, -1);
      read_rows<T>(row.k, row.k_stride, walk, c, row.head, chunk.k, -1);
      read_rows<T>(row.v, row.v_stride, walk, c, row.head, chunk.v, -1);
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
      if (c > 0) cross_chunk(chunk, weighted_r, chunk.g, width, z);
    }
  }

  const Walk walk(row, segment, true);
  write_rows<T>(row, walk, gr, row.gr);
  write_rows<T>(row, walk, gk, row.gk);
  write_rows<T>(row, walk, gv, row.gv);
  for (int c = 0; c < walk.chunks(); ++c) {  // gw = the gradient of ln d, times ln d
    read_w(row, walk, c, chunk.d);
    for (int i = 0; i < kChunk * width; i += kLanes) {
      S* at = ga + int64_t{c} * kChunk * width + i;
      store(at, load(at) * log_decay(chunk.d + i));
    }
  }
  write_rows<S>(row, walk, ga, row.gw);
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
