#include "kernels/bi_wkv/bi_wkv_rows.h"

#include <limits>
#include <type_traits>

#include "kernels/cpu_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
//
// Names: E = e^k and Ev = E v at the row's power of two; a, b = sums of Ev, E over the tokens to
// the left; c, d to the right; g = gy / den; P, Q = sums of g, g y to the left; Pr, Qr to the
// right.
namespace vireo::wkv_rows {
namespace {

// A stage's loop over tokens belongs to the stage: apart from it, what the row holds would be read
// again for every token.
#define VIREO_INLINE __attribute__((always_inline))

template <class S>
const S* parameter(const Row& row, int which) {
  return static_cast<const S*>(row.parameters) + which * kWidth<S>;
}

template <class S>
void derive(const double* w, const double* u, int64_t segment_tokens, void* parameters) {
  constexpr int kLanes = Simd<double>::kLanes;
  typedef S Stored __attribute__((vector_size(kLanes * sizeof(S))));
  const auto put = [&](int which, int lane, Vector<double> x) {
    const auto stored = __builtin_convertvector(x, Stored);
    __builtin_memcpy(
        static_cast<S*>(parameters) + which * kWidth<S> + lane, &stored, sizeof(stored));
    return x - __builtin_convertvector(stored, Vector<double>);
  };
  const Vector<double> none{};
  for (int lane = 0; lane < kWidth<S>; lane += kLanes) {
    const Vector<double> rate = -load(w + lane);
    const auto over = [&](double steps) { return exp_below<double>(rate * steps, none); };
    const Vector<double> step = over(1), full = over(kChunk);
    Vector<double> walked = step - put(kStep, lane, step);
    for (int n = 1; n < kChunk; n *= 2) walked *= walked;
    put(kBonus, lane, exp_below<double>(load(u + lane), none));
    put(kFullRest, lane, put(kFull, lane, full));
    put(kDrift, lane, full - walked);
    put(kOverRest, lane, put(kOver, lane, over(static_cast<double>(segment_tokens))));
    Vector<double> distance = splat(1.0);
    for (int t = 0; t < kChunk; ++t, distance *= step) put(kDistance + t, lane, distance);
  }
}

/// The part of a row that one call sweeps over.
struct Segment {
  int64_t first, tokens, chunks;
  Segment(const Row& row, int64_t index)
      : first(index * row.segment_tokens),
        tokens(row.tokens - first < row.segment_tokens ? row.tokens - first : row.segment_tokens),
        chunks(chunks_of(tokens)) {}
  int tokens_of(int64_t chunk) const {
    const int64_t left = tokens - chunk * kChunk;
    return static_cast<int>(left < kChunk ? left : kChunk);
  }
};

/// Scratch: per chunk the numbers kept, then per token of the segment the planes.
template <class S>
S* kept_of(const Row& row, int64_t chunk) {
  return static_cast<S*>(row.scratch) + kWidth<S> * chunk * kKept;
}
template <class S, int kPlanes>
S* planes_of(const Row& row, const Segment& segment, int64_t token) {
  return kept_of<S>(row, segment.chunks) + kWidth<S> * kPlanes * token;
}
template <class S>
S* ends_of(const Row& row, int64_t segment) {
  return static_cast<S*>(row.ends) + kWidth<S> * segment * kEnds;
}

/// One vector of a row's channels: how to read and write tokens.
template <class T, bool kWhole>
struct Column {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  int lane;   // first channel
  int lanes;  // channels, where not a whole vector

