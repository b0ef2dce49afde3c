#pragma once

#include <cstdint>

#include "kernels/cpu_table.h"
#include "kernels/wkv6/wkv6_math.h"

// WKV6 on the CPU, compiled once per instruction set. A row is one head of one batch item. It is
// cut into segments, which run in parallel once the states entering them are known:
//
//   summarise   any segments: what a segment adds to the states; then
//   carry       once per row and state (wkv6_cpu.cpp); then
//   forward     any segments: y
//   backward    any segments: gr, gk, gv, gw, and the segment's share of gu
//
// Inside a segment chunks of kChunk tokens are taken one after the other, in small matrix products.
// A state is [padded(N)][padded(N)]; rows beyond N are zero.
namespace vireo::wkv6_rows {

using wkv6_math::kChunk;

constexpr int kLargestHead = 128;
constexpr int kLargestW = 10;  ///< exp(-exp(10)) is 0 in float64

/// Tokens of a segment: all of a short row, which then needs no summaries; fewer for backward,
/// which keeps a state per chunk.
constexpr int segment_tokens_of(int64_t tokens, bool backward) {
  const int64_t most = backward ? 512 : 1024;
  return static_cast<int>(tokens < most ? (tokens + kChunk - 1) / kChunk * kChunk : most);
}

constexpr int padded(int head) {
  return (head + kChunk - 1) / kChunk * kChunk;
}

/// S is float, or double for double storage. Strides are in elements, from token to token.
struct Row {
  int64_t tokens;
  int segment_tokens;  ///< from segment_tokens_of
  int head;            ///< N
  bool causal;
  const void* r;
  const void* k;
  const void* v;
  const void* gy;  ///< backward alone
  const void* w;   ///< S
  const void* u;   ///< S[N]
  int64_t r_stride;
  int64_t k_stride;
  int64_t v_stride;
  int64_t gy_stride;
  int64_t w_stride;
  int64_t out_stride;
  void* y;   ///< forward
  void* gr;  ///< backward
  void* gk;
  void* gv;
  void* gw;  ///< S
};

/// Sums over the tokens before or behind, of keys times values (forward) or, for backward, of
/// receptances times output gradients.
enum StateKind { kLeft, kRight, kGradLeft, kGradRight, kStateKinds };

/// The states that enter one segment, S[padded][padded] each; those from the left at its begin,
/// those from the right at its end.
struct Entering {
  const void* state[kStateKinds];
};

/// Where summarise puts what one segment adds to every state (null: not wanted), S[padded][padded],
/// and the sum of ln d over it, S[padded].
struct Leaving {
  void* state[kStateKinds];
  void* log_total;
};

/// S numbers of scratch that any of the functions below needs.
constexpr int64_t scratch_size(int head, int segment_tokens, bool backward) {
  const int64_t width = padded(head), results = segment_tokens + 2 * kChunk;
  const int64_t chunks = segment_tokens / kChunk;
  const int64_t rows = backward ? 14 * kChunk + 4 + 4 * results + width + chunks * width
                                : 9 * kChunk + 2 + 2 * int64_t{segment_tokens} + width + chunks;
  return rows * width;
}

/// One set per storage type.
struct Functions {
  /// The states of gradients alone where the row has a gy.
  void (*summarise)(const Row&, int64_t segment, const Leaving&, void* scratch);
  void (*forward)(const Row&, int64_t segment, const Entering&, void* scratch);
  /// gu: [N].
  void (*backward)(const Row&, int64_t segment, const Entering&, void* scratch, double* gu);
};

using Table = ByStorage<Functions>;

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::wkv6_rows
