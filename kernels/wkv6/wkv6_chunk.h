#pragma once

#include "kernels/cpu_matrix.h"
#include "kernels/cpu_simd.h"
#include "kernels/wkv6/wkv6_rows.h"

// One chunk of tokens on the CPU: reading it, its decays, the weights between its tokens, and the
// memory that all of this lies in. For wkv6_rows.cpp alone, whose first comment says the rest.
namespace vireo::wkv6_rows {
namespace {

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
  S *own_r, *own_k, *own_v, *g, *d, *before, *behind;
  S* total_less_one;   ///< [padded]: prod d - 1
  const S *r, *k, *v;  ///< rows `stride` apart: these, or where the tensors themselves lie so
  int64_t stride;
  static constexpr int kRows = 8 * kChunk;

  Chunk(S* memory, int width) : stride(width) {
    S** all[] = {&own_r, &own_k, &own_v, &g, &d, &before, &behind, &total_less_one};
    for (S** part : all) {
      *part = memory;
      memory += kChunk * width;
    }
    r = own_r;
    k = own_k;
    v = own_v;
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
    if (next != 0)
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

/// Writes d and prod d - 1 of a chunk; meanwhile asks for w of the next one.
template <class S>
void read_decays(
    const Row& row, const Walk& walk, int index, S* decays, S* total_less_one, int next = 1) {
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(row.head);
  read_w(row, walk, index, decays, 0);
  const S* ahead =
      static_cast<const S*>(row.w) + (walk.token(index) + next * walk.step * kChunk) * row.w_stride;
  for (int n = 0; n < width; n += kLanes) {
    Vector<S> sum{};
    for (int t = 0; t < kChunk; ++t) {
      __builtin_prefetch(ahead + t * walk.step * row.w_stride + n, 0, 2);
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
      const int t = by_those_before ? i : kChunk - 1 - i;
      store(to + t * width + n, load(x + t * chunk.stride + n) * product);
      product *= load(chunk.d + t * width + n);
    }
  }
}

/// to = a * b, elementwise over a chunk.
template <class S>
inline void scale_rows(const S* a, const S* b, int width, S* to) {
  for (int i = 0; i < kChunk * width; ++i) to[i] = a[i] * b[i];
}

/// state <- state prod d + sum_t weighted_t (x) value_t; for `meanwhile` see multiply_add.
template <class S, class Meanwhile = Nothing>
void cross_chunk(const Chunk<S>& chunk,
                 const S* weighted,
                 const S* value,
                 int64_t value_stride,
                 int width,
                 S* state,
                 const Meanwhile& meanwhile = {}) {
  multiply_add<Before::kGrow>(width,
                              kChunk,
                              width,
                              weighted,
                              1,
                              width,
                              value,
                              value_stride,
                              state,
                              width,
                              chunk.total_less_one,
                              meanwhile);
}

/// Asks for the rows of one chunk a few at a time, between steps of arithmetic: processors have few
/// requests to memory under way at once, and wait where there are more.
template <class T>
class Ahead {
 public:
  Ahead(const Row& row, const Walk& walk, int chunk, bool results_too)
      : row_(row),
        first_(walk.token(chunk)),
        step_(walk.step),
        count_(walk.count(chunk)),
        width_(padded(row.head)),
        results_too_(results_too) {}

  /// Called for all of the rows [0, padded) of a state, asks for all tokens.
  void operator()(int begin, int end) const {
    for (int t = begin * kChunk / width_; t < end * kChunk / width_ && t < count_; ++t) {
      const int64_t token = first_ + t * step_;
      ask<0>(row_.r, token * row_.r_stride);
      ask<0>(row_.k, token * row_.k_stride);
      ask<0>(row_.v, token * row_.v_stride);
      if (results_too_) ask<1>(row_.y, token * row_.out_stride);
    }
  }

 private:
  template <int kToWrite>
  void ask(const void* base, int64_t offset) const {
    constexpr int kLine = 64 / sizeof(T);
    const T* at = static_cast<const T*>(base) + offset;
    for (int n = 0; n < row_.head; n += kLine) __builtin_prefetch(at + n, kToWrite, 2);
  }

  const Row& row_;
  int64_t first_;
  int step_, count_, width_;
  bool results_too_;
};

/// For kVectors vectors of channels and all t > i: behind[t - i - 1] += r_t k_i prod_{i<s<t} d_s,
/// and with kBoth before[t - i - 1] += r_i k_t prod_{i<s<t} d_s; from n = 0 on, where they begin.
template <class S, int kVectors, bool kBoth>
inline void add_pairs(
    const Chunk<S>& chunk, int i, int width, int n, Vector<S>* behind, Vector<S>* before) {
  constexpr int kLanes = Simd<S>::kLanes;
  const auto at = [&](const S* rows, int t, int j) {
    return load(rows + t * chunk.stride + n + j * kLanes);
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
      const Vector<S> d = load(chunk.d + t * width + n + j * kLanes);
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
      terms[t] += load(chunk.r + t * chunk.stride + n) * load(bonus + n) *
                  load(chunk.k + t * chunk.stride + n);
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

/// Tokens [begin, end) of a row, from contiguous padded rows.
template <class T, class S>
void write_rows(const Row& row, int64_t begin, int64_t end, const S* from, void* to) {
  constexpr int kLanes = Simd<S>::kLanes;
  const int width = padded(row.head);
  for (int64_t t = begin; t < end; ++t, from += width) {
    T* out = static_cast<T*>(to) + t * row.out_stride;
    int n = 0;
    for (; n + kLanes <= row.head; n += kLanes) store(out + n, load(from + n));
    if (n < row.head) store_some<S>(out + n, load(from + n), row.head - n);
  }
}

}  // namespace
}  // namespace vireo::wkv6_rows