  V read(const T* from) const {
    if constexpr (kWhole)
      return load(from);
    else
      return load_some<S>(from, lanes);
  }
  void write(T* to, V x) const {
    if constexpr (kWhole)
      store(to, x);
    else
      store_some<S>(to, x, lanes);
  }
  const T* at(const void* base, int64_t stride, int64_t token) const {
    return static_cast<const T*>(base) + token * stride + lane;
  }
  T* at(void* base, int64_t stride, int64_t token) const {
    return static_cast<T*>(base) + token * stride + lane;
  }
  V parameter_of(const Row& row, int which) const { return load(parameter<S>(row, which) + lane); }
};

constexpr int kColumns = kRowBytes / kVectorBytes;

/// Calls body(column, its index) for every vector of channels.
template <class T, class Body>
inline void for_each_column(const Row& row, const Body& body) {
  constexpr int kLanes = Simd<typename StateOf<T>::type>::kLanes;
  int lane = 0;
  for (; lane + kLanes <= row.width; lane += kLanes)
    body(Column<T, true>{lane, kLanes}, lane / kLanes);
  if (lane < row.width) body(Column<T, false>{lane, row.width - lane}, lane / kLanes);
}

/// Two sums over the tokens of a row that travel together: (a, b), (c, d), (P, Q) or (Pr, Qr).
template <class V>
struct Sums {
  V x{}, y{};

  template <class S>
  static Sums load_from(const S* at) {
    return {load(at), load(at + kWidth<S>)};
  }
  template <class S>
  void store_to(S* at) const {
    store(at, x);
    store(at + kWidth<S>, y);
  }
  /// Past one token.
  void step_over(V step, V x_own, V y_own) {
    x = x * step + x_own;
    y = y * step + y_own;
  }
  /// One token more, at a distance.
  void add(V decay, V x_own, V y_own) {
    x = x + decay * x_own;
    y = y + decay * y_own;
  }
  /// Past many. The decay is a sum of two numbers: its rounding would add up over a long row.
  void pass(V decay, V rest, const Sums& own) {
    x = x * decay + (x * rest + own.x);
    y = y * decay + (y * rest + own.y);
  }
  /// After the tokens of a chunk, before which the sums were `entering`: what the rounding of e^-w
  /// has cost them.
  void correct(V drift, const Sums& entering) {
    x = x + drift * entering.x;
    y = y + drift * entering.y;
  }
};

/// Coarse powers of two: those of ordinary keys are the same everywhere.
template <class S>
inline Vector<S> power_for(Vector<S> most) {
  constexpr S kCoarse = 16;
  return kCoarse * nearest<S>(most * S(1.4426950408889634 / kCoarse));
}

/// Raises powers of two which the largest key exceeds by far; whether there were any.
template <class S>
inline bool raise(Vector<S>& power, Vector<S> most) {
  constexpr S kRoom = 24;
  const auto over = most * S(1.4426950408889634) - power > kRoom;
  const decltype(over) none{};
  if (__builtin_memcmp(&over, &none, sizeof(over)) == 0) return false;
  power = over ? power_for<S>(most) : power;
  return true;
}

// How many tokens ahead memory is asked for into the second-level cache: one request a token and
// tensor, as few can be under way at a time. Where two results are written, also how many ahead
// they are brought into the first.
constexpr int kAhead = kChunk;
constexpr int kSoon = 6;

/// The power of two for a segment's keys: after one chunk's, the first to be swept. It seldom has
/// to be raised, and then the sweep is repeated.
template <class T, class C>
inline auto first_power(const Row& row, const Segment& segment, const C& column) {
  const int64_t chunk = segment.chunks - 1;
  const T* k = column.at(row.k, row.k_stride, segment.first + chunk * kChunk);
  auto most = column.read(k);
  for (int t = 1; t < segment.tokens_of(chunk); ++t)
    most = larger(most, column.read(k + t * row.k_stride));
  return power_for<typename C::S>(most);
}

// Tokens whose exponentials are found together: as many as registers hold.
constexpr int kTogether = kVectorBytes == 64 ? 4 : 2;

/// From the right, calls body(E, Ev) for n tokens, of which `last` is the last. `ahead`: from a
/// token to the one that is asked for, in tokens, and then `beside` channels on.
template <class T, class C, class V, class Body>
VIREO_INLINE inline void for_each_key(const Row& row,
                                      const C& column,
                                      int64_t last,
                                      int n,
                                      int64_t ahead,
                                      int64_t beside,
                                      V power,
                                      V& most,
                                      const Body& body) {
  using S = typename C::S;
  const int64_t k_stride = row.k_stride, v_stride = row.v_stride;
  const T* k = column.at(row.k, k_stride, last);
  const T* v = column.at(row.v, v_stride, last);
  const int64_t k_ahead = ahead * k_stride + beside, v_ahead = ahead * v_stride + beside;
  const auto some = [&](auto count) VIREO_INLINE {
    constexpr int kCount = decltype(count)::value;
    V E[kCount];
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      E[i] = column.read(k);
      most = larger(most, E[i]);
      __builtin_prefetch(k + k_ahead, 0, 2);
      k -= k_stride;
    }
    exp_below<S>(E, power);
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      body(E[i], E[i] * column.read(v));
      __builtin_prefetch(v + v_ahead, 0, 2);
      v -= v_stride;
    }
  };
  int t = 0;
  for (; t + kTogether <= n; t += kTogether) some(std::integral_constant<int, kTogether>());
  for (; t < n; ++t) some(std::integral_constant<int, 1>());
}

