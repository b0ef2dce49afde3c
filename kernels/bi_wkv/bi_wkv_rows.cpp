#include "kernels/bi_wkv/bi_wkv_rows.h"

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

template <class T>
struct StateOf {
  using type = float;
};
template <>
struct StateOf<double> {
  using type = double;
};

template <class S>
const S* parameter(const Row& row, int which) {
  return static_cast<const S*>(row.parameters) + which * kWidth<S>;
}

template <class S>
void derive(const double* w, const double* u, int64_t tokens, void* parameters) {
  constexpr int kLanes = Simd<double>::kLanes;
  const auto last = static_cast<double>(tokens - (chunks_of(tokens) - 1) * kChunk);
  const auto put = [&](int which, int lane, Vector<double> x) {
    S* to = static_cast<S*>(parameters) + which * kWidth<S> + lane;
    for (int i = 0; i < kLanes; ++i) {
      to[i] = static_cast<S>(x[i]);
      x[i] -= static_cast<double>(to[i]);
    }
    return x;
  };
  const Vector<double> none{};
  for (int lane = 0; lane < kWidth<S>; lane += kLanes) {
    const Vector<double> rate = -load(w + lane);
    const auto over = [&](double steps) { return exp_below<double>(rate * steps, none); };
    const Vector<double> step = over(1);
    put(kStep, lane, step);
    put(kBonus, lane, exp_below<double>(load(u + lane), none));
    put(kFullRest, lane, put(kFull, lane, over(kChunk)));
    put(kLastRest, lane, put(kLast, lane, over(last)));
    Vector<double> distance = splat(1.0);
    for (int t = 0; t < kChunk; ++t, distance *= step) put(kDistance + t, lane, distance);
  }
}

/// Scratch: the row's power of two, then per chunk the keys' numbers, then the planes, then the
/// gradients' numbers.
template <class S>
S* row_power(const Row& row) {
  return static_cast<S*>(row.scratch);
}
template <class S>
S* keys_kept(const Row& row, int64_t chunk) {
  return row_power<S>(row) + kWidth<S> * (1 + chunk * kKeysKept);
}
template <class S>
S* plane(const Row& row, Plane which, int64_t token) {
  return keys_kept<S>(row, chunks_of(row.tokens)) + kWidth<S> * (which * row.tokens + token);
}
template <class S>
S* grads_kept(const Row& row, int64_t chunk) {
  return plane<S>(row, kGy, row.tokens) + kWidth<S> * (chunk * kGradKept);
}

/// One vector of channels within one chunk: how to read and write its tokens.
template <class T, bool kWhole>
struct Column {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  int64_t first;  // token
  int n;          // tokens
  int lane;       // first channel
  int lanes;      // channels, where not a whole vector

  V read(const void* from, int64_t stride, int t) const {
    const T* at = static_cast<const T*>(from) + (first + t) * stride + lane;
    if constexpr (kWhole)
      return load(at);
    else
      return load_some<S>(at, lanes);
  }
  void write(void* to, int64_t stride, int t, V x) const {
    T* at = static_cast<T*>(to) + (first + t) * stride + lane;
    if constexpr (kWhole)
      store(at, x);
    else
      store_some<S>(at, x, lanes);
  }

  /// Where this chunk's part of a plane begins; tokens are kWidth apart.
  S* kept(const Row& row, Plane which) const { return plane<S>(row, which, first) + lane; }

  /// Asks for the same channels of the next chunk or, behind the last, of the next row.
  template <int kToWrite = 0>
  void ask_ahead(const Row& row, const void* base, int64_t stride) const {
    const int64_t next = first + kChunk;
    const T* at = static_cast<const T*>(base) + lane +
                  (next < row.tokens ? next * stride : static_cast<int64_t>(kWidth<S>));
    for (int t = 0; t < n; ++t) __builtin_prefetch(at + t * stride, kToWrite, 2);
  }
};

/// Calls body(column, chunk) for every vector of channels in chunks [begin, end).
template <class T, class Body>
inline void for_each_column(const Row& row, int64_t begin, int64_t end, const Body& body) {
  constexpr int kVector = Simd<typename StateOf<T>::type>::kLanes;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t first = chunk * kChunk, left = row.tokens - first;
    const int n = static_cast<int>(left < kChunk ? left : kChunk);
    int lane = 0;
    for (; lane + kVector <= row.width; lane += kVector)
      body(Column<T, true>{first, n, lane, kVector}, chunk);
    if (lane < row.width) body(Column<T, false>{first, n, lane, row.width - lane}, chunk);
  }
}

