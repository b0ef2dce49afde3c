#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include <c10/macros/Macros.h>

// The arithmetic of Bi-WKV for one channel, the same on CPU and GPU. Exponentials are carried as
// mantissa and integer power of two, so that no decay, key or token count can overflow, and
// rescaling is exact. Where |w| T and |u| stay below kSafeExponent one power of two serves the
// whole row: the kWide = false variants then leave the powers alone.
namespace vireo::wkv {

constexpr double kSafeExponent = 30.0;
constexpr int kNothing = -(1 << 29);  // the power of two of an empty sum

/// m * 2^e
template <class S>
struct Power {
  S m;
  int e;
};

/// Two sums over tokens with one power of two: num*2^e and den*2^e. For keys num = sum W v and
/// den = sum W; for gradients num = sum W g and den = sum W g y.
template <class S>
struct State {
  S num = 0;
  S den = 0;
  int e = kNothing;
};

C10_HOST_DEVICE inline int larger(int a, int b) {
  return a > b ? a : b;
}

/// 2^e; zero below the normal range, its largest power above it.
template <class S>
C10_HOST_DEVICE inline S pow2(int e) {
  if constexpr (sizeof(S) == 4) {
    const uint32_t bits = e < -126 ? 0u : static_cast<uint32_t>((e > 127 ? 127 : e) + 127) << 23;
    float x;
    memcpy(&x, &bits, 4);
    return x;
  } else {
    const uint64_t bits =
        e < -1022 ? 0u : static_cast<uint64_t>((e > 1023 ? 1023 : e) + 1023) << 52;
    double x;
    memcpy(&x, &bits, 8);
    return x;
  }
}

/// The power of two at or below |x|; for zero something far below every sum of interest.
C10_HOST_DEVICE inline int exponent_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return static_cast<int>((bits >> 23) & 255u) - 127;
}
C10_HOST_DEVICE inline int exponent_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  return static_cast<int>((bits >> 52) & 2047u) - 1023;
}

/// e^k with m in [0.70, 1.42].
template <class S>
C10_HOST_DEVICE inline Power<S> exp_wide(S k) {
  constexpr double kLimit = 1e7;
  k = k < S(-kLimit) ? S(-kLimit) : k > S(kLimit) ? S(kLimit) : k;
  const S j = ::rint(k * S(1.4426950408889634));
  S r;
  if constexpr (sizeof(S) == 4) {
    r = (k - j * 0.693359375f) - j * -2.12194440e-4f;
  } else {
    r = (k - j * 6.93147180369123816490e-01) - j * 1.90821492927058770002e-10;
  }
  return {S(::exp(r)), j == j ? static_cast<int>(j) : 0};
}

/// e^{-w steps}, rounded once. |w| is limited so that powers of two stay far from overflow.
template <class S>
C10_HOST_DEVICE inline Power<S> decay_over(double w, int64_t steps, int64_t tokens) {
  const double most = tokens > (1 << 17) ? 268435456.0 / static_cast<double>(tokens) : 2000.0;
  w = w > most ? most : w < -most ? -most : w;
  const double x = -w * static_cast<double>(steps) * 1.4426950408889634;
  const double j = ::rint(x);
  return {static_cast<S>(::exp2(x - j)), j == j ? static_cast<int>(j) : 0};
}

/// s <- s * decay + (num, den) * 2^e. Takes in one token, or one block of tokens after another.
template <bool kWide, class S>
C10_HOST_DEVICE inline void push(State<S>& s, const Power<S>& decay, S num, S den, int e) {
  if constexpr (kWide) {
    const int carried = s.e + decay.e;
    const int top = larger(carried, e);
    const S old = decay.m * pow2<S>(carried - top);
    const S fresh = pow2<S>(e - top);
    s.num = s.num * old + num * fresh;
    s.den = s.den * old + den * fresh;
    s.e = top;
  } else {
    s.num = s.num * decay.m + num;
    s.den = s.den * decay.m + den;
  }
}