/// From the right: the planes of the keys, and for each chunk the sums that enter it from there.
template <class T, int kPlanes>
inline void sweep_keys(const Row& row, const Segment& segment, int64_t index) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  constexpr int kStride = kPlanes * kWidth<S>;
  const bool known = row.segments > 1;
  V power[kColumns], most[kColumns];
  Sums<V> right[kColumns];
  for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
    power[i] = known ? load(ends_of<S>(row, index) + kPower * kWidth<S> + column.lane)
                     : first_power<T>(row, segment, column);
  });
  bool again = true;
  for (int sweep = 0; sweep < 2 && again; ++sweep) {
    for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
      right[i] = {};
      if (known)
        right[i] = Sums<V>::load_from(ends_of<S>(row, index) + kEndC * kWidth<S> + column.lane);
      most[i] = splat<S>(-std::numeric_limits<S>::infinity());
    });
    for (int64_t chunk = segment.chunks - 1; chunk >= 0; --chunk)
      for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
        const int n = segment.tokens_of(chunk);
        const int64_t token = chunk * kChunk + n - 1;
        right[i].store_to(kept_of<S>(row, chunk) + kC * kWidth<S> + column.lane);
        const V step = column.parameter_of(row, kStep);
        S* kept = planes_of<S, kPlanes>(row, segment, token) + column.lane;
        V top = most[i];
        Sums<V> own;
        // The next chunk or, behind the last, the next row's first.
        const bool more = chunk > 0;
        for_each_key<T>(row,
                        column,
                        segment.first + token,
                        n,
                        more ? -kAhead : (segment.chunks - 1) * kChunk,
                        more ? 0 : kWidth<S>,
                        power[i],
                        top,
                        [&](V E, V Ev) VIREO_INLINE {
                          store(kept + kE * kWidth<S>, E);
                          store(kept + kEv * kWidth<S>, Ev);
                          own.step_over(step, Ev, E);
                          kept -= kStride;
                        });
        most[i] = top;
        right[i].pass(column.parameter_of(row, kFull), column.parameter_of(row, kFullRest), own);
      });
    again = false;
    if (!known && sweep == 0)
      for_each_column<T>(
          row, [&](const auto&, int i) VIREO_INLINE { again |= raise<S>(power[i], most[i]); });
  }
}

/// The sums to the right of a chunk's tokens.
template <class S, int kPlanes>
struct RightSums {
  using V = Vector<S>;
  V c[kChunk], d[kChunk];

