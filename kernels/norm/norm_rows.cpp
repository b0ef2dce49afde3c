#include "kernels/norm/norm_rows.h"

#include "kernels/cpu_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
//
// A mean is taken first and the squares of what differs from it after, so that nothing cancels.
namespace vireo::norm_rows {
namespace {

/// One vector of neighbouring numbers: all lanes, or the first `count` and zeros.
template <class S, bool kWhole>
struct Lanes {
  using V = Vector<S>;
  int64_t at;
  int count;

  template <class T>
  V get(const T* from) const {
    if constexpr (kWhole) return load(from + at);
    return load_some<S>(from + at, count);
  }
  template <class T>
  void put(T* to, V x) const {
    if constexpr (kWhole)
      store(to + at, x);
    else
      store_some<S>(to + at, x, count);
  }
  /// x, with zeros in the lanes that are not there.
  V only(V x) const {
    if constexpr (!kWhole)
      for (int i = count; i < Simd<S>::kLanes; ++i) x[i] = 0;
    return x;
  }
};

template <class S, class Body>
inline void for_each_vector(int64_t count, const Body& body) {
  constexpr int kLanes = Simd<S>::kLanes;
  int64_t at = 0;
  for (; at + kLanes <= count; at += kLanes) body(Lanes<S, true>{at, kLanes});
  if (at < count) body(Lanes<S, false>{at, static_cast<int>(count - at)});
}

template <class S>
inline S total_of(Vector<S> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4)
    return _mm512_reduce_add_ps(x);
  else
    return _mm512_reduce_add_pd(x);
#else
  S sum = x[0];
  for (int i = 1; i < Simd<S>::kLanes; ++i) sum += x[i];
  return sum;
#endif
}

/// sigmoid(r) and sigmoid(-r), neither of them as a difference; 1e-38 (1e-304) is as far as they
/// go.
template <class S>
struct Sigmoid {
  Vector<S> open, shut;

  explicit Sigmoid(Vector<S> r) {
    constexpr S kLowest = sizeof(S) == 4 ? S(-87) : S(-700);
    const Vector<S> e = exp_below<S>(-larger(splat<S>(kLowest), r), Vector<S>{});
    open = reciprocal<S>(e + S(1));
    shut = e * open;
  }
};

/// What a row is normalised by: x scale - shift.
template <class S>
struct Moments {
  S scale, shift;
};

/// The sum of value(lanes) over all vectors: four sums, or every addition would wait for the last.
template <class S, class Value>
inline S sum_over(int64_t count, const Value& value) {
  constexpr int kLanes = Simd<S>::kLanes, kSums = 4;
  Vector<S> sums[kSums] = {};
  int64_t at = 0;
  for (; at + kSums * kLanes <= count; at += kSums * kLanes)
#pragma GCC unroll 4
    for (int i = 0; i < kSums; ++i) sums[i] += value(Lanes<S, true>{at + i * kLanes, kLanes});
  for (; at + kLanes <= count; at += kLanes) sums[0] += value(Lanes<S, true>{at, kLanes});
  if (at < count) sums[1] += value(Lanes<S, false>{at, static_cast<int>(count - at)});
  return total_of<S>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T, class S>
inline Moments<S> moments_of(const T* x, int64_t channels, double eps) {
  const auto number = static_cast<S>(channels);
  const S mean = sum_over<S>(channels, [&](const auto& lanes) { return lanes.get(x); }) / number;
  const S squares = sum_over<S>(channels, [&](const auto& lanes) {
    const Vector<S> away = lanes.only(lanes.get(x) - mean);
    return away * away;
  });
  const S variance = squares / number;
  const S scale = S(1) / static_cast<S>(__builtin_sqrt(static_cast<double>(variance) + eps));
  return {scale, mean * scale};
}

template <class T, bool kNorm, bool kGate>
void forward(const Job& job, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  const S *weight = static_cast<const S*>(job.weight), *bias = static_cast<const S*>(job.bias);
  // The next row's are found before a row is written, so that nothing waits for them.
  Moments<S> next{1, 0};
  if constexpr (kNorm)
    next = moments_of<T, S>(
        static_cast<const T*>(job.y) + begin * job.channels, job.channels, job.eps);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * job.channels;
    const T *y = static_cast<const T*>(job.y) + first, *r = static_cast<const T*>(job.r) + first;
    T* out = static_cast<T*>(job.out) + first;
    const Moments<S> moments = next;
    if constexpr (kNorm)
      if (row + 1 < end) next = moments_of<T, S>(y + job.channels, job.channels, job.eps);
    for_each_vector<S>(job.channels, [&](const auto& lanes) {
      Vector<S> x = lanes.get(y);
      if constexpr (kNorm)
        x = (x * moments.scale - moments.shift) * lanes.get(weight) + lanes.get(bias);
      if constexpr (kGate) {
        const Sigmoid<S> s(lanes.get(r));
        x = x * s.open;
      }
      lanes.put(out, x);
    });
  }
}

template <class T>
void forward_any(const Job& job, int64_t begin, int64_t end) {
  if (job.weight == nullptr)
    forward<T, false, true>(job, begin, end);
  else if (job.r == nullptr)
    forward<T, true, false>(job, begin, end);
  else
    forward<T, true, true>(job, begin, end);
}

template <class T>
void gate_backward(const Job& job, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  const int64_t first = begin * job.channels, count = (end - begin) * job.channels;
  const T *y = static_cast<const T*>(job.y) + first, *r = static_cast<const T*>(job.r) + first;
  const T* gout = static_cast<const T*>(job.gout) + first;
  T *gy = static_cast<T*>(job.gy) + first, *gr = static_cast<T*>(job.gr) + first;
  for_each_vector<S>(count, [&](const auto& lanes) {
    const Sigmoid<S> s(lanes.get(r));
    const Vector<S> through = lanes.get(gout) * s.open;
    lanes.put(gr, through * lanes.get(y) * s.shut);
    lanes.put(gy, through);
  });
}

template <class T, bool kGate>
void norm_backward(const Job& job, int64_t begin, int64_t end, void* sums_, void* scratch) {
  using S = typename StateOf<T>::type;
  const S *weight = static_cast<const S*>(job.weight), *bias = static_cast<const S*>(job.bias);
  S *gweight = static_cast<S*>(sums_), *gbias = gweight + job.channels;
  S* weighted = static_cast<S*>(scratch);
  Moments<S> next =
      moments_of<T, S>(static_cast<const T*>(job.y) + begin * job.channels, job.channels, job.eps);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * job.channels;
    const T *y = static_cast<const T*>(job.y) + first, *r = static_cast<const T*>(job.r) + first;
    const T* gout = static_cast<const T*>(job.gout) + first;
    T *gy = static_cast<T*>(job.gy) + first, *gr = static_cast<T*>(job.gr) + first;
    const Moments<S> moments = next;
    Vector<S> sum{}, sum_x{};
    for_each_vector<S>(job.channels, [&](const auto& lanes) {
      const Vector<S> x = lanes.get(y) * moments.scale - moments.shift, w = lanes.get(weight);
      Vector<S> g = lanes.get(gout);
      if constexpr (kGate) {
        const Sigmoid<S> s(lanes.get(r));
        g *= s.open;
        lanes.put(gr, g * (x * w + lanes.get(bias)) * s.shut);
      }
      lanes.put(gweight, lanes.get(gweight) + g * x);
      lanes.put(gbias, lanes.get(gbias) + g);
      g *= w;
      lanes.put(weighted, g);
      sum += g;
      sum_x += g * x;
    });
    if (row + 1 < end) next = moments_of<T, S>(y + job.channels, job.channels, job.eps);
    const S share = S(1) / static_cast<S>(job.channels);
    const S mean = total_of<S>(sum) * share, mean_x = total_of<S>(sum_x) * share;
    for_each_vector<S>(job.channels, [&](const auto& lanes) {
      const Vector<S> x = lanes.get(y) * moments.scale - moments.shift;
      lanes.put(gy, (lanes.get(weighted) - mean - x * mean_x) * moments.scale);
    });
  }
}