/// Brings the larger of the two sums to [1, 2), exactly.
template <class S>
C10_HOST_DEVICE inline void normalise(State<S>& s) {
  const S num = s.num < 0 ? -s.num : s.num;
  const S den = s.den < 0 ? -s.den : s.den;
  const S most = num > den ? num : den;
  if (most == S(0)) {
    s.e = kNothing;
    return;
  }
  const int shift = exponent_of(most);
  // In two halves: 2^-shift itself may lie outside the normal range.
  const S half = pow2<S>(-(shift / 2));
  const S rest = pow2<S>(-(shift - shift / 2));
  s.num = s.num * half * rest;
  s.den = s.den * half * rest;
  s.e += shift;
}

/// What is the same for all tokens of a channel.
template <class S>
struct Channel {
  Power<S> step;   ///< e^{-w}
  Power<S> bonus;  ///< e^u
};

template <bool kWide, class S>
C10_HOST_DEVICE inline Channel<S> channel_of(S w, S u, int64_t tokens) {
  Channel<S> channel{decay_over<S>(static_cast<double>(w), 1, tokens), exp_wide<S>(u)};
  if constexpr (!kWide) {
    channel.step = {channel.step.m * pow2<S>(channel.step.e), 0};
    channel.bonus = {channel.bonus.m * pow2<S>(channel.bonus.e), 0};
  }
  return channel;
}

/// Whether one power of two serves a whole row of this channel.
C10_HOST_DEVICE inline bool row_is_safe(double w, double u, int64_t tokens) {
  return ::fabs(w) * static_cast<double>(tokens) <= kSafeExponent && ::fabs(u) <= kSafeExponent;
}

/// A token's key and value.
template <class S>
struct Token {
  S weight;  ///< e^k = weight * 2^e
  S value;
  int e;
};

/// y_t and its denominator den*2^e, from what lies left and right of the token.
template <class S>
struct Mean {
  S y;
  S den;
  int e;
};

template <bool kWide, class S>
C10_HOST_DEVICE inline Mean<S> mean_at(const State<S>& left,
                                       const State<S>& right,
                                       const Token<S>& token,
                                       const Channel<S>& channel) {
  S centre = token.weight * channel.bonus.m;
  if constexpr (kWide) {
    const int centre_e = token.e + channel.bonus.e;
    const int top = larger(larger(left.e, right.e), centre_e);
    const S l = pow2<S>(left.e - top), r = pow2<S>(right.e - top);
    centre *= pow2<S>(centre_e - top);
    const S den = left.den * l + right.den * r + centre;
    return {(left.num * l + right.num * r + centre * token.value) / den, den, top};
  } else {
    const S den = left.den + right.den + centre;
    return {(left.num + right.num + centre * token.value) / den, den, 0};
  }
}

/// Gradients at one token from the states of keys (left, right) and of gradients (gleft, gright),
/// all without the token itself. w and u are this token's share.
template <class S>
struct TokenGradients {
  S k;
  S v;
  S w;
  S u;
};

template <bool kWide, class S>
C10_HOST_DEVICE inline TokenGradients<S> gradients_at(const State<S>& left,
                                                      const State<S>& right,
                                                      const State<S>& gleft,
                                                      const State<S>& gright,
                                                      const Token<S>& token,
                                                      const Mean<S>& mean,
                                                      S gy,
                                                      const Channel<S>& channel) {
  const S g = gy / mean.den;
  S from_left = token.weight, from_right = token.weight, own = token.weight * channel.bonus.m;
  S between_right = channel.step.m, between_left = channel.step.m;
  if constexpr (kWide) {
    from_left *= pow2<S>(token.e + gleft.e);
    from_right *= pow2<S>(token.e + gright.e);
    own *= pow2<S>(token.e + channel.bonus.e - mean.e);
    between_right *= pow2<S>(channel.step.e + gright.e + left.e);
    between_left *= pow2<S>(channel.step.e + gleft.e + right.e);
  }
  const S own_g = own * g;
  const S sum = from_left * gleft.num + from_right * gright.num + own_g;
  const S sum_y = from_left * gleft.den + from_right * gright.den + own_g * mean.y;
  return {token.value * sum - sum_y,
          sum,
          -(between_right * (gright.num * left.num - gright.den * left.den) +
            between_left * (gleft.num * right.num - gleft.den * right.den)),
          own_g * (token.value - mean.y)};
}

}  // namespace vireo::wkv