  /// Returns the chunk's own sums at its right end.
  VIREO_INLINE inline Sums<V> walk(const S* kept, int n, Sums<V> sums, V step, const S* distances) {
    kept += (n - 1) * kPlanes * kWidth<S>;
    Sums<V> own;
    for (int t = n - 1; t >= 0; --t, kept -= kPlanes * kWidth<S>, distances += kWidth<S>) {
      const V E = load(kept + kE * kWidth<S>), Ev = load(kept + kEv * kWidth<S>);
      c[t] = sums.x;
      d[t] = sums.y;
      sums.step_over(step, Ev, E);
      own.add(load(distances), Ev, E);
    }
    return own;
  }
};

template <class T>
void forward(const Row& given, int64_t index) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const Row row = given;  // which no result can overlap
  const Segment segment(row, index);
  constexpr int kPlanes = kForwardPlanes, kStride = kPlanes * kWidth<S>;
  sweep_keys<T, kPlanes>(row, segment, index);
  Sums<V> left[kColumns];
  if (row.segments > 1)
    for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
      left[i] = Sums<V>::load_from(ends_of<S>(row, index) + kEndA * kWidth<S> + column.lane);
    });
  for (int64_t chunk = 0; chunk < segment.chunks; ++chunk)
    for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
      const int n = segment.tokens_of(chunk);
      const V step = column.parameter_of(row, kStep), bonus = column.parameter_of(row, kBonus);
      const S* kept = planes_of<S, kPlanes>(row, segment, chunk * kChunk) + column.lane;
      RightSums<S, kPlanes> right;
      const Sums<V> own =
          right.walk(kept,
                     n,
                     Sums<V>::load_from(kept_of<S>(row, chunk) + kC * kWidth<S> + column.lane),
                     step,
                     parameter<S>(row, kDistance) + column.lane);
      const int64_t stride = row.out_stride;
      T* y = column.at(row.out[0], stride, segment.first + chunk * kChunk);
      const int64_t ahead = chunk + 1 < segment.chunks
                                ? kAhead * stride
                                : kWidth<S> - (segment.chunks - 1) * kChunk * stride;
      Sums<V> sums = left[i];
      for (int t = 0; t < n; ++t, y += stride, kept += kStride) {
        const V E = load(kept + kE * kWidth<S>), Ev = load(kept + kEv * kWidth<S>);
        __builtin_prefetch(y + ahead, 1, 2);
        const V num = (sums.x + right.c[t]) + bonus * Ev, den = (sums.y + right.d[t]) + bonus * E;
        column.write(y, num / den);
        sums.step_over(step, Ev, E);
      }
      left[i].pass(column.parameter_of(row, kFull), column.parameter_of(row, kFullRest), own);
    });
}

// ---- Rows of several segments ----

/// A segment's own sums of its keys, at a power of two of its own.
template <class T>
void summarise(const Row& given, int64_t index) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const Row row = given;
  const Segment segment(row, index);
  for_each_column<T>(row, [&](const auto& column, int) VIREO_INLINE {
    const V step = column.parameter_of(row, kStep);
    const V full = column.parameter_of(row, kFull), rest = column.parameter_of(row, kFullRest);
    const S* distances = parameter<S>(row, kDistance) + column.lane;
    V power = first_power<T>(row, segment, column), most;
    Sums<V> right;
    bool again = true;
    for (int sweep = 0; sweep < 2 && again; ++sweep) {
      most = splat<S>(-std::numeric_limits<S>::infinity());
      right = {};
      for (int64_t chunk = segment.chunks - 1; chunk >= 0; --chunk) {
        const int n = segment.tokens_of(chunk);
        Sums<V> own, to_right;
        const S* distance_at = distances;
        for_each_key<T>(row,
                        column,
                        segment.first + chunk * kChunk + n - 1,
                        n,
                        -kAhead,
                        0,
                        power,
                        most,
                        [&](V E, V Ev) VIREO_INLINE {
                          own.step_over(step, Ev, E);
                          to_right.add(load(distance_at), Ev, E);
                          distance_at += kWidth<S>;
                        });
        to_right.store_to(kept_of<S>(row, chunk) + kA * kWidth<S> + column.lane);
        right.pass(full, rest, own);
      }
      again = sweep == 0 && raise<S>(power, most);
    }
    Sums<V> left;
    for (int64_t chunk = 0; chunk < segment.chunks; ++chunk)
      left.pass(
          full, rest, Sums<V>::load_from(kept_of<S>(row, chunk) + kA * kWidth<S> + column.lane));
    S* ends = ends_of<S>(row, index) + column.lane;
    left.store_to(ends + kEndA * kWidth<S>);
    right.store_to(ends + kEndC * kWidth<S>);
    store(ends + kPower * kWidth<S>, power);
  });
}