template <class T>
void backward_any(const Job& job, int64_t begin, int64_t end, void* sums, void* scratch) {
  if (job.weight == nullptr)
    gate_backward<T>(job, begin, end);
  else if (job.r == nullptr)
    norm_backward<T, false>(job, begin, end, sums, scratch);
  else
    norm_backward<T, true>(job, begin, end, sums, scratch);
}

// ---- Maps: a tile's pixels lie side by side, channel after channel ----

template <class S>
constexpr int kTileVectors = kTile / Simd<S>::kLanes;

/// The vectors of pixels in a tile's scratch, of which a small tile uses the first ones.
template <class S, bool kFull>
struct Tile {
  using V = Vector<S>;
  static constexpr int kVectors = kTileVectors<S>;
  int64_t channels;
  int64_t count;

  /// Calls body(i, whole or partial lanes) for the vectors that hold pixels.
  template <class Body>
  void each(const Body& body) const {
    constexpr int kLanes = Simd<S>::kLanes;
    if constexpr (kFull) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) body(i, Lanes<S, true>{i * kLanes, kLanes});
    } else {
      int i = 0;
      for_each_vector<S>(count, [&](const auto& lanes) { body(i++, lanes); });
    }
  }
};

template <class S>
struct TileMoments {
  Vector<S> scale[kTileVectors<S>], shift[kTileVectors<S>];
};

