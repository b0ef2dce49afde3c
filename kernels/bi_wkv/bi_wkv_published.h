#pragma once

#include "kernels/bi_wkv/bi_wkv_math.h"

// What the published CUDA forward evaluates, in closed form. With Lc = ceil(T/32), s = Lc
// floor(t/Lc):
//
//   y_t = sum_j M[t,j] e^{k_j} v_j / sum_j M[t,j] e^{k_j},
//   M[t,j] = e^{-w(t-j)}                                    j < s
//          = e^{-w(t-1-j)} + [j > s] (1 - e^w) e^{w(t-j)}   s <= j < t
//          = e^u + [t > s] (1 - e^w)                        j = t
//          = e^{-w(j-t)}                                    j > t
//
// The 1e-6 that the published kernel adds to a denominator of order one and above is left out: it
// changes y by at most 1e-6 of itself, and depends on the order of the kernel's walk.
namespace vireo::wkv {

/// One channel's row, always in double. key(t), value(t) read; emit(t, y) takes the results.
template <class Key, class Value, class Emit>
C10_HOST_DEVICE inline void published_row(
    double w, double u, int64_t tokens, const Key& key, const Value& value, const Emit& emit) {
  using D = double;
  const int64_t length = (tokens + 31) / 32;
  const Power<D> step = decay_over<D>(w, 1, tokens);
  const Power<D> bonus = exp_wide<D>(u);
  const Power<D> growth = exp_wide<D>(w);
  const D excess = 1.0 - growth.m * pow2<D>(growth.e);
  const auto add = [&](State<D>& s, const Power<D>& decay, int64_t t) {
    const Power<D> p = exp_wide<D>(key(t));
    push<true>(s, decay, p.m * value(t), p.m, p.e);
  };
  // Adds factor * 2^e * e^{k_t}, the sum itself staying as it is.
  const auto add_weighted = [&](State<D>& s, D factor, int e, int64_t t) {
    const Power<D> p = exp_wide<D>(key(t));
    push<true>(s, Power<D>{1.0, 0}, factor * p.m * value(t), factor * p.m, p.e + e);
  };
  State<D> before;  // tokens j < s, seen from s - 1: e^{-w(s-1-j)}
  for (int64_t s = 0; s < tokens; s += length) {
    const int64_t end = s + length < tokens ? s + length : tokens;
    State<D> after;  // tokens j >= end, seen from end: e^{-w(j-end)}
    for (int64_t j = tokens - 1; j >= end; --j) {
      add(after, step, j);
      if ((tokens - j) % 32 == 0) normalise(after);
    }
    for (int64_t t = s; t < end; ++t) {
      State<D> sum;
      const Power<D> to_before = decay_over<D>(w, t - s + 1, tokens);
      push<true>(sum,
                 Power<D>{1.0, 0},
                 before.num * to_before.m,
                 before.den * to_before.m,
                 before.e + to_before.e);
      const Power<D> to_after = decay_over<D>(w, end - t, tokens);
      push<true>(sum,
                 Power<D>{1.0, 0},
                 after.num * to_after.m,
                 after.den * to_after.m,
                 after.e + to_after.e);
      for (int64_t j = s; j < t; ++j) {
        const Power<D> decay = decay_over<D>(w, t - 1 - j, tokens);
        add_weighted(sum, decay.m, decay.e, j);
        if (j > s) {
          const Power<D> grown = decay_over<D>(-w, t - j, tokens);
          add_weighted(sum, excess * grown.m, grown.e, j);
        }
      }
      add_weighted(sum, bonus.m, bonus.e, t);
      if (t > s) add_weighted(sum, excess, 0, t);
      for (int64_t j = t + 1; j < end; ++j) {
        const Power<D> decay = decay_over<D>(w, j - t, tokens);
        add_weighted(sum, decay.m, decay.e, j);
      }
      emit(t, sum.num / sum.den);
    }
    for (int64_t j = s; j < end; ++j) add(before, step, j);
    normalise(before);
  }
}

}  // namespace vireo::wkv
