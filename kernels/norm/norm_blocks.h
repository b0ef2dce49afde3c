#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define VIREO_NORM_ANYWHERE __host__ __device__ __forceinline__
#else
#define VIREO_NORM_ANYWHERE inline __attribute__((always_inline))
#endif

// norm.h on the GPU. Rows of channels: one warp per row. Maps, whose pixels lie side by side: a
// block per 32 pixels of all channels, a lane per pixel, its warps sharing the channels. What a
// block adds to the gradients of weight and bias is one row of `partial`; the rows are summed in
// order after. A mean is taken first and the squares of what differs from it after.
//
// The code is written for a Block of warps that says which registers it holds: those of one lane
// of one warp on a GPU, of all lanes in a test on a CPU. A Block has
//   warps()             how many, at most kMostWarps
//   sync()
//   each_warp(body)     body(warp, its number)
// and a Block::Warp
//   kHeld, lane(h)      how many lanes' registers, and which lane the h-th is
//   sum(x)              of x[kHeld], over all 32 lanes
namespace vireo::norm_blocks {

constexpr int kLanes = 32;
constexpr int kMostWarps = 8;
/// Rows of which a block sums the gradients of weight and bias.
constexpr int kRowsPerBlock = 64;

/// Rows of channels, contiguous. r is null without a gate, weight and bias without a norm.
template <class T, class S>
struct Rows {
  int64_t rows, channels;
  S eps;
  const T *r, *y;
  const S *weight, *bias;
  T* out;         ///< forward
  const T* gout;  ///< backward, and below
  T *gr, *gy;
};

/// [images, channels, pixels], contiguous.
template <class T, class S>
struct Maps {
  int64_t images, channels, pixels;
  S eps;
  const T* x;
  const S *weight, *bias;
  T* out;         ///< forward
  const T* gout;  ///< backward
  T* gx;

  VIREO_NORM_ANYWHERE int64_t tiles() const { return (pixels + kLanes - 1) / kLanes; }
};

/// sigmoid(r) and sigmoid(-r), neither of them as a difference.
template <class S>
struct Sigmoid {
  S open, shut;

  VIREO_NORM_ANYWHERE explicit Sigmoid(S r) {
    const S e = ::exp(r < 0 ? r : -r), larger = S(1) / (S(1) + e), smaller = e * larger;
    open = r < 0 ? smaller : larger;
    shut = r < 0 ? larger : smaller;
  }
};

/// A row or a pixel is normalised to (x - mean) scale.
template <class S>
struct Moments {
  S mean, scale;

