#pragma once

#include <cstdint>

// Products of rows with packed weights on the CPU, compiled once per instruction set.
namespace vireo::linear_rows {

/// How packed weights are stored and multiplied; sums are float32 in every form.
enum class Form {
  kFloat,  ///< float32
  kPairs,  ///< bfloat16, two neighbouring inputs side by side, multiplied two at a time
  kInt8,   ///< 8 bits and a scale per output; widen() makes kFloat or kPairs of it to multiply with
};

/// What a sum passes on its way out.
enum class Finish { kNone, kRelu, kReluSquared, kSilu, kSigmoid };

struct Weights {
  const void* panels;  ///< as pack() wrote them
  const float* scale;  ///< [outer rounded up to lanes], or null: 1
  const float* bias;   ///< [outer rounded up to lanes]
  int64_t inner;
  int64_t outer;
  Form form;
};

/// Rows of elements side by side, `stride` elements apart.
struct Rows {
  void* data = nullptr;
  int64_t stride = 0;
  bool bf16 = false;  ///< bfloat16 instead of float32
};

/// y = finish(x W^T scale + bias) gate + added. Gate and added may be null and have y's type.
struct Job {
  Weights weights;
  Rows x, y, gate, added;
  Finish finish;
};

struct Table {
  /// Floats in a vector: outputs are padded to this.
  int64_t lanes;
  /// Whether this processor multiplies pairs of bfloat16. Where it does, kPairs is the form for x
  /// of bfloat16; where not, kFloat is.
  bool (*multiplies_pairs)();
  int64_t (*packed_bytes)(int64_t inner, int64_t outer, Form form);
  /// From rows [outer, inner] of float32; for kInt8 integers from -127 to 127.
  void (*pack)(const float* weight, int64_t inner, int64_t outer, Form form, void* panels);
  /// Panels of kInt8 as those of the form for x of bfloat16.
  void (*widen)(const void* panels, int64_t inner, int64_t outer, void* wide);
  /// Not for kInt8.
  void (*run)(const Job& job, int64_t rows);
};

const Table& portable();
const Table& avx2();
const Table& avx512();
const Table& amx();

}  // namespace vireo::linear_rows
