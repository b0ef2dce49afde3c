#include "kernels/packed/linear_rows.h"

#include "kernels/packed/finish_simd.h"
#if defined(VIREO_AMX)
#include "kernels/packed/amx.h"
#endif

// Compiled once per instruction set, VIREO_ISA being the function that returns its table.
//
// Outputs are cut into panels of up to kVectors vectors, whose weights lie side by side for one
// input after the other. A tile is a panel's outputs for a few rows, its sums held in registers.
namespace vireo::linear_rows {
namespace {

using V = Vector<float>;

constexpr int kLanes = Simd<float>::kLanes;
#if defined(__AVX512F__) || defined(VIREO_AMX)
constexpr int kVectors = 3;
constexpr int kRowsOf[] = {0, 16, 12, 8};  // by vectors: up to 24 sums in 32 registers
#elif defined(__AVX2__)
constexpr int kVectors = 2;
constexpr int kRowsOf[] = {0, 8, 6};
#else
constexpr int kVectors = 2;
constexpr int kRowsOf[] = {0, 4, 4};
#endif
constexpr int kMostSums = 24;
// Rows that meet all panels while they lie in the second-level cache.
constexpr int64_t kRowBlock = 128;

inline int64_t vectors_of(int64_t outer) {
  return (outer + kLanes - 1) / kLanes;
}
inline int64_t panels_of(int64_t vectors) {
  return (vectors + kVectors - 1) / kVectors;
}
/// Where panel `p` begins, in vectors.
inline int64_t panel_start(int64_t vectors, int64_t p) {
  return p * vectors / panels_of(vectors);
}

#if defined(VIREO_AMX)
bool multiplies_pairs() {
  return true;
}
/// Inputs of a panel, with those of weight zero that fill it up.
inline int64_t padded(int64_t inner, Form form) {
  return form == Form::kFloat ? inner : amx::padded_inputs(inner);
}
/// Which of them lies at `position`; -1: none.
inline int64_t input_at(int64_t position, int64_t inner, Form form) {
  return form == Form::kFloat ? position : amx::input_at(position, inner);
}
#else
bool multiplies_pairs() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}
inline int64_t padded(int64_t inner, Form) {
  return inner + inner % 2;
}
inline int64_t input_at(int64_t position, int64_t inner, Form) {
  return position < inner ? position : -1;
}
#endif

int64_t packed_bytes(int64_t inner, int64_t outer, Form form) {
  const int64_t numbers = vectors_of(outer) * kLanes * padded(inner, form);
  return numbers * (form == Form::kFloat ? 4 : form == Form::kPairs ? 2 : 1);
}

inline void put(float* to, float x) {
  *to = x;
}
inline void put(Bf16* to, float x) {
  store_from_float(to, x);
}
inline void put(int8_t* to, float x) {
  *to = static_cast<int8_t>(x);
}

/// Panel by panel [inner / group][outputs][group].
template <class T>
void pack_as(const float* weight, int64_t inner, int64_t outer, Form form, int group, T* to) {
  const int64_t vectors = vectors_of(outer);
  for (int64_t p = 0; p < panels_of(vectors); ++p) {
    const int64_t begin = panel_start(vectors, p) * kLanes,
                  end = panel_start(vectors, p + 1) * kLanes;
    for (int64_t k = 0; k < padded(inner, form); k += group)
      for (int64_t n = begin; n < end; ++n)
        for (int64_t i = k; i < k + group; ++i, ++to) {
          const int64_t input = input_at(i, inner, form);
          put(to, n < outer && input >= 0 ? weight[n * inner + input] : 0.0f);
        }
  }
}

void pack(const float* weight, int64_t inner, int64_t outer, Form form, void* panels) {
  if (form == Form::kFloat)
    pack_as(weight, inner, outer, form, 1, static_cast<float*>(panels));
  else if (form == Form::kPairs)
    pack_as(weight, inner, outer, form, 2, static_cast<Bf16*>(panels));
  else
    pack_as(weight, inner, outer, form, multiplies_pairs() ? 2 : 1, static_cast<int8_t*>(panels));
}

/// sums[kRows][kPanel vectors] of one tile.
template <class X, int kPanel, int kRows>
inline void tile(const X* x, int64_t stride, const float* weights, int64_t inner, float* sums) {
  V sum[kRows][kPanel] = {};
  for (int64_t k = 0; k < inner; ++k, weights += kPanel * kLanes) {
    V w[kPanel];
#pragma GCC unroll 3
    for (int j = 0; j < kPanel; ++j) w[j] = load(weights + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const V a = splat(load_as_float(x[i * stride + k]));
#pragma GCC unroll 3
      for (int j = 0; j < kPanel; ++j) sum[i][j] += a * w[j];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < kPanel; ++j) store(sums + (i * kPanel + j) * kLanes, sum[i][j]);
}

#if defined(__AVX512F__) && !defined(VIREO_AMX)
inline int pair_at(const Bf16* x) {
  int pair;
  __builtin_memcpy(&pair, x, sizeof(pair));
  return pair;
}

template <class X, int kPanel, int kRows>
__attribute__((target("avx512bf16"))) void tile(
    const X* x, int64_t stride, const Bf16* weights, int64_t inner, float* sums) {
  __m512 sum[kRows][kPanel];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < kPanel; ++j) sum[i][j] = _mm512_setzero_ps();
  int64_t k = 0;
  for (; k + 2 <= inner; k += 2, weights += kPanel * kLanes * 2) {
    __m512i w[kPanel];
#pragma GCC unroll 3
    for (int j = 0; j < kPanel; ++j) w[j] = _mm512_loadu_si512(weights + j * kLanes * 2);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const __m512i a = _mm512_set1_epi32(pair_at(x + i * stride + k));
#pragma GCC unroll 3
      for (int j = 0; j < kPanel; ++j)
        sum[i][j] = _mm512_dpbf16_ps(sum[i][j], (__m512bh)a, (__m512bh)w[j]);
    }
  }
  if (k < inner)
    for (int i = 0; i < kRows; ++i) {
      const __m512i a = _mm512_set1_epi32(x[i * stride + k].bits);
      for (int j = 0; j < kPanel; ++j)
        sum[i][j] = _mm512_dpbf16_ps(
            sum[i][j], (__m512bh)a, (__m512bh)_mm512_loadu_si512(weights + j * kLanes * 2));
    }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 3
    for (int j = 0; j < kPanel; ++j) _mm512_storeu_ps(sums + (i * kPanel + j) * kLanes, sum[i][j]);
}
#endif