  VIREO_NORM_ANYWHERE S operator()(S x) const { return (x - mean) * scale; }
};

template <class Warp, class Body>
VIREO_NORM_ANYWHERE void each_channel(const Warp& warp, int64_t channels, const Body& body) {
  for (int h = 0; h < Warp::kHeld; ++h)
    for (int64_t n = warp.lane(h); n < channels; n += kLanes) body(h, n);
}

template <class Warp, class T, class S>
VIREO_NORM_ANYWHERE Moments<S> moments_of(const Warp& warp, const T* x, int64_t channels, S eps) {
  S sum[Warp::kHeld] = {}, squares[Warp::kHeld] = {};
  each_channel(warp, channels, [&](int h, int64_t n) { sum[h] += static_cast<S>(x[n]); });
  const S share = S(1) / static_cast<S>(channels), mean = warp.sum(sum) * share;
  each_channel(warp, channels, [&](int h, int64_t n) {
    const S away = static_cast<S>(x[n]) - mean;
    squares[h] += away * away;
  });
  return {mean, S(1) / static_cast<S>(::sqrt(warp.sum(squares) * share + eps))};
}

template <bool kNorm, bool kGate, class Warp, class T, class S>
VIREO_NORM_ANYWHERE void forward_row(const Warp& warp, const Rows<T, S>& p, int64_t row) {
  const int64_t first = row * p.channels;
  Moments<S> moments{};
  if constexpr (kNorm) moments = moments_of(warp, p.y + first, p.channels, p.eps);
  each_channel(warp, p.channels, [&](int, int64_t n) {
    S x = static_cast<S>(p.y[first + n]);
    if constexpr (kNorm) x = moments(x) * p.weight[n] + p.bias[n];
    if constexpr (kGate) x *= Sigmoid<S>(static_cast<S>(p.r[first + n])).open;
    p.out[first + n] = static_cast<T>(x);
  });
}

/// One element of a gate without a norm.
template <class T, class S>
VIREO_NORM_ANYWHERE void gate_gradients(const Rows<T, S>& p, int64_t at) {
  const Sigmoid<S> s(static_cast<S>(p.r[at]));
  const S through = static_cast<S>(p.gout[at]) * s.open;
  p.gr[at] = static_cast<T>(through * static_cast<S>(p.y[at]) * s.shut);
  p.gy[at] = static_cast<T>(through);
}

/// Adds to sums [2][C] what the row adds to the gradients of weight and bias; a channel is always
/// the same lane's.
template <bool kGate, class Warp, class T, class S>
VIREO_NORM_ANYWHERE void backward_row(const Warp& warp, const Rows<T, S>& p, int64_t row, S* sums) {
  const int64_t first = row * p.channels;
  const Moments<S> moments = moments_of(warp, p.y + first, p.channels, p.eps);
  S own[Warp::kHeld] = {}, own_x[Warp::kHeld] = {};
  each_channel(warp, p.channels, [&](int h, int64_t n) {
    const S x = moments(static_cast<S>(p.y[first + n]));
    S g = static_cast<S>(p.gout[first + n]);
    if constexpr (kGate) {
      const Sigmoid<S> s(static_cast<S>(p.r[first + n]));
      g *= s.open;
      p.gr[first + n] = static_cast<T>(g * (x * p.weight[n] + p.bias[n]) * s.shut);
    }
    sums[n] += g * x;
    sums[p.channels + n] += g;
    own[h] += g * p.weight[n];
    own_x[h] += g * p.weight[n] * x;
  });
  const S share = S(1) / static_cast<S>(p.channels);
  const S mean = warp.sum(own) * share, mean_x = warp.sum(own_x) * share;
  each_channel(warp, p.channels, [&](int, int64_t n) {
    const S x = moments(static_cast<S>(p.y[first + n]));
    S g = static_cast<S>(p.gout[first + n]) * p.weight[n];
    if constexpr (kGate) g *= Sigmoid<S>(static_cast<S>(p.r[first + n])).open;
    p.gy[first + n] = static_cast<T>((g - mean - x * mean_x) * moments.scale);
  });
}

/// The rows of one block. sums [warps][2][C] is the block's alone, partial [2][C] its row.
template <bool kGate, class Block, class T, class S>
VIREO_NORM_ANYWHERE void backward_rows(
    const Block& block, const Rows<T, S>& p, int64_t first, S* sums, S* partial) {
  const int64_t wide = 2 * p.channels;
  const int64_t end = first + kRowsPerBlock < p.rows ? first + kRowsPerBlock : p.rows;
  block.each_warp([&](const auto& warp, int w) {
    S* own = sums + w * wide;
    each_channel(warp, p.channels, [&](int, int64_t n) { own[n] = own[p.channels + n] = 0; });
    for (int64_t row = first + w; row < end; row += block.warps())
      backward_row<kGate>(warp, p, row, own);
  });
  block.sync();
  block.each_warp([&](const auto& warp, int w) {
    each_channel(warp, p.channels, [&](int, int64_t n) {
      if (n / kLanes % block.warps() != w) return;
      for (int64_t at = n; at < wide; at += p.channels) {
        S total = sums[at];
        for (int i = 1; i < block.warps(); ++i) total += sums[i * wide + at];
        partial[at] = total;
      }
    });
  });
}

/// What the warps of a block tell each other about their pixels.
template <class S>
struct Board {
  S sum[kMostWarps][kLanes], squares[kMostWarps][kLanes];
  S own[kMostWarps][kLanes], own_x[kMostWarps][kLanes];
};

template <class Block, class S>
VIREO_NORM_ANYWHERE S
mean_of(const Block& block, const S (&shares)[kMostWarps][kLanes], int lane, int64_t channels) {
  S total = shares[0][lane];
  for (int w = 1; w < block.warps(); ++w) total += shares[w][lane];
  return total / static_cast<S>(channels);
}

/// Some pixels of a map: where a lane's is, and whether there is one.
struct Pixels {
  int64_t image, first;