/// Replaces the segments' own sums at `which`, times scale(ends), by those that enter them, segment
/// after segment.
template <class T, class C, class Scale>
inline void carry_over(
    const Row& row, const C& column, int which, bool from_left, const Scale& scale) {
  using S = typename C::S;
  using V = Vector<S>;
  const V decay = column.parameter_of(row, kOver), rest = column.parameter_of(row, kOverRest);
  Sums<V> sums;
  for (int64_t j = 0; j < row.segments; ++j) {
    S* ends = ends_of<S>(row, from_left ? j : row.segments - 1 - j) + column.lane;
    Sums<V> own = Sums<V>::load_from(ends + which * kWidth<S>);
    const V factor = scale(ends);
    own.x *= factor;
    own.y *= factor;
    sums.store_to(ends + which * kWidth<S>);
    sums.pass(decay, rest, own);
  }
}

/// Replaces the segments' own sums by those that enter them, all at one power of two.
template <class T>
void carry(const Row& row) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  for_each_column<T>(row, [&](const auto& column, int) VIREO_INLINE {
    const auto power_at = [&](int64_t j) {
      return ends_of<S>(row, j) + kPower * kWidth<S> + column.lane;
    };
    V top = load(power_at(0));
    for (int64_t j = 1; j < row.segments; ++j) top = larger(top, load(power_at(j)));
    const auto scale = [&](const S* ends) {
      return times_pow2<S>(splat<S>(1), load(ends + kPower * kWidth<S>) - top);
    };
    carry_over<T>(row, column, kEndA, true, scale);
    carry_over<T>(row, column, kEndC, false, scale);
    for (int64_t j = 0; j < row.segments; ++j) store(power_at(j), top);
  });
}

template <class T>
void grad_carry(const Row& row) {
  using S = typename StateOf<T>::type;
  for_each_column<T>(row, [&](const auto& column, int) VIREO_INLINE {
    const auto scale = [](const S*) { return splat<S>(1); };
    carry_over<T>(row, column, kEndP, true, scale);
    carry_over<T>(row, column, kEndPr, false, scale);
  });
}

// ---- Backward ----