template <class T>
void summarise(const Row& given, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const Row row = given;  // which no result can overlap
  // Coarse powers of two: ordinary keys then have the same in every chunk, and nothing has to be
  // aligned later.
  constexpr S kCoarse = 16;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) VIREO_INLINE {
    column.ask_ahead(row, row.k, row.k_stride);
    column.ask_ahead(row, row.v, row.v_stride);
    V most = column.read(row.k, row.k_stride, 0);
    for (int t = 1; t < column.n; ++t) most = larger(most, column.read(row.k, row.k_stride, t));
    const V power = kCoarse * nearest<S>(most * S(1.4426950408889634 / kCoarse));
    const V step = load(parameter<S>(row, kStep) + column.lane);
    const S* distances = parameter<S>(row, kDistance) + column.lane;
    S *Es = column.kept(row, kE), *Evs = column.kept(row, kEv);
    V a{}, b{}, c{}, d{};
    for (int t = 0; t < column.n; ++t) {
      const V E = exp_below<S>(column.read(row.k, row.k_stride, t), power);
      const V Ev = E * column.read(row.v, row.v_stride, t);
      const V distance = load(distances + t * kWidth<S>);
      store(Es + t * kWidth<S>, E);
      store(Evs + t * kWidth<S>, Ev);
      a = a * step + Ev;
      b = b * step + E;
      c = c + distance * Ev;
      d = d + distance * E;
    }
    S* kept = keys_kept<S>(row, chunk) + column.lane;
    store(kept + kA * kWidth<S>, a);
    store(kept + kB * kWidth<S>, b);
    store(kept + kC * kWidth<S>, c);
    store(kept + kD * kWidth<S>, d);
    store(kept + kPower * kWidth<S>, power);
  });
}

/// Brings a column's planes from their chunk's power of two to the row's.
template <class C>
void align(const Row& row, const C& column, int64_t chunk) {
  using S = typename C::S;
  S* kept = keys_kept<S>(row, chunk) + kPower * kWidth<S> + column.lane;
  const Vector<S> power = load(kept), top = load(row_power<S>(row) + column.lane);
  if (__builtin_memcmp(&power, &top, sizeof(top)) == 0) return;
  const Vector<S> scale = times_pow2<S>(splat<S>(1), power - top);
  S *Es = column.kept(row, kE), *Evs = column.kept(row, kEv);
  for (int t = 0; t < column.n; ++t) {
    store(Es + t * kWidth<S>, load(Es + t * kWidth<S>) * scale);
    store(Evs + t * kWidth<S>, load(Evs + t * kWidth<S>) * scale);
  }
  store(kept, top);
}

/// Two sums that travel together over the chunks of a row. The decay over a chunk is a sum of two
/// numbers: its rounding would add up over a long row.
template <class S>
struct Traveller {
  Vector<S> x{}, y{};

  void pass(S* x_at, S* y_at, Vector<S> scale, Vector<S> decay, Vector<S> rest) {
    const Vector<S> x_own = load(x_at) * scale, y_own = load(y_at) * scale;
    store(x_at, x);
    store(y_at, y);
    x = x * decay + (x * rest + x_own);
    y = y * decay + (y * rest + y_own);
  }
};

template <class S>
inline Vector<S> decay_of(const Row& row, int64_t chunk, int lane, bool rest) {
  const bool last = chunk == chunks_of(row.tokens) - 1;
  const Parameter which = last ? (rest ? kLastRest : kLast) : (rest ? kFullRest : kFull);
  return load(parameter<S>(row, which) + lane);
}

/// Replaces every chunk's own sums by those that enter it, all at one power of two.
template <class T>
void carry(const Row& row) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const int64_t chunks = chunks_of(row.tokens);
  for (int lane = 0; lane < row.width; lane += Simd<S>::kLanes) {
    V top = load(keys_kept<S>(row, 0) + kPower * kWidth<S> + lane);
    for (int64_t j = 1; j < chunks; ++j)
      top = larger(top, load(keys_kept<S>(row, j) + kPower * kWidth<S> + lane));
    store(row_power<S>(row) + lane, top);
    const auto pass = [&](Traveller<S>& traveller, int64_t j, int first) {
      S* kept = keys_kept<S>(row, j) + lane;
      const V power = load(kept + kPower * kWidth<S>);
      traveller.pass(kept + first * kWidth<S>,
                     kept + (first + 1) * kWidth<S>,
                     times_pow2<S>(splat<S>(1), power - top),
                     decay_of<S>(row, j, lane, false),
                     decay_of<S>(row, j, lane, true));
    };
    Traveller<S> left, right;
    for (int64_t j = 0; j < chunks; ++j) pass(left, j, kA);
    for (int64_t j = chunks - 1; j >= 0; --j) pass(right, j, kC);
  }
}