  template <class T, class S>
  VIREO_NORM_ANYWHERE bool has(const Maps<T, S>& p, int lane) const {
    return first + lane < p.pixels;
  }
  template <class T, class S>
  VIREO_NORM_ANYWHERE int64_t at(const Maps<T, S>& p, int lane, int64_t channel) const {
    return (image * p.channels + channel) * p.pixels + first + lane;
  }
  template <class T, class S>
  VIREO_NORM_ANYWHERE static Pixels of_tile(const Maps<T, S>& p, int64_t tile) {
    return {tile / p.tiles(), tile % p.tiles() * kLanes};
  }
};

/// body(h, lane) for the lanes that have a pixel.
template <class Warp, class T, class S, class Body>
VIREO_NORM_ANYWHERE void each_pixel(const Warp& warp,
                                    const Maps<T, S>& p,
                                    const Pixels& pixels,
                                    const Body& body) {
  for (int h = 0; h < Warp::kHeld; ++h)
    if (pixels.has(p, warp.lane(h))) body(h, warp.lane(h));
}

/// Fills in sum and squares.
template <class Block, class T, class S>
VIREO_NORM_ANYWHERE void sum_pixels(const Block& block,
                                    const Maps<T, S>& p,
                                    const Pixels& pixels,
                                    Board<S>& board) {
  block.each_warp([&](const auto& warp, int w) {
    each_pixel(warp, p, pixels, [&](int, int lane) {
      S sum = 0;
      for (int64_t c = w; c < p.channels; c += block.warps())
        sum += static_cast<S>(p.x[pixels.at(p, lane, c)]);
      board.sum[w][lane] = sum;
    });
  });
  block.sync();
  block.each_warp([&](const auto& warp, int w) {
    each_pixel(warp, p, pixels, [&](int, int lane) {
      const S mean = mean_of(block, board.sum, lane, p.channels);
      S sum = 0;
      for (int64_t c = w; c < p.channels; c += block.warps()) {
        const S away = static_cast<S>(p.x[pixels.at(p, lane, c)]) - mean;
        sum += away * away;
      }
      board.squares[w][lane] = sum;
    });
  });
  block.sync();
}

template <class Block, class S>
VIREO_NORM_ANYWHERE Moments<S> moments_of_pixel(
    const Block& block, const Board<S>& board, int lane, int64_t channels, S eps) {
  const S variance = mean_of(block, board.squares, lane, channels);
  return {mean_of(block, board.sum, lane, channels), S(1) / static_cast<S>(::sqrt(variance + eps))};
}

template <class Block, class T, class S>
VIREO_NORM_ANYWHERE void forward_pixels(const Block& block,
                                        const Maps<T, S>& p,
                                        int64_t tile,
                                        Board<S>& board) {
  const Pixels pixels = Pixels::of_tile(p, tile);
  sum_pixels(block, p, pixels, board);
  block.each_warp([&](const auto& warp, int w) {
    each_pixel(warp, p, pixels, [&](int, int lane) {
      const auto moments = moments_of_pixel(block, board, lane, p.channels, p.eps);
      for (int64_t c = w; c < p.channels; c += block.warps()) {
        const int64_t at = pixels.at(p, lane, c);
        p.out[at] = static_cast<T>(moments(static_cast<S>(p.x[at])) * p.weight[c] + p.bias[c]);
      }
    });
  });
}

/// partial [2][C]: the tile's row.
template <class Block, class T, class S>
VIREO_NORM_ANYWHERE void backward_pixels(
    const Block& block, const Maps<T, S>& p, int64_t tile, Board<S>& board, S* partial) {
  using Warp = typename Block::Warp;
  const Pixels pixels = Pixels::of_tile(p, tile);
  sum_pixels(block, p, pixels, board);
  block.each_warp([&](const auto& warp, int w) {
    Moments<S> moments[Warp::kHeld] = {};
    S own[Warp::kHeld] = {}, own_x[Warp::kHeld] = {};
    each_pixel(warp, p, pixels, [&](int h, int lane) {
      moments[h] = moments_of_pixel(block, board, lane, p.channels, p.eps);
    });
    for (int64_t c = w; c < p.channels; c += block.warps()) {
      S g[Warp::kHeld] = {}, g_x[Warp::kHeld] = {};
      each_pixel(warp, p, pixels, [&](int h, int lane) {
        const int64_t at = pixels.at(p, lane, c);
        g[h] = static_cast<S>(p.gout[at]);
        g_x[h] = g[h] * moments[h](static_cast<S>(p.x[at]));
        own[h] += g[h] * p.weight[c];
        own_x[h] += g_x[h] * p.weight[c];
      });
      const S weight_share = warp.sum(g_x), bias_share = warp.sum(g);
      for (int h = 0; h < Warp::kHeld; ++h)
        if (warp.lane(h) == 0) {
          partial[c] = weight_share;
          partial[p.channels + c] = bias_share;
        }
    }
    for (int h = 0; h < Warp::kHeld; ++h) {
      board.own[w][warp.lane(h)] = own[h];
      board.own_x[w][warp.lane(h)] = own_x[h];
    }
  });
  block.sync();
  block.each_warp([&](const auto& warp, int w) {
    each_pixel(warp, p, pixels, [&](int, int lane) {
      const auto moments = moments_of_pixel(block, board, lane, p.channels, p.eps);
      const S mean = mean_of(block, board.own, lane, p.channels);
      const S mean_x = mean_of(block, board.own_x, lane, p.channels);
      for (int64_t c = w; c < p.channels; c += block.warps()) {
        const int64_t at = pixels.at(p, lane, c);
        const S x = moments(static_cast<S>(p.x[at]));
        const S g = static_cast<S>(p.gout[at]) * p.weight[c];
        p.gx[at] = static_cast<T>((g - mean - x * mean_x) * moments.scale);
      }
    });
  });
}

}  // namespace vireo::norm_blocks
