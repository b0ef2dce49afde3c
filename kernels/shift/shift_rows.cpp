#include "kernels/shift/shift_rows.h"

#include "kernels/cpu_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
namespace vireo::shift_rows {
namespace {

/// The token that a segment reads at row y, column x; -1 outside the image.
inline int64_t source(const Job& job, int64_t y, int64_t x, int64_t dy, int64_t dx) {
  const int64_t sy = y + dy, sx = x + dx;
  return sy < 0 || sy >= job.height || sx < 0 || sx >= job.width ? -1 : sy * job.width + sx;
}

/// Calls body(channel, load, store) for every vector of the channels [begin, end): load(from) and
/// store(to, x) reach those that are left.
template <class S, class Body>
inline void for_vectors(int64_t begin, int64_t end, const Body& body) {
  constexpr int kLanes = Simd<S>::kLanes;
  int64_t c = begin;
  for (; c + kLanes <= end; c += kLanes)
    body(
        c,
        [](const auto* from) -> Vector<S> { return load(from); },
        [](auto* to, Vector<S> x) { store(to, x); });
  const int count = static_cast<int>(end - c);
  if (count > 0)
    body(
        c,
        [count](const auto* from) { return load_some<S>(from, count); },
        [count](auto* to, Vector<S> x) { store_some<S>(to, x, count); });
}

template <class T, int kMixes>
void forward(const Job& job, const void* x_, void* const* out_, int64_t begin, int64_t end) {
  using S = typename StateOf<T>::type;
  const T* __restrict x = static_cast<const T*>(x_);
  const S* __restrict mix = static_cast<const S*>(job.mix);
  const int64_t channels = job.channels, image = job.height * job.width;
  for (int64_t t = begin; t < end; ++t) {
    const T* own = x + t * channels;
    T* out[kMixes];
    for (int m = 0; m < kMixes; ++m) out[m] = static_cast<T*>(out_[m]) + t * channels;
    for (int64_t i = 0; i < job.segment_count; ++i) {
      const Segment& segment = job.segments[i];
      const int64_t from =
          t < image ? source(job, t / job.width, t % job.width, segment.dy, segment.dx) : t;
      const T* shifted = x + (from < 0 ? t : from) * channels;
      for_vectors<S>(
          segment.begin, segment.end, [&](int64_t c, const auto& load_of, const auto& store_to) {
            const Vector<S> a = load_of(own + c);
            const Vector<S> s = from < 0 ? Vector<S>{} : load_of(shifted + c);
            for (int m = 0; m < kMixes; ++m) {
              const Vector<S> w = load_of(mix + m * channels + c);
              store_to(out[m] + c, a * w + s * (S(1) - w));
            }
          });
    }
  }
}

template <class T, int kMixes>
void backward(const Job& job,
              const void* x_,
              const void* const* gy_,
              void* gx_,
              void* sums_,
              int64_t begin,
              int64_t end) {
  using S = typename StateOf<T>::type;
  const T* __restrict x = static_cast<const T*>(x_);
  const S* __restrict mix = static_cast<const S*>(job.mix);
  S* __restrict sums = static_cast<S*>(sums_);
  const int64_t channels = job.channels, image = job.height * job.width;
  for (int64_t t = begin; t < end; ++t) {
    const T* own = x + t * channels;
    T* __restrict gx = static_cast<T*>(gx_) + t * channels;
    const int64_t row = t / job.width, column = t % job.width;
    for (int64_t i = 0; i < job.segment_count; ++i) {
      const Segment& segment = job.segments[i];
      // This token reads `from`; the token `to` reads this one.
      const int64_t from = t < image ? source(job, row, column, segment.dy, segment.dx) : t;
      const int64_t to = t < image ? source(job, row, column, -segment.dy, -segment.dx) : t;
      const T* shifted = x + (from < 0 ? t : from) * channels;
      const T* gy_own[kMixes];
      const T* gy_to[kMixes];
      for (int m = 0; m < kMixes; ++m) {
        gy_own[m] = static_cast<const T*>(gy_[m]) + t * channels;
        gy_to[m] = static_cast<const T*>(gy_[m]) + (to < 0 ? t : to) * channels;
      }
      // Multiplied by zero instead of branching: the loop stays one loop.
      const S has_from = from < 0 ? S(0) : S(1), has_to = to < 0 ? S(0) : S(1);
      for_vectors<S>(
          segment.begin, segment.end, [&](int64_t c, const auto& load_of, const auto& store_to) {
            const Vector<S> difference = load_of(own + c) - has_from * load_of(shifted + c);
            Vector<S> total{};
            for (int m = 0; m < kMixes; ++m) {
              const Vector<S> w = load_of(mix + m * channels + c), g = load_of(gy_own[m] + c);
              total += g * w + has_to * load_of(gy_to[m] + c) * (S(1) - w);
              S* sum = sums + m * channels + c;
              store_to(sum, load_of(sum) + g * difference);
            }
            store_to(gx + c, total);
          });
    }
  }
}

template <class T>
void forward_any(const Job& job, const void* x, void* const* out, int64_t begin, int64_t end) {
  switch (job.mixes) {
    case 1:
      return forward<T, 1>(job, x, out, begin, end);
    case 2:
      return forward<T, 2>(job, x, out, begin, end);
    case 3:
      return forward<T, 3>(job, x, out, begin, end);
    case 4:
      return forward<T, 4>(job, x, out, begin, end);
    default:
      return forward<T, 5>(job, x, out, begin, end);
  }
}

template <class T>
void backward_any(const Job& job,
                  const void* x,
                  const void* const* gy,
                  void* gx,
                  void* sums,
                  int64_t begin,
                  int64_t end) {
  switch (job.mixes) {
    case 1:
      return backward<T, 1>(job, x, gy, gx, sums, begin, end);
    case 2:
      return backward<T, 2>(job, x, gy, gx, sums, begin, end);
    case 3:
      return backward<T, 3>(job, x, gy, gx, sums, begin, end);
    case 4:
      return backward<T, 4>(job, x, gy, gx, sums, begin, end);
    default:
      return backward<T, 5>(job, x, gy, gx, sums, begin, end);
  }
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{{forward_any<float>, backward_any<float>},
                               {forward_any<double>, backward_any<double>},
                               {forward_any<Bf16>, backward_any<Bf16>},
                               {forward_any<Half>, backward_any<Half>}};
  return table;
}

}  // namespace vireo::shift_rows
