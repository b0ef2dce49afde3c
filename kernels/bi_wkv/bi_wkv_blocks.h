#pragma once

#include "kernels/bi_wkv/bi_wkv_math.h"

// Bi-WKV over one channel's row cut into blocks of at most kBlock tokens:
//
//   1. summarise_keys       per block: what it adds to the states beyond its two ends
//   2. carry                over the blocks: the state that enters each block from left and right
//   3. apply_keys           per block: y
//
// and backward, after 1 and 2:
//
//   4. summarise_gradients  per block, of g = gy/den and g y
//   5. carry                as 2
//   6. apply_gradients      per block: gk, gv and the block's share of gw and gu
//
// Blocks of one step are independent of each other.
namespace vireo::wkv {

constexpr int kBlock = 16;

/// For one block: the sums of its own tokens as the token after it (left) and the token before it
/// (right) sees them. After carry: the states that enter the block from the left and the right.
template <class S>
struct Ends {
  State<S> left;
  State<S> right;
};

/// A block's tokens, e^k = weight * 2^e.
template <class S>
struct Block {
  int n;
  S weight[kBlock];
  S value[kBlock];
  int e[kBlock];

  /// key(i), value(i): the block's i-th token.
  template <class Key, class Value>
  C10_HOST_DEVICE void read(int count, const Key& key_of, const Value& value_of) {
    n = count;
    for (int i = 0; i < n; ++i) {
      const Power<S> p = exp_wide<S>(key_of(i));
      weight[i] = p.m;
      e[i] = p.e;
      value[i] = value_of(i);
    }
  }

  C10_HOST_DEVICE int largest_exponent() const {
    int top = kNothing;
    for (int i = 0; i < n; ++i) top = larger(top, e[i]);
    return top;
  }

  /// Brings every weight to 2^common.
  C10_HOST_DEVICE void align(int common) {
    for (int i = 0; i < n; ++i) {
      weight[i] *= pow2<S>(e[i] - common);
      e[i] = common;
    }
  }
};

template <bool kWide, class S>
C10_HOST_DEVICE inline Ends<S> summarise_keys(Block<S> block, const Channel<S>& channel) {
  Ends<S> ends;
  if constexpr (!kWide) {
    const int common = block.largest_exponent();
    block.align(common);
    ends.left.e = ends.right.e = common;
  }
  for (int i = 0; i < block.n; ++i) {
    const S weight = block.weight[i];
    push<kWide>(ends.left, channel.step, weight * block.value[i], weight, block.e[i]);
  }
  for (int i = block.n - 1; i >= 0; --i) {
    const S weight = block.weight[i];
    push<kWide>(ends.right, channel.step, weight * block.value[i], weight, block.e[i]);
  }
  normalise(ends.left);
  normalise(ends.right);
  return ends;
}

/// Adds to a state the block that follows it (on the left side) or precedes it (on the right side).
template <class S>
C10_HOST_DEVICE inline void push_block(State<S>& s, const Power<S>& over, const State<S>& block) {
  push<true>(s, over, block.num, block.den, block.e);
  normalise(s);
}

/// How a row's blocks are shared out: group g carries through blocks [begin(g), end(g)).
template <class S>
struct CarryPlan {
  int64_t blocks;
  int64_t per_group;
  int groups;
  Power<S> full;        ///< decay over a whole block
  Power<S> last;        ///< decay over the row's last block
  Power<S> full_group;  ///< decay over a group that does not hold the last block
  Power<S> last_group;  ///< decay over the group that does

  C10_HOST_DEVICE CarryPlan(double decay, int64_t row_tokens, int group_count)
      : blocks((row_tokens + kBlock - 1) / kBlock),
        per_group((blocks + group_count - 1) / group_count),
        groups(group_count),
        full(decay_over<S>(decay, kBlock, row_tokens)),
        last(decay_over<S>(decay, row_tokens - (blocks - 1) * kBlock, row_tokens)),
        full_group(decay_over<S>(decay, per_group * kBlock, row_tokens)),
        last_group(decay_over<S>(decay, row_tokens - last_begin() * kBlock, row_tokens)) {}