template <class T>
void grad_carry(const Row& row) {
  using S = typename StateOf<T>::type;
  const int64_t chunks = chunks_of(row.tokens);
  for (int lane = 0; lane < row.width; lane += Simd<S>::kLanes) {
    const auto pass = [&](Traveller<S>& traveller, int64_t j, int first) {
      S* kept = grads_kept<S>(row, j) + lane;
      traveller.pass(kept + first * kWidth<S>,
                     kept + (first + 1) * kWidth<S>,
                     splat<S>(1),
                     decay_of<S>(row, j, lane, false),
                     decay_of<S>(row, j, lane, true));
    };
    Traveller<S> left, right;
    for (int64_t j = 0; j < chunks; ++j) pass(left, j, kP);
    for (int64_t j = chunks - 1; j >= 0; --j) pass(right, j, kPr);
  }
}

/// The sums to the right of a column's tokens.
template <class S>
struct RightSums {
  Vector<S> c[kChunk], d[kChunk];

  inline void walk(const S* Es, const S* Evs, int n, const S* entering, Vector<S> step) {
    Vector<S> sum_c = load(entering + kC * kWidth<S>), sum_d = load(entering + kD * kWidth<S>);
    for (int t = n - 1; t >= 0; --t) {
      c[t] = sum_c;
      d[t] = sum_d;
      sum_c = sum_c * step + load(Evs + t * kWidth<S>);
      sum_d = sum_d * step + load(Es + t * kWidth<S>);
    }
  }
};

template <class T>
void forward(const Row& given, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const Row row = given;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) VIREO_INLINE {
    column.template ask_ahead<1>(row, row.out[0], row.out_stride);
    align(row, column, chunk);
    const V step = load(parameter<S>(row, kStep) + column.lane);
    const V bonus = load(parameter<S>(row, kBonus) + column.lane);
    const S *Es = column.kept(row, kE), *Evs = column.kept(row, kEv);
    const S* entering = keys_kept<S>(row, chunk) + column.lane;
    RightSums<S> right;
    right.walk(Es, Evs, column.n, entering, step);
    V a = load(entering + kA * kWidth<S>), b = load(entering + kB * kWidth<S>);
    for (int t = 0; t < column.n; ++t) {
      const V E = load(Es + t * kWidth<S>), Ev = load(Evs + t * kWidth<S>);
      const V num = (a + right.c[t]) + bonus * Ev, den = (b + right.d[t]) + bonus * E;
      column.write(row.out[0], row.out_stride, t, num / den);
      a = a * step + Ev;
      b = b * step + E;
    }
  });
}

template <class T>
void grad_summarise(const Row& given, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const Row row = given;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) VIREO_INLINE {
    column.ask_ahead(row, row.gy, row.gy_stride);
    align(row, column, chunk);
    const V step = load(parameter<S>(row, kStep) + column.lane);
    const V bonus = load(parameter<S>(row, kBonus) + column.lane);
    const S* distances = parameter<S>(row, kDistance) + column.lane;
    const S *Es = column.kept(row, kE), *Evs = column.kept(row, kEv);
    S *gs = column.kept(row, kG), *gys = column.kept(row, kGy);
    const S* entering = keys_kept<S>(row, chunk) + column.lane;
    RightSums<S> right;
    right.walk(Es, Evs, column.n, entering, step);
    V a = load(entering + kA * kWidth<S>), b = load(entering + kB * kWidth<S>);
    V P{}, Q{}, Pr{}, Qr{};
    for (int t = 0; t < column.n; ++t) {
      const V E = load(Es + t * kWidth<S>), Ev = load(Evs + t * kWidth<S>);
      const V distance = load(distances + t * kWidth<S>);
      const V inverse = S(1) / ((b + right.d[t]) + bonus * E);
      const V y = ((a + right.c[t]) + bonus * Ev) * inverse;
      const V g = column.read(row.gy, row.gy_stride, t) * inverse, gy = g * y;
      store(gs + t * kWidth<S>, g);
      store(gys + t * kWidth<S>, gy);
      P = P * step + g;
      Q = Q * step + gy;
      Pr = Pr + distance * g;
      Qr = Qr + distance * gy;
      a = a * step + Ev;
      b = b * step + E;
    }
    S* grads = grads_kept<S>(row, chunk) + column.lane;
    store(grads + kP * kWidth<S>, P);
    store(grads + kQ * kWidth<S>, Q);
    store(grads + kPr * kWidth<S>, Pr);
    store(grads + kQr * kWidth<S>, Qr);
  });
}