template <class T>
inline T* at(const Rows& rows, int64_t row, int64_t column) {
  return static_cast<T*>(rows.data) + row * rows.stride + column;
}

/// Sums of `rows` rows and `vectors` vectors from output `first` on, finished and stored.
template <class Y, Finish kFinish>
void put_out(const Job& job, const float* sums, int64_t row, int rows, int64_t first, int vectors) {
  const float *scale = job.weights.scale, *bias = job.weights.bias;
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < vectors; ++j, sums += kLanes) {
      const int64_t n = first + j * kLanes, left = job.weights.outer - n;
      V y = load(sums);
      if (scale) y = y * load(scale + n);
      y = finished<kFinish>(y + load(bias + n));
      if (left >= kLanes) {
        if (job.gate.data) y = y * load(at<Y>(job.gate, row + i, n));
        if (job.added.data) y = y + load(at<Y>(job.added, row + i, n));
        store(at<Y>(job.y, row + i, n), y);
      } else {
        const int count = static_cast<int>(left);
        if (job.gate.data) y = y * load_first(at<Y>(job.gate, row + i, n), count);
        if (job.added.data) y = y + load_first(at<Y>(job.added, row + i, n), count);
        store_first(at<Y>(job.y, row + i, n), y, count);
      }
    }
}

template <class Y>
void put_out_as(
    const Job& job, const float* sums, int64_t row, int rows, int64_t first, int vectors) {
  switch (job.finish) {
    case Finish::kNone:
      return put_out<Y, Finish::kNone>(job, sums, row, rows, first, vectors);
    case Finish::kRelu:
      return put_out<Y, Finish::kRelu>(job, sums, row, rows, first, vectors);
    case Finish::kReluSquared:
      return put_out<Y, Finish::kReluSquared>(job, sums, row, rows, first, vectors);
    case Finish::kSilu:
      return put_out<Y, Finish::kSilu>(job, sums, row, rows, first, vectors);
    case Finish::kSigmoid:
      return put_out<Y, Finish::kSigmoid>(job, sums, row, rows, first, vectors);
  }
}