  /// The first block of the group that holds the last one.
  C10_HOST_DEVICE int64_t last_begin() const { return (blocks - 1) / per_group * per_group; }
  C10_HOST_DEVICE int64_t begin(int g) const {
    const int64_t at = g * per_group;
    return at < blocks ? at : blocks;
  }
  C10_HOST_DEVICE int64_t end(int g) const { return begin(g + 1); }
  C10_HOST_DEVICE Power<S> over(int64_t block) const { return block == blocks - 1 ? last : full; }
  C10_HOST_DEVICE Power<S> over_group(int g) const {
    return end(g) < blocks ? full_group : begin(g) < blocks ? last_group : Power<S>{1, 0};
  }
};

/// What a group's blocks together add beyond the group's two ends; own(j): a block's.
template <class S, class Own>
C10_HOST_DEVICE inline Ends<S> sum_group(const CarryPlan<S>& plan, int g, const Own& own) {
  Ends<S> sum;
  for (int64_t j = plan.begin(g); j < plan.end(g); ++j)
    push_block(sum.left, plan.over(j), own(j).left);
  for (int64_t j = plan.end(g) - 1; j >= plan.begin(g); --j)
    push_block(sum.right, plan.over(j), own(j).right);
  return sum;
}

/// The states that enter a group, from all groups' sums.
template <class S, class Sums>
C10_HOST_DEVICE inline Ends<S> entering_group(const CarryPlan<S>& plan, int g, const Sums& sums) {
  Ends<S> entering;
  for (int i = 0; i < g; ++i) push_block(entering.left, plan.over_group(i), sums(i).left);
  for (int i = plan.groups - 1; i > g; --i)
    push_block(entering.right, plan.over_group(i), sums(i).right);
  return entering;
}

/// Gives every block of a group the states that enter it; own(j) is read before they are given.
template <class S, class Own, class Left, class Right>
C10_HOST_DEVICE inline void walk_group(const CarryPlan<S>& plan,
                                       int g,
                                       Ends<S> entering,
                                       const Own& own,
                                       const Left& give_left,
                                       const Right& give_right) {
  for (int64_t j = plan.begin(g); j < plan.end(g); ++j) {
    const State<S> block = own(j).left;
    give_left(j, entering.left);
    push_block(entering.left, plan.over(j), block);
  }
  for (int64_t j = plan.end(g) - 1; j >= plan.begin(g); --j) {
    const State<S> block = own(j).right;
    give_right(j, entering.right);
    push_block(entering.right, plan.over(j), block);
  }
}

/// What walk_group gives block j of group g, for whoever carries one block alone.
template <class S, class Own>
C10_HOST_DEVICE inline Ends<S> entering_block(
    const CarryPlan<S>& plan, int g, int64_t j, Ends<S> entering, const Own& own) {
  for (int64_t i = plan.begin(g); i < j; ++i) push_block(entering.left, plan.over(i), own(i).left);
  for (int64_t i = plan.end(g) - 1; i > j; --i)
    push_block(entering.right, plan.over(i), own(i).right);
  return entering;
}

/// How many CTAs, a power of two up to `largest`, hold a row of `blocks` blocks, `held` each; 0:
/// the row is longer than all of them.
inline int cluster_for(int64_t blocks, int held, int largest) {
  int size = 1;
  while (size <= largest && static_cast<int64_t>(size) * held < blocks) size *= 2;
  return size <= largest ? size : 0;
}

/// The states inside one block, and each token's mean.
template <class S>
struct Inside {
  State<S> left[kBlock];
  State<S> right[kBlock];
  Mean<S> mean[kBlock];
};

template <class S>
C10_HOST_DEVICE inline void rescale(State<S>& s, int common) {
  const S factor = pow2<S>(s.e - common);
  s.num *= factor;
  s.den *= factor;
  s.e = common;
}

/// Walks a block whose entering states are known. With kWide = false everything is brought to one
/// power of two, which is returned.
template <bool kWide, class S>
C10_HOST_DEVICE inline int walk_block(Block<S>& block,
                                      Ends<S> entering,
                                      const Channel<S>& channel,
                                      Inside<S>& inside) {
  int common = 0;
  if constexpr (!kWide) {
    common = larger(block.largest_exponent(), larger(entering.left.e, entering.right.e));
    block.align(common);
    rescale(entering.left, common);
    rescale(entering.right, common);
  }
  for (int i = block.n - 1; i >= 0; --i) {
    inside.right[i] = entering.right;
    const S weight = block.weight[i];
    push<kWide>(entering.right, channel.step, weight * block.value[i], weight, block.e[i]);
  }
  for (int i = 0; i < block.n; ++i) {
    inside.left[i] = entering.left;
    const Token<S> token{block.weight[i], block.value[i], block.e[i]};
    inside.mean[i] = mean_at<kWide>(entering.left, inside.right[i], token, channel);
    push<kWide>(entering.left, channel.step, token.weight * token.value, token.weight, token.e);
  }
  return common;
}

/// y(i, value): takes the i-th token's result.
template <bool kWide, class S, class Emit>
C10_HOST_DEVICE inline void apply_keys(Block<S> block,
                                       const Ends<S>& entering,
                                       const Channel<S>& channel,
                                       const Emit& y) {
  Inside<S> inside;
  walk_block<kWide>(block, entering, channel, inside);
  for (int i = 0; i < block.n; ++i) y(i, inside.mean[i].y);
}

template <bool kWide, class S, class Gy>
C10_HOST_DEVICE inline Ends<S> summarise_gradients(Block<S> block,
                                                   const Ends<S>& entering,
                                                   const Channel<S>& channel,
                                                   const Gy& gy) {
  Inside<S> inside;
  const int common = walk_block<kWide>(block, entering, channel, inside);
  Ends<S> ends;
  if constexpr (!kWide) ends.left.e = ends.right.e = -common;
  for (int i = 0; i < block.n; ++i) {
    const Mean<S>& mean = inside.mean[i];
    const S g = gy(i) / mean.den;
    push<kWide>(ends.left, channel.step, g, g * mean.y, -mean.e);
  }
  for (int i = block.n - 1; i >= 0; --i) {
    const Mean<S>& mean = inside.mean[i];
    const S g = gy(i) / mean.den;
    push<kWide>(ends.right, channel.step, g, g * mean.y, -mean.e);
  }
  normalise(ends.left);
  normalise(ends.right);
  return ends;
}

/// The block's share of gw and gu.
template <class S>
struct Share {
  S w = 0;
  S u = 0;
};

/// emit(i, gk, gv): takes the i-th token's gradients.
template <bool kWide, class S, class Gy, class Emit>
C10_HOST_DEVICE inline Share<S> apply_gradients(Block<S> block,
                                                const Ends<S>& entering,
                                                Ends<S> gentering,
                                                const Channel<S>& channel,
                                                const Gy& gy,
                                                const Emit& emit) {
  Inside<S> inside;
  State<S> gright[kBlock];
  const int common = walk_block<kWide>(block, entering, channel, inside);
  if constexpr (!kWide) {
    rescale(gentering.left, -common);
    rescale(gentering.right, -common);
  }
  for (int i = block.n - 1; i >= 0; --i) {
    gright[i] = gentering.right;
    const Mean<S>& mean = inside.mean[i];
    const S g = gy(i) / mean.den;
    push<kWide>(gentering.right, channel.step, g, g * mean.y, -mean.e);
  }
  Share<S> share;
  for (int i = 0; i < block.n; ++i) {
    const Mean<S>& mean = inside.mean[i];
    const Token<S> token{block.weight[i], block.value[i], block.e[i]};
    const TokenGradients<S> at = gradients_at<kWide>(
        inside.left[i], inside.right[i], gentering.left, gright[i], token, mean, S(gy(i)), channel);
    emit(i, at.k, at.v);
    share.w += at.w;
    share.u += at.u;
    const S g = gy(i) / mean.den;
    push<kWide>(gentering.left, channel.step, g, g * mean.y, -mean.e);
  }
  return share;
}

}  // namespace vireo::wkv