/// From the left, after sweep_keys: the planes of the gradients, and for each chunk the sums of
/// gradients that enter it from the left. Either also the segment's own sums, or the shares of gw
/// and gu. Of two tokens every one between them adds to gw: those to the right of a gradient by P c
/// and Q d, those to the left by the derivatives of a and b by e^-w.
template <class T, bool kSummary>
inline void sweep_gradients(const Row& row, const Segment& segment, int64_t index) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  constexpr int kPlanes = kBackwardPlanes, kStride = kPlanes * kWidth<S>;
  Sums<V> keys[kColumns], slopes[kColumns], gradients[kColumns];
  for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
    if (row.segments == 1) return;
    const S* ends = ends_of<S>(row, index) + column.lane;
    keys[i] = Sums<V>::load_from(ends + kEndA * kWidth<S>);
    if (!kSummary) gradients[i] = Sums<V>::load_from(ends + kEndP * kWidth<S>);
  });
  for (int64_t chunk = 0; chunk < segment.chunks; ++chunk)
    for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
      const int n = segment.tokens_of(chunk);
      const V step = column.parameter_of(row, kStep), bonus = column.parameter_of(row, kBonus);
      const S* distances = parameter<S>(row, kDistance) + column.lane;
      S* kept = planes_of<S, kPlanes>(row, segment, chunk * kChunk) + column.lane;
      S* numbers = kept_of<S>(row, chunk) + column.lane;
      RightSums<S, kPlanes> right;
      const Sums<V> own =
          right.walk(kept, n, Sums<V>::load_from(numbers + kC * kWidth<S>), step, distances);
      gradients[i].store_to(numbers + kP * kWidth<S>);
      const int64_t stride = row.gy_stride;
      const T* gy_at = column.at(row.gy, stride, segment.first + chunk * kChunk);
      const int64_t ahead = chunk + 1 < segment.chunks
                                ? kAhead * stride
                                : kWidth<S> - (segment.chunks - 1) * kChunk * stride;
      Sums<V> ab = keys[i], slope = slopes[i], PQ = gradients[i], to_left;
      V gw{}, gu{};
      for (int t = 0; t < n; ++t, gy_at += stride, kept += kStride) {
        const V E = load(kept + kE * kWidth<S>), Ev = load(kept + kEv * kWidth<S>);
        __builtin_prefetch(gy_at + ahead, 0, 2);
        const V inverse = S(1) / ((ab.y + right.d[t]) + bonus * E);
        const V y = ((ab.x + right.c[t]) + bonus * Ev) * inverse;
        const V g = column.read(gy_at) * inverse, gy = g * y;
        store(kept + kG * kWidth<S>, g);
        store(kept + kGy * kWidth<S>, gy);
        if constexpr (kSummary) {
          const V distance = load(distances + t * kWidth<S>);
          to_left.add(distance, g, gy);
        } else {
          gw += PQ.x * right.c[t] - PQ.y * right.d[t];
          gw += g * slope.x - gy * slope.y;
          gu += g * Ev - gy * E;
          slope.step_over(step, ab.x, ab.y);
        }
        PQ.step_over(step, g, gy);
        ab.step_over(step, Ev, E);
      }
      const V drift = column.parameter_of(row, kDrift);
      keys[i].pass(column.parameter_of(row, kFull), column.parameter_of(row, kFullRest), own);
      PQ.correct(drift, gradients[i]);
      gradients[i] = PQ;
      if constexpr (kSummary) {
        to_left.store_to(numbers + kPr * kWidth<S>);
      } else {
        slope.correct(drift, slopes[i]);
        slopes[i] = slope;
        if (row.segments > 1 && chunk + 1 == segment.chunks) {
          // Gradients of segments further to the right.
          const S* ends = ends_of<S>(row, index) + column.lane;
          const auto beyond = Sums<V>::load_from(ends + kEndPr * kWidth<S>);
          gw += beyond.x * slope.x - beyond.y * slope.y;
        }
        store(numbers + kGw * kWidth<S>, -(step * gw));
        store(numbers + kGu * kWidth<S>, bonus * gu);
      }
    });
  if constexpr (kSummary)
    for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
      const V full = column.parameter_of(row, kFull), rest = column.parameter_of(row, kFullRest);
      S* ends = ends_of<S>(row, index) + column.lane;
      gradients[i].store_to(ends + kEndP * kWidth<S>);
      Sums<V> right;
      for (int64_t chunk = segment.chunks - 1; chunk >= 0; --chunk)
        right.pass(
            full, rest, Sums<V>::load_from(kept_of<S>(row, chunk) + kPr * kWidth<S> + column.lane));
      right.store_to(ends + kEndPr * kWidth<S>);
    });
}

template <class T>
void grad_summarise(const Row& given, int64_t index) {
  const Row row = given;
  const Segment segment(row, index);
  sweep_keys<T, kBackwardPlanes>(row, segment, index);
  sweep_gradients<T, true>(row, segment, index);
}

