#pragma once

#include <cstdint>
#include <vector>

#include "kernels/bi_wkv/bi_wkv_blocks.h"

// Bi-WKV of one channel's row, for any decay: the CPU's way where the fast one is not safe.
namespace vireo::wkv {

/// Where one channel's row lies; strides in elements.
template <class T>
struct Lane {
  T* data;
  int64_t stride;
  T& operator()(int64_t t) const { return data[t * stride]; }
};

/// Turns each block's own ends into the states that enter it.
template <class S>
void carry(std::vector<Ends<S>>& ends, double w, int64_t tokens) {
  walk_group(
      CarryPlan<S>(w, tokens, 1),
      0,
      Ends<S>{},
      [&](int64_t j) { return ends[j]; },
      [&](int64_t j, const State<S>& left) { ends[j].left = left; },
      [&](int64_t j, const State<S>& right) { ends[j].right = right; });
}

/// Calls body(block index, first token, count) for every block of a row.
template <class Body>
void for_each_block(int64_t tokens, const Body& body) {
  for (int64_t j = 0, first = 0; first < tokens; ++j, first += kBlock)
    body(j, first, static_cast<int>(tokens - first < kBlock ? tokens - first : kBlock));
}

template <class S, class T>
Block<S> read_block(Lane<const T> k, Lane<const T> v, int64_t first, int count) {
  Block<S> block;
  block.read(
      count,
      [&](int i) { return static_cast<S>(k(first + i)); },
      [&](int i) { return static_cast<S>(v(first + i)); });
  return block;
}

template <class S, class T>
std::vector<Ends<S>> entering_states(
    S w, const Channel<S>& channel, Lane<const T> k, Lane<const T> v, int64_t tokens) {
  std::vector<Ends<S>> ends((tokens + kBlock - 1) / kBlock);
  for_each_block(tokens, [&](int64_t j, int64_t first, int count) {
    ends[j] = summarise_keys<true>(read_block<S>(k, v, first, count), channel);
  });
  carry(ends, static_cast<double>(w), tokens);
  return ends;
}

template <class S, class T>
void lane_forward(S w, S u, Lane<const T> k, Lane<const T> v, Lane<T> y, int64_t tokens) {
  const Channel<S> channel = channel_of<true>(w, u, tokens);
  const std::vector<Ends<S>> entering = entering_states(w, channel, k, v, tokens);
  for_each_block(tokens, [&](int64_t j, int64_t first, int count) {
    apply_keys<true>(read_block<S>(k, v, first, count), entering[j], channel, [&](int i, S value) {
      y(first + i) = static_cast<T>(value);
    });
  });
}

/// Returns the row's share of gw and gu.
template <class S, class T>
Share<double> lane_backward(S w,
                            S u,
                            Lane<const T> k,
                            Lane<const T> v,
                            Lane<const T> gy,
                            Lane<T> gk,
                            Lane<T> gv,
                            int64_t tokens) {
  const Channel<S> channel = channel_of<true>(w, u, tokens);
  const std::vector<Ends<S>> entering = entering_states(w, channel, k, v, tokens);
  std::vector<Ends<S>> gentering(entering.size());
  for_each_block(tokens, [&](int64_t j, int64_t first, int count) {
    gentering[j] = summarise_gradients<true>(
        read_block<S>(k, v, first, count), entering[j], channel, [&](int i) {
          return static_cast<S>(gy(first + i));
        });
  });
  carry(gentering, static_cast<double>(w), tokens);
  Share<double> total;
  for_each_block(tokens, [&](int64_t j, int64_t first, int count) {
    const Share<S> share = apply_gradients<true>(
        read_block<S>(k, v, first, count),
        entering[j],
        gentering[j],
        channel,
        [&](int i) { return static_cast<S>(gy(first + i)); },
        [&](int i, S at_k, S at_v) {
          gk(first + i) = static_cast<T>(at_k);
          gv(first + i) = static_cast<T>(at_v);
        });
    total.w += static_cast<double>(share.w);
    total.u += static_cast<double>(share.u);
  });
  return total;
}

}  // namespace vireo::wkv
