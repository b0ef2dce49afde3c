#include "kernels/packed/norm_rows.h"

#include "kernels/packed/finish_simd.h"

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
namespace vireo::norm_of_rows {
namespace {

using V = Vector<float>;

constexpr int64_t kLanes = Simd<float>::kLanes;

/// Calls body(channel, count) for every vector of channels; count < kLanes in the last alone.
template <class Body>
inline void for_vectors(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) body(c, static_cast<int>(kLanes));
  if (c < channels) body(c, static_cast<int>(channels - c));
}

template <class T>
inline V take(const T* from, int count) {
  return count == kLanes ? load(from) : load_first(from, count);
}

inline float sum_of(V x) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps(x);
#else
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
#endif
}

template <class T>
void run_as(const Job& job, int64_t rows) {
  const int64_t channels = job.channels;
  const auto row_of = [](const linear_rows::Rows& operand, int64_t row) {
    return operand.data ? static_cast<T*>(operand.data) + row * operand.stride : nullptr;
  };
  for (int64_t row = 0; row < rows; ++row) {
    const T *x = row_of(job.x, row), *gate = row_of(job.gate, row), *added = row_of(job.added, row);
    T* y = row_of(job.y, row);
    float mean = 0, scale = 1;
    if (job.weight) {
      V sum = {};
      for_vectors(channels, [&](int64_t c, int count) { sum = sum + take(x + c, count); });
      mean = sum_of(sum) / static_cast<float>(channels);
      V squares = {};
      for_vectors(channels, [&](int64_t c, int count) {
        if (count == kLanes) {
          const V d = load(x + c) - mean;
          squares = squares + d * d;
        } else {
          for (int i = 0; i < count; ++i) {
            const float d = load_as_float(x[c + i]) - mean;
            squares[0] += d * d;
          }
        }
      });
      scale = 1 / __builtin_sqrtf(sum_of(squares) / static_cast<float>(channels) + job.eps);
    }
    for_vectors(channels, [&](int64_t c, int count) {
      V value = take(x + c, count);
      if (job.weight)
        value = (value - mean) * scale * take(job.weight + c, count) + take(job.bias + c, count);
      if (gate) value = value * take(gate + c, count);
      if (added) value = value + take(added + c, count);
      if (count == kLanes)
        store(y + c, value);
      else
        store_first(y + c, value, count);
    });
  }
}

void run(const Job& job, int64_t rows) {
  if (job.x.bf16) return run_as<Bf16>(job, rows);
  run_as<float>(job, rows);
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{run};
  return table;
}

}  // namespace vireo::norm_of_rows