/// Tiles of kRows rows from `row` on, as many as fit before `end`; then smaller ones.
template <class X, class W, int kPanel, int kRows>
void tiles(const Job& job, const W* weights, int64_t row, int64_t end, int64_t first) {
  alignas(64) float sums[kMostSums * kLanes];
  for (; row + kRows <= end; row += kRows) {
    tile<X, kPanel, kRows>(
        at<const X>(job.x, row, 0), job.x.stride, weights, job.weights.inner, sums);
    if (job.y.bf16)
      put_out_as<Bf16>(job, sums, row, kRows, first, kPanel);
    else
      put_out_as<float>(job, sums, row, kRows, first, kPanel);
  }
  if constexpr (kRows > 1)
    if (row < end) tiles<X, W, kPanel, kRows / 2>(job, weights, row, end, first);
}

/// One panel of `vectors` vectors, its first output being `first`.
template <class X, class W>
void panel(const Job& job, const W* weights, int vectors, int64_t row, int64_t end, int64_t first) {
  if (vectors == 1) return tiles<X, W, 1, kRowsOf[1]>(job, weights, row, end, first);
  if (vectors == 2) return tiles<X, W, 2, kRowsOf[2]>(job, weights, row, end, first);
#if defined(__AVX512F__) || defined(VIREO_AMX)
  return tiles<X, W, 3, kRowsOf[3]>(job, weights, row, end, first);
#endif
}

/// 8 bits in the order they lie in.
inline void widen_to(const int8_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}
inline void widen_to(const int8_t* from, int64_t count, Bf16* to) {
  // Integers of 8 bits are exact in bfloat16: the upper half of their float32.
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i)
    to[i].bits =
        static_cast<uint16_t>(__builtin_bit_cast(uint32_t, static_cast<float>(from[i])) >> 16);
}

void widen(const void* panels, int64_t inner, int64_t outer, void* wide) {
  const int64_t count = packed_bytes(inner, outer, Form::kInt8);
  const auto* from = static_cast<const int8_t*>(panels);
  if (multiplies_pairs()) return widen_to(from, count, static_cast<Bf16*>(wide));
  widen_to(from, count, static_cast<float*>(wide));
}

template <class X, class W>
void run_as(const Job& job, int64_t rows) {
  const int64_t vectors = vectors_of(job.weights.outer);
  const int64_t inner = padded(job.weights.inner, job.weights.form);
  for (int64_t row = 0; row < rows; row += kRowBlock) {
    const int64_t end = row + kRowBlock < rows ? row + kRowBlock : rows;
    for (int64_t p = 0; p < panels_of(vectors); ++p) {
      const int64_t begin = panel_start(vectors, p);
      const W* weights = static_cast<const W*>(job.weights.panels) + begin * kLanes * inner;
      const int count = static_cast<int>(panel_start(vectors, p + 1) - begin);
      panel<X, W>(job, weights, count, row, end, begin * kLanes);
    }
  }
}

/// The rows from `row` on.
Rows from(const Rows& rows, int64_t row) {
  if (!rows.data) return rows;
  const int64_t bytes = row * rows.stride * (rows.bf16 ? 2 : 4);
  return {static_cast<char*>(rows.data) + bytes, rows.stride, rows.bf16};
}

/// Rows of bfloat16 that meet weights of float32: widened once for all panels, a few at a time.
void run_widened(const Job& job, int64_t rows) {
  constexpr int64_t kFloats = 32768, kTiles = 24;  // rows: whole tiles of 8, 6 or 4
  alignas(64) float wide[kFloats];
  const int64_t inner = job.weights.inner;
  const int64_t fitting = inner > 0 ? kFloats / inner : kRowBlock;
  if (fitting == 0) return run_as<Bf16, float>(job, rows);
  const int64_t whole = fitting < kTiles ? fitting : fitting / kTiles * kTiles;
  const int64_t block = whole < kRowBlock ? whole : kRowBlock;
  for (int64_t row = 0; row < rows; row += block) {
    const int64_t count = row + block < rows ? block : rows - row;
    for (int64_t i = 0; i < count; ++i) {
      const Bf16* x = at<const Bf16>(job.x, row + i, 0);
#pragma GCC ivdep
      for (int64_t k = 0; k < inner; ++k) wide[i * inner + k] = load_as_float(x[k]);
    }
    const Job part{job.weights,
                   {wide, inner, false},
                   from(job.y, row),
                   from(job.gate, row),
                   from(job.added, row),
                   job.finish};
    run_as<float, float>(part, count);
  }
}

