#include "kernels/bi_wkv/bi_wkv_rows.h"

#include "kernels/cpu_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
//
// Names: E = e^k and Ev = E v at the row's power of two; a, b = sums of Ev, E over the tokens to
// the left; c, d to the right; g = gy / den; P, Q = sums of g, g y to the left; Pr, Qr to the
// right.
namespace vireo::wkv_rows {
namespace {

template <class T>
struct StateOf {
  using type = float;
};
template <>
struct StateOf<double> {
  using type = double;
};

template <class S>
const S* parameter(const Row& row, Parameter which) {
  return static_cast<const S*>(row.parameters) + which * kWidth<S>;
}

/// Scratch: the row's power of two, then per chunk the keys' numbers, then the gradients'.
template <class S>
S* row_power(const Row& row) {
  return static_cast<S*>(row.scratch);
}
template <class S>
S* keys_kept(const Row& row, int64_t chunk) {
  return row_power<S>(row) + kWidth<S> * (1 + chunk * kKeysKept);
}
template <class S>
S* grads_kept(const Row& row, int64_t chunk) {
  return keys_kept<S>(row, chunks_of(row.tokens)) + kWidth<S> * (chunk * kGradKept);
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
void summarise(const Row& row, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) {
    V most = column.read(row.k, row.k_stride, 0);
    for (int t = 1; t < column.n; ++t) most = larger(most, column.read(row.k, row.k_stride, t));
    const V power = nearest<S>(most * S(1.4426950408889634));
    const V step = load(parameter<S>(row, kStep) + column.lane);
    V a{}, b{}, c{}, d{}, distance = splat<S>(1);
    for (int t = 0; t < column.n; ++t) {
      const V E = exp_below<S>(column.read(row.k, row.k_stride, t), power);
      const V Ev = E * column.read(row.v, row.v_stride, t);
      a = a * step + Ev;
      b = b * step + E;
      c = c + distance * Ev;
      d = d + distance * E;
      distance = distance * step;
    }
    S* kept = keys_kept<S>(row, chunk) + column.lane;
    store(kept + kA * kWidth<S>, a);
    store(kept + kB * kWidth<S>, b);
    store(kept + kC * kWidth<S>, c);
    store(kept + kD * kWidth<S>, d);
    store(kept + kPower * kWidth<S>, power);
  });
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

/// The tokens of one column: what the walk from the right leaves for the one from the left.
template <class S>
struct Walk {
  using V = Vector<S>;
  V E[kChunk], Ev[kChunk], c[kChunk], d[kChunk];

  template <class C>
  void from_right(const Row& row, const C& column, int64_t chunk, V step) {
    const V power = load(row_power<S>(row) + column.lane);
    const S* kept = keys_kept<S>(row, chunk) + column.lane;
    V sum_c = load(kept + kC * kWidth<S>), sum_d = load(kept + kD * kWidth<S>);
    for (int t = column.n - 1; t >= 0; --t) {
      E[t] = exp_below<S>(column.read(row.k, row.k_stride, t), power);
      Ev[t] = E[t] * column.read(row.v, row.v_stride, t);
      c[t] = sum_c;
      d[t] = sum_d;
      sum_c = sum_c * step + Ev[t];
      sum_d = sum_d * step + E[t];
    }
  }
};

template <class T>
void forward(const Row& row, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) {
    const V step = load(parameter<S>(row, kStep) + column.lane);
    const V bonus = load(parameter<S>(row, kBonus) + column.lane);
    Walk<S> walk;
    walk.from_right(row, column, chunk, step);
    const S* kept = keys_kept<S>(row, chunk) + column.lane;
    V a = load(kept + kA * kWidth<S>), b = load(kept + kB * kWidth<S>);
    for (int t = 0; t < column.n; ++t) {
      const V num = (a + walk.c[t]) + bonus * walk.Ev[t];
      const V den = (b + walk.d[t]) + bonus * walk.E[t];
      column.write(row.out[0], row.out_stride, t, num * reciprocal<S>(den));
      a = a * step + walk.Ev[t];
      b = b * step + walk.E[t];
    }
  });
}

