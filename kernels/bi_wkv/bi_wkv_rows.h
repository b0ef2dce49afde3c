#pragma once

#include <cstdint>

#include "kernels/cpu_table.h"

// Bi-WKV on the CPU for decays that are safe over the whole row (bi_wkv_math.h), vectorised over
// channels; compiled once per instruction set. A row here is up to kRowBytes of neighbouring
// channels of one batch item, cut into segments whose planes fit a core's cache, and those into
// chunks of kChunk tokens. A segment is swept from the right, which leaves its keys' planes and the
// sums that enter each chunk, then from the left. A row of several segments needs the sums that
// enter those first. The stages, and what may run in parallel:
//
//   summarise, carry   any segments; then once per row
//   forward            any segments: y
//
//   summarise, carry, grad_summarise, grad_carry
//   backward           any segments: gk, gv, shares of gw and gu
//
// A row of one segment goes straight to `forward` or `backward`.
namespace vireo::wkv_rows {

constexpr int kChunk = 32;
constexpr int kRowBytes = 128;
/// Channels per row: 32 with float state, 16 with double.
template <class S>
constexpr int kWidth = kRowBytes / static_cast<int>(sizeof(S));

/// The longest segments, in tokens.
constexpr int64_t kSegment = 1024;

constexpr int64_t chunks_of(int64_t tokens) {
  return (tokens + kChunk - 1) / kChunk;
}

/// How tokens are cut into segments, all of `length` but the last, which may be shorter.
struct Cut {
  int64_t count;
  int64_t length;  ///< a multiple of kChunk

  explicit constexpr Cut(int64_t tokens)
      : count((tokens + kSegment - 1) / kSegment),
        length(chunks_of((tokens + count - 1) / count) * kChunk) {}
};

/// One row; S is float, or double for double storage. Strides are in elements, from token to token.
struct Row {
  int64_t tokens;
  int64_t segments;
  int64_t segment_tokens;  ///< Cut::length
  int width;               ///< channels, 1..kWidth<S>
  const void* k;
  const void* v;
  const void* gy;
  int64_t k_stride;
  int64_t v_stride;
  int64_t gy_stride;
  void* out[2];  ///< y, or gk and gv
  int64_t out_stride;
  const void* parameters;  ///< S[kParameters][kWidth], from derive
  void* ends;              ///< S[segments][kEnds][kWidth]; unused by a row of one segment
  void* scratch;           ///< S[scratch_size()], a thread's own
  double* shares;          ///< gw of `width` channels, segments `shares_stride` apart
  double* shares_u;        ///< gu, likewise
  int64_t shares_stride;
};

/// Rows of the parameter block: e^-w, e^u, e^{-w n} as a sum of two numbers for n = kChunk and for
/// the tokens of a segment, what e^{-w kChunk} exceeds the power of the rounded e^-w by, and e^{-w
/// t} for t < kChunk.
enum Parameter { kStep, kBonus, kFull, kFullRest, kDrift, kOver, kOverRest, kDistance };
constexpr int kParameters = kDistance + kChunk;

/// Numbers kept per segment and channel: its own sums, and after `carry` those that enter it.
enum End { kEndA, kEndB, kEndC, kEndD, kPower, kEndP, kEndQ, kEndPr, kEndQr, kEnds };

/// Numbers kept per chunk and channel: the sums that enter it, and its shares of gw and gu.
enum Kept { kC, kD, kA, kB, kP, kQ, kPr, kQr, kGw, kGu, kKept };

/// What is kept of every token and channel: e^k and e^k v; for backward also g = gy/den and g y.
enum Plane { kE, kEv, kG, kGy };
constexpr int kForwardPlanes = 2;
constexpr int kBackwardPlanes = 4;

/// Scratch elements of one segment.
template <class S>
constexpr int64_t scratch_size(int64_t segment_tokens, bool backward) {
  return kWidth<S> * (chunks_of(segment_tokens) * kKept +
                      segment_tokens * (backward ? kBackwardPlanes : kForwardPlanes));
}

/// One set per storage type.
struct Functions {
  /// Fills the parameter block from w and u of kWidth channels.
  void (*derive)(const double* w, const double* u, int64_t segment_tokens, void* parameters);
  void (*summarise)(const Row&, int64_t segment);
  void (*carry)(const Row&);
  void (*forward)(const Row&, int64_t segment);
  void (*grad_summarise)(const Row&, int64_t segment);
  void (*grad_carry)(const Row&);
  void (*backward)(const Row&, int64_t segment);
};

using Table = ByStorage<Functions>;

const Table& portable();
const Table& avx2();
const Table& avx512();

}  // namespace vireo::wkv_rows