template <class T>
void backward(const Row& given, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  const Row row = given;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) VIREO_INLINE {
    column.template ask_ahead<1>(row, row.out[0], row.out_stride);
    column.template ask_ahead<1>(row, row.out[1], row.out_stride);
    const V step = load(parameter<S>(row, kStep) + column.lane);
    const V bonus = load(parameter<S>(row, kBonus) + column.lane);
    const S *Es = column.kept(row, kE), *Evs = column.kept(row, kEv);
    const S *gs = column.kept(row, kG), *gys = column.kept(row, kGy);
    const S* entering = keys_kept<S>(row, chunk) + column.lane;
    S* grads = grads_kept<S>(row, chunk) + column.lane;
    RightSums<S> right;
    right.walk(Es, Evs, column.n, entering, step);
    V a = load(entering + kA * kWidth<S>), b = load(entering + kB * kWidth<S>);
    V P = load(grads + kP * kWidth<S>), Q = load(grads + kQ * kWidth<S>);
    // From the left: what needs the gradients' left sums.
    V as[kChunk], bs[kChunk], sums[kChunk], sums_y[kChunk];
    V gw{}, gu{};
    for (int t = 0; t < column.n; ++t) {
      const V E = load(Es + t * kWidth<S>), Ev = load(Evs + t * kWidth<S>);
      const V g = load(gs + t * kWidth<S>), gy = load(gys + t * kWidth<S>);
      gw += P * right.c[t] - Q * right.d[t];
      gu += g * Ev - gy * E;
      as[t] = a;
      bs[t] = b;
      sums[t] = P + bonus * g;
      sums_y[t] = Q + bonus * gy;
      P = P * step + g;
      Q = Q * step + gy;
      a = a * step + Ev;
      b = b * step + E;
    }
    // From the right: their right sums, and the results.
    V Pr = load(grads + kPr * kWidth<S>), Qr = load(grads + kQr * kWidth<S>);
    for (int t = column.n - 1; t >= 0; --t) {
      const V E = load(Es + t * kWidth<S>), Ev = load(Evs + t * kWidth<S>);
      const V sum = sums[t] + Pr, sum_y = sums_y[t] + Qr;
      column.write(row.out[0], row.out_stride, t, Ev * sum - E * sum_y);
      column.write(row.out[1], row.out_stride, t, E * sum);
      gw += Pr * as[t] - Qr * bs[t];
      Pr = Pr * step + load(gs + t * kWidth<S>);
      Qr = Qr * step + load(gys + t * kWidth<S>);
    }
    store(grads + kGw * kWidth<S>, -(step * gw));
    store(grads + kGu * kWidth<S>, bonus * gu);
  });
}

/// In float64 and always in the same order.
template <class T>
void reduce(const Row& row) {
  using S = typename StateOf<T>::type;
  for (int lane = 0; lane < row.width; ++lane) row.shares[lane] = row.shares_u[lane] = 0;
  for (int64_t j = 0; j < chunks_of(row.tokens); ++j) {
    const S* grads = grads_kept<S>(row, j);
    for (int lane = 0; lane < row.width; ++lane) {
      row.shares[lane] += static_cast<double>(grads[kGw * kWidth<S> + lane]);
      row.shares_u[lane] += static_cast<double>(grads[kGu * kWidth<S> + lane]);
    }
  }
}

template <class T>
constexpr Functions functions() {
  return {derive<typename StateOf<T>::type>,
          summarise<T>,
          carry<T>,
          forward<T>,
          grad_summarise<T>,
          grad_carry<T>,
          backward<T>,
          reduce<T>};
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{
      functions<float>(), functions<double>(), functions<Bf16>(), functions<Half>()};
  return table;
}

}  // namespace vireo::wkv_rows