template <class T>
void grad_summarise(const Row& row, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) {
    const V step = load(parameter<S>(row, kStep) + column.lane);
    const V bonus = load(parameter<S>(row, kBonus) + column.lane);
    Walk<S> walk;
    walk.from_right(row, column, chunk, step);
    const S* kept = keys_kept<S>(row, chunk) + column.lane;
    V a = load(kept + kA * kWidth<S>), b = load(kept + kB * kWidth<S>);
    V P{}, Q{}, Pr{}, Qr{}, distance = splat<S>(1);
    for (int t = 0; t < column.n; ++t) {
      const V inverse = reciprocal<S>((b + walk.d[t]) + bonus * walk.E[t]);
      const V y = ((a + walk.c[t]) + bonus * walk.Ev[t]) * inverse;
      const V g = column.read(row.gy, row.gy_stride, t) * inverse;
      const V gy = g * y;
      P = P * step + g;
      Q = Q * step + gy;
      Pr = Pr + distance * g;
      Qr = Qr + distance * gy;
      distance = distance * step;
      a = a * step + walk.Ev[t];
      b = b * step + walk.E[t];
    }
    S* grads = grads_kept<S>(row, chunk) + column.lane;
    store(grads + kP * kWidth<S>, P);
    store(grads + kQ * kWidth<S>, Q);
    store(grads + kPr * kWidth<S>, Pr);
    store(grads + kQr * kWidth<S>, Qr);
  });
}

template <class T>
void backward(const Row& row, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  for_each_column<T>(row, begin, end, [&](const auto& column, int64_t chunk) {
    const V step = load(parameter<S>(row, kStep) + column.lane);
    const V bonus = load(parameter<S>(row, kBonus) + column.lane);
    Walk<S> walk;
    walk.from_right(row, column, chunk, step);
    const S* kept = keys_kept<S>(row, chunk) + column.lane;
    S* grads = grads_kept<S>(row, chunk) + column.lane;
    V a = load(kept + kA * kWidth<S>), b = load(kept + kB * kWidth<S>);
    V P = load(grads + kP * kWidth<S>), Q = load(grads + kQ * kWidth<S>);
    // From the left: y, g and all that needs the gradients' left sums.
    V as[kChunk], bs[kChunk], gs[kChunk], gys[kChunk], sums[kChunk], sums_y[kChunk];
    V gw{}, gu{};
    for (int t = 0; t < column.n; ++t) {
      const V inverse = reciprocal<S>((b + walk.d[t]) + bonus * walk.E[t]);
      const V y = ((a + walk.c[t]) + bonus * walk.Ev[t]) * inverse;
      const V g = column.read(row.gy, row.gy_stride, t) * inverse;
      const V gy = g * y;
      gw += P * walk.c[t] - Q * walk.d[t];
      gu += g * walk.Ev[t] - gy * walk.E[t];
      as[t] = a;
      bs[t] = b;
      gs[t] = g;
      gys[t] = gy;
      sums[t] = P + bonus * g;
      sums_y[t] = Q + bonus * gy;
      P = P * step + g;
      Q = Q * step + gy;
      a = a * step + walk.Ev[t];
      b = b * step + walk.E[t];
    }
    // From the right: their right sums, and the results.
    V Pr = load(grads + kPr * kWidth<S>), Qr = load(grads + kQr * kWidth<S>);
    for (int t = column.n - 1; t >= 0; --t) {
      const V sum = sums[t] + Pr, sum_y = sums_y[t] + Qr;
      column.write(row.out[0], row.out_stride, t, walk.Ev[t] * sum - walk.E[t] * sum_y);
      column.write(row.out[1], row.out_stride, t, walk.E[t] * sum);
      gw += Pr * as[t] - Qr * bs[t];
      Pr = Pr * step + gs[t];
      Qr = Qr * step + gys[t];
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
  return {
      summarise<T>, carry<T>, forward<T>, grad_summarise<T>, grad_carry<T>, backward<T>, reduce<T>};
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{
      functions<float>(), functions<double>(), functions<Bf16>(), functions<Half>()};
  return table;
}

}  // namespace vireo::wkv_rows