#if defined(VIREO_AMX)
/// One panel and the rows [row, end), at least as many as are configured lying before `end`. Rows
/// that do not fill a tile are met together with some before them, which are not put out again.
template <int kPanel>
void tile_panel(const Job& job,
                const Rows& x,
                int64_t inputs,
                const Bf16* weights,
                int64_t row,
                int64_t end,
                int64_t configured,
                int64_t first) {
  alignas(64) float sums[amx::kRowTiles * amx::kRows * kPanel * kLanes];
  const auto put = [&](int64_t from, int64_t begin, int64_t stop, const float* of) {
    of += (begin - from) * kPanel * kLanes;
    const int count = static_cast<int>(stop - begin);
    if (job.y.bf16)
      put_out_as<Bf16>(job, of, begin, count, first, kPanel);
    else
      put_out_as<float>(job, of, begin, count, first, kPanel);
  };
  const auto start = [&](int64_t at) { return at + configured <= end ? at : end - configured; };
  for (; row < end; row += amx::kRowTiles * amx::kRows) {
    const int64_t one = start(row), next = row + amx::kRows, two = start(next);
    if (next < end) {
      const Bf16* const from[] = {at<const Bf16>(x, one, 0), at<const Bf16>(x, two, 0)};
      amx::product<kPanel>(from, x.stride, weights, inputs, sums);
      put(two, next, two + configured, sums + amx::kRows * kPanel * kLanes);
    } else {
      const Bf16* const from[] = {at<const Bf16>(x, one, 0)};
      amx::product<kPanel>(from, x.stride, weights, inputs, sums);
    }
    put(one, row, one + configured, sums);
  }
}

void run_tiles(const Job& job, int64_t rows) {
  if (rows == 0) return;  // a layout of tiles without rows would be refused
  const int64_t vectors = vectors_of(job.weights.outer), inner = job.weights.inner;
  const int64_t configured = rows < amx::kRows ? rows : amx::kRows;
  amx::configure(static_cast<int>(configured));
  const int64_t inputs = inner < amx::kInputs ? amx::kInputs : inner;
  Bf16 padded_rows[kRowBlock][amx::kInputs];
  for (int64_t row = 0; row < rows; row += kRowBlock) {
    const int64_t end = row + kRowBlock < rows ? row + kRowBlock : rows;
    Rows x = job.x;
    if (inner < inputs) {  // zeros behind a row, whatever follows it in memory
      const int64_t from = row + configured <= end ? row : end - configured;
      for (int64_t i = from; i < end; ++i)
        for (int64_t k = 0; k < inputs; ++k)
          padded_rows[i - from][k] = k < inner ? *at<const Bf16>(job.x, i, k) : Bf16{};
      x = {padded_rows[0] - from * inputs, inputs, true};
    }
    for (int64_t p = 0; p < panels_of(vectors); ++p) {
      const int64_t begin = panel_start(vectors, p), count = panel_start(vectors, p + 1) - begin;
      const Bf16* weights = static_cast<const Bf16*>(job.weights.panels) +
                            begin * kLanes * padded(inner, Form::kPairs);
      const auto panel = count == 1 ? tile_panel<1> : count == 2 ? tile_panel<2> : tile_panel<3>;
      panel(job, x, inputs, weights, row, end, configured, begin * kLanes);
    }
  }
  amx::release();
}
#endif

void run(const Job& job, int64_t rows) {
#if defined(VIREO_AMX)
  if (job.weights.form == Form::kPairs) return run_tiles(job, rows);
#elif defined(__AVX512F__)
  if (job.weights.form == Form::kPairs) return run_as<Bf16, Bf16>(job, rows);
#endif
  if (job.x.bf16) return run_widened(job, rows);
  run_as<float, float>(job, rows);
}

}  // namespace

const Table& VIREO_ISA() {
  static constexpr Table table{kLanes, multiplies_pairs, packed_bytes, pack, widen, run};
  return table;
}

}  // namespace vireo::linear_rows