/// Copies a tile to `x`, S[channels][kTile].
template <class T, class S, bool kFull>
inline TileMoments<S> read_tile(const Tile<S, kFull>& tile, const Maps& maps, const T* from, S* x) {
  using V = Vector<S>;
  constexpr int kLanes = Simd<S>::kLanes, kVectors = kTileVectors<S>;
  V mean[kVectors] = {}, squares[kVectors] = {};
  for (int64_t c = 0; c < tile.channels; ++c)
    tile.each([&](int i, const auto& lanes) {
      const V value = lanes.get(from + c * maps.pixels);
      store(x + c * kTile + i * kLanes, value);
      mean[i] += value;
    });
  const S share = S(1) / static_cast<S>(tile.channels);
  for (int i = 0; i < kVectors; ++i) mean[i] *= share;
  for (int64_t c = 0; c < tile.channels; ++c)
    tile.each([&](int i, const auto&) {
      const V away = load(x + c * kTile + i * kLanes) - mean[i];
      squares[i] += away * away;
    });
  TileMoments<S> moments;
  for (int i = 0; i < kVectors; ++i) {
    for (int l = 0; l < kLanes; ++l)
      moments.scale[i][l] =
          S(1) /
          static_cast<S>(__builtin_sqrt(static_cast<double>(squares[i][l] * share) + maps.eps));
    moments.shift[i] = mean[i] * moments.scale[i];
  }
  return moments;
}

template <class T, class Part>
void map_forward(const Maps& maps, const Part& tile, int64_t image, int64_t first, void* scratch) {
  using S = typename StateOf<T>::type;
  constexpr int kLanes = Simd<S>::kLanes;
  const int64_t offset = image * maps.channels * maps.pixels + first;
  const S *weight = static_cast<const S*>(maps.weight), *bias = static_cast<const S*>(maps.bias);
  S* x = static_cast<S*>(scratch);
  const auto moments = read_tile<T>(tile, maps, static_cast<const T*>(maps.x) + offset, x);
  for (int64_t c = 0; c < maps.channels; ++c) {
    T* out = static_cast<T*>(maps.out) + offset + c * maps.pixels;
    tile.each([&](int i, const auto& lanes) {
      const Vector<S> value = load(x + c * kTile + i * kLanes);
      lanes.put(out, (value * moments.scale[i] - moments.shift[i]) * weight[c] + bias[c]);
    });
  }
}

template <class T, class Part>
void map_backward(
    const Maps& maps, const Part& tile, int64_t image, int64_t first, void* sums_, void* scratch) {
  using S = typename StateOf<T>::type;
  using V = Vector<S>;
  constexpr int kLanes = Simd<S>::kLanes, kVectors = kTileVectors<S>;
  const int64_t offset = image * maps.channels * maps.pixels + first;
  const S* weight = static_cast<const S*>(maps.weight);
  S *gweight = static_cast<S*>(sums_), *gbias = gweight + maps.channels;
  S *x = static_cast<S*>(scratch), *weighted = x + maps.channels * kTile;
  const auto moments = read_tile<T>(tile, maps, static_cast<const T*>(maps.x) + offset, x);
  V mean[kVectors] = {}, mean_x[kVectors] = {};
  for (int64_t c = 0; c < maps.channels; ++c) {
    const T* gout = static_cast<const T*>(maps.gout) + offset + c * maps.pixels;
    V sum{}, sum_x{};
    tile.each([&](int i, const auto& lanes) {
      S* at = x + c * kTile + i * kLanes;
      const V value = load(at) * moments.scale[i] - moments.shift[i];
      const V g = lanes.get(gout), own = g * weight[c];
      store(at, value);
      store(weighted + (at - x), own);
      sum += g;
      sum_x += g * value;
      mean[i] += own;
      mean_x[i] += own * value;
    });
    gweight[c] += total_of<S>(sum_x);
    gbias[c] += total_of<S>(sum);
  }
  const S share = S(1) / static_cast<S>(maps.channels);
  for (int i = 0; i < kVectors; ++i) {
    mean[i] *= share;
    mean_x[i] *= share;
  }
  for (int64_t c = 0; c < maps.channels; ++c) {
    T* gx = static_cast<T*>(maps.gx) + offset + c * maps.pixels;
    tile.each([&](int i, const auto& lanes) {
      const int64_t at = c * kTile + i * kLanes;
      lanes.put(gx, (load(weighted + at) - mean[i] - load(x + at) * mean_x[i]) * moments.scale[i]);
    });
  }
}

/// Calls body(tile) for the pixels from `first` on.
template <class T, class Body>
inline void with_tile(const Maps& maps, int64_t first, const Body& body) {
  using S = typename StateOf<T>::type;
  const int64_t left = maps.pixels - first;
  if (left >= kTile)
    body(Tile<S, true>{maps.channels, kTile});
  else
    body(Tile<S, false>{maps.channels, left});
}

template <class T>
void map_forward_any(const Maps& maps, int64_t image, int64_t first, void* scratch) {
  with_tile<T>(
      maps, first, [&](const auto& tile) { map_forward<T>(maps, tile, image, first, scratch); });
}

template <class T>
void map_backward_any(const Maps& maps, int64_t image, int64_t first, void* sums, void* scratch) {
  with_tile<T>(maps, first, [&](const auto& tile) {
    map_backward<T>(maps, tile, image, first, sums, scratch);
  });
}

template <class T>
constexpr Functions functions() {
  return {forward_any<T>, backward_any<T>, map_forward_any<T>, map_backward_any<T>};
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{
      functions<float>(), functions<double>(), functions<Bf16>(), functions<Half>()};
  return table;
}

}  // namespace vireo::norm_rows