/// The chunks' shares of gw or gu: in float64 and always in the same order.
template <class S>
void add_up(const Row& row, const Segment& segment, Kept which, double* shares) {
  double sums[kWidth<S>] = {};
  for (int64_t chunk = 0; chunk < segment.chunks; ++chunk)
    for (int lane = 0; lane < kWidth<S>; ++lane)
      sums[lane] += static_cast<double>(kept_of<S>(row, chunk)[which * kWidth<S> + lane]);
  for (int lane = 0; lane < row.width; ++lane) shares[lane] = sums[lane];
}

template <class T>
void backward(const Row& given, int64_t index) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const Row row = given;
  const Segment segment(row, index);
  constexpr int kPlanes = kBackwardPlanes, kStride = kPlanes * kWidth<S>;
  sweep_keys<T, kPlanes>(row, segment, index);
  sweep_gradients<T, false>(row, segment, index);
  Sums<V> entering[kColumns];
  if (row.segments > 1)
    for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
      entering[i] = Sums<V>::load_from(ends_of<S>(row, index) + kEndPr * kWidth<S> + column.lane);
    });
  for (int64_t chunk = segment.chunks - 1; chunk >= 0; --chunk)
    for_each_column<T>(row, [&](const auto& column, int i) VIREO_INLINE {
      const int n = segment.tokens_of(chunk);
      const V step = column.parameter_of(row, kStep), bonus = column.parameter_of(row, kBonus);
      const S* kept = planes_of<S, kPlanes>(row, segment, chunk * kChunk) + column.lane;
      const S* numbers = kept_of<S>(row, chunk) + column.lane;
      const int64_t stride = row.out_stride;
      const int64_t ahead =
          chunk > 0 ? -kAhead * stride : (segment.chunks - 1) * kChunk * stride + kWidth<S>;
      T* gk = column.at(row.out[0], stride, segment.first + chunk * kChunk + n - 1);
      T* gv = column.at(row.out[1], stride, segment.first + chunk * kChunk + n - 1);
      // What needs the sums to the left.
      V sums[kChunk], sums_y[kChunk];
      Sums<V> PQ = Sums<V>::load_from(numbers + kP * kWidth<S>);
      for (int t = 0; t < n; ++t, kept += kStride) {
        const V g = load(kept + kG * kWidth<S>), gy = load(kept + kGy * kWidth<S>);
        sums[t] = PQ.x + bonus * g;
        sums_y[t] = PQ.y + bonus * gy;
        PQ.step_over(step, g, gy);
      }
      Sums<V> right = entering[i];
      for (int t = n - 1; t >= 0; --t, gk -= stride, gv -= stride) {
        kept -= kStride;
        const V E = load(kept + kE * kWidth<S>), Ev = load(kept + kEv * kWidth<S>);
        const V sum = sums[t] + right.x, sum_y = sums_y[t] + right.y;
        __builtin_prefetch(gk + ahead, 1, 2);
        __builtin_prefetch(gv + ahead, 1, 2);
        __builtin_prefetch(gk - kSoon * stride, 1, 3);
        __builtin_prefetch(gv - kSoon * stride, 1, 3);
        column.write(gk, Ev * sum - E * sum_y);
        column.write(gv, E * sum);
        right.step_over(step, load(kept + kG * kWidth<S>), load(kept + kGy * kWidth<S>));
      }
      right.correct(column.parameter_of(row, kDrift), entering[i]);
      entering[i] = right;
    });
  add_up<S>(row, segment, kGw, row.shares + index * row.shares_stride);
  add_up<S>(row, segment, kGu, row.shares_u + index * row.shares_stride);
}

template <class T>
constexpr Functions functions() {
  return {derive<typename StateOf<T>::type>,
          summarise<T>,
          carry<T>,
          forward<T>,
          grad_summarise<T>,
          grad_carry<T>,
          backward<T>};
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{
      functions<float>(), functions<double>(), functions<Bf16>(), functions<Half>()};
  return table;
}

}  // namespace vireo::wkv_rows
