#pragma once

#include <cstdint>

// Bi-WKV on the CPU for decays that are safe over the whole row (bi_wkv_math.h), vectorised over
// channels; compiled once per instruction set. A row here is up to kRowBytes of neighbouring
// channels of one batch item, cut into chunks of kChunk tokens. The stages, and what may run in
// parallel:
//
//   summarise        any chunks; then
//   carry            once per row; then
//   forward          any chunks: y
//
//   or, after carry,
//   grad_summarise   any chunks; then
//   grad_carry       once per row; then
//   backward         any chunks: gk, gv; then
//   reduce           once per row: its share of gw and gu
//
// Every tensor is read once: what later stages need waits in the row's planes.
namespace vireo::wkv_rows {

constexpr int kChunk = 32;
constexpr int kRowBytes = 256;
/// Channels per row: 64 with float state, 32 with double.
template <class S>
constexpr int kWidth = kRowBytes / static_cast<int>(sizeof(S));

constexpr int64_t chunks_of(int64_t tokens) {
  return (tokens + kChunk - 1) / kChunk;
}

/// One row; S is float, or double for double storage. Strides are in elements, from token to token.
struct Row {
  int64_t tokens;
  int width;  ///< channels, 1..kWidth<S>
  const void* k;
  const void* v;
  const void* gy;
  int64_t k_stride;
  int64_t v_stride;
  int64_t gy_stride;
  void* out[2];  ///< y, or gk and gv
  int64_t out_stride;
  const void* parameters;  ///< S[kParameters][kWidth], from derive
  void* scratch;           ///< S[scratch_size()]
  double* shares;          ///< gw of `width` channels
  double* shares_u;        ///< gu of `width` channels
};

/// Rows of the parameter block: e^-w, e^u, e^{-w n} as a sum of two numbers for n = kChunk and for
/// n = the last chunk's tokens, and e^{-w t} for t < kChunk.
enum Parameter { kStep, kBonus, kFull, kFullRest, kLast, kLastRest, kDistance };
constexpr int kParameters = kDistance + kChunk;

/// Numbers kept per chunk and channel.
enum Kept { kA, kB, kC, kD, kPower, kKeysKept };
enum GradKept { kP, kQ, kPr, kQr, kGw, kGu, kGradKept };

/// What is kept of every token and channel: e^k and e^k v; for backward also g = gy/den and g y.
enum Plane { kE, kEv, kG, kGy };

/// Scratch elements of one row.
template <class S>
constexpr int64_t scratch_size(int64_t tokens, bool backward) {
  return kWidth<S> * (1 + chunks_of(tokens) * (kKeysKept + (backward ? kGradKept : 0)) +
                      tokens * (backward ? 4 : 2));
}

/// One set per storage type; [begin, end) are chunks.
struct Functions {
  /// Fills the parameter block from w and u of kWidth channels.
  void (*derive)(const double* w, const double* u, int64_t tokens, void* parameters);
  void (*summarise)(const Row&, int64_t begin, int64_t end);
  void (*carry)(const Row&);
  void (*forward)(const Row&, int64_t begin, int64_t end);
  void (*grad_summarise)(const Row&, int64_t begin, int64_t end);
  void (*grad_carry)(const Row&);
  void (*backward)(const Row&, int64_t begin, int64_t end);
  void (*reduce)(const Row&);
};

struct Table {
  Functions f32;
  Functions f64;
  Functions bf16;
  Functions f16;
};

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::wkv_rows
