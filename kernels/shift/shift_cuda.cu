#include <array>
#include <vector>

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_shared.cuh"
#include "kernels/cuda_sums.cuh"
#include "kernels/shift/shift_ops.h"
#include "kernels/shift/shift_plan.h"

namespace vireo {
namespace {

constexpr int kThreads = 256;
constexpr int kTokensPerTile = 64;
constexpr int kTileWarps = 8;

/// Where tokens read: the bounds of the four moving parts within a head, and the image.
struct Geometry {
  int64_t height;
  int64_t width;
  int64_t tokens;
  int64_t channels;
  int64_t head;
  int64_t
      bounds[4];   ///< a head's channels below bounds[j] and from bounds[j-1] on move the j-th way
  int64_t pixels;  ///< negative: the gradient's way

  /// The token that (t, c) reads, -1 outside the image; sign -1: the token that reads (t, c).
  __device__ int64_t source(int64_t t, int64_t c, int sign) const {
    if (t >= height * width) return t;
    const int64_t i = c % head, s = sign * pixels;
    int64_t x = t % width, y = t / width;
    if (i < bounds[0])
      x -= s;
    else if (i < bounds[1])
      x += s;
    else if (i < bounds[2])
      y -= s;
    else if (i < bounds[3])
      y += s;
    return x < 0 || x >= width || y < 0 || y >= height ? -1 : y * width + x;
  }
};

Geometry geometry_of(const at::Tensor& x, int64_t height, int64_t width, const QShift& shift) {
  Geometry g{height, width, x.size(1), x.size(2), 0, {}, shift.pixels};
  g.head = shift.head_dim == 0 ? x.size(2) : shift.head_dim;
  const std::array<int64_t, 4> bounds = shift_bounds(g.head, shift.gamma);
  for (int j = 0; j < 4; ++j) g.bounds[j] = bounds[j];
  return g;
}

/// Storage only: moves elements of any type of that size.
template <class Bits>
__global__ void shift_kernel(Geometry g, const Bits* x, Bits* y, int64_t elements) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  const int64_t c = i % g.channels, row = i / g.channels, t = row % g.tokens;
  const int64_t from = g.source(t, c, 1);
  y[i] = from < 0 ? Bits(0) : x[(row - t + from) * g.channels + c];
}

template <class T, int kMixes>
struct Pointers {
  T* p[kMixes];
};

template <class T, class S, int kMixes>
__global__ void mix_forward_kernel(
    Geometry g, const T* x, const S* mixes, Pointers<T, kMixes> out, int64_t elements) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= elements) return;
  const int64_t c = i % g.channels, row = i / g.channels, t = row % g.tokens;
  const int64_t from = g.source(t, c, 1);
  const S own = static_cast<S>(x[i]);
  const S shifted = from < 0 ? S(0) : static_cast<S>(x[(row - t + from) * g.channels + c]);
  for (int m = 0; m < kMixes; ++m) {
    const S w = mixes[m * g.channels + c];
    out.p[m][i] = static_cast<T>(own * w + shifted * (S(1) - w));
  }
}

/// One CTA per item, tile of kTokensPerTile tokens and 32 channels; block (32, kTileWarps).
/// partial [items * tiles, kMixes, channels].
template <class T, class S, int kMixes>
__global__ void mix_backward_kernel(
    Geometry g, const T* x, const S* mixes, Pointers<const T, kMixes> gy, T* gx, S* partial) {
  auto& sums = shared<S[kTileWarps][kMixes][32]>();
  const int64_t columns = (g.channels + 31) / 32;
  const int64_t tiles = (g.tokens + kTokensPerTile - 1) / kTokensPerTile;
  const int64_t c = blockIdx.x % columns * 32 + threadIdx.x;
  const int64_t tile = blockIdx.x / columns;  // item * tiles + tile of the item
  const int64_t item = tile / tiles * g.tokens, first = tile % tiles * kTokensPerTile;
  const int64_t end = first + kTokensPerTile < g.tokens ? first + kTokensPerTile : g.tokens;
  S sum[kMixes] = {};
  if (c < g.channels) {
    for (int64_t t = first + threadIdx.y; t < end; t += kTileWarps) {
      const int64_t at = (item + t) * g.channels + c;
      const int64_t from = g.source(t, c, 1), to = g.source(t, c, -1);
      const S shifted = from < 0 ? S(0) : static_cast<S>(x[(item + from) * g.channels + c]);
      const S difference = static_cast<S>(x[at]) - shifted;
      S total = 0;
      for (int m = 0; m < kMixes; ++m) {
        const S w = mixes[m * g.channels + c];
        const S own = static_cast<S>(gy.p[m][at]);
        total += own * w;
        if (to >= 0) total += static_cast<S>(gy.p[m][(item + to) * g.channels + c]) * (S(1) - w);
        sum[m] += own * difference;
      }
      gx[at] = static_cast<T>(total);
    }
  }
  for (int m = 0; m < kMixes; ++m) sums[threadIdx.y][m][threadIdx.x] = sum[m];
  __syncthreads();
  if (threadIdx.y != 0 || c >= g.channels) return;
  for (int m = 0; m < kMixes; ++m) {
    S total = 0;
    for (int i = 0; i < kTileWarps; ++i) total += sums[i][m][threadIdx.x];
    partial[(tile * kMixes + m) * g.channels + c] = total;
  }
}

dim3 grid_of(int64_t blocks) {
  TORCH_CHECK(blocks < (int64_t{1} << 31), "q_shift: input too large for one launch");
  return dim3(static_cast<unsigned>(blocks));
}
dim3 element_grid(int64_t elements) {
  return grid_of((elements + kThreads - 1) / kThreads);
}

template <class Bits>
void launch_shift(const Geometry& g, const at::Tensor& x, at::Tensor& y, cudaStream_t stream) {
  launch({element_grid(x.numel()), kThreads, stream},
         shift_kernel<Bits>,
         g,
         static_cast<const Bits*>(x.const_data_ptr()),
         static_cast<Bits*>(y.mutable_data_ptr()),
         x.numel());
}

at::Tensor q_shift_cuda(const at::Tensor& x_in,
                        int64_t height,
                        int64_t width,
                        int64_t pixels,
                        double gamma,
                        int64_t head_dim,
                        bool class_token,
                        bool adjoint) {
  const QShift shift{pixels, gamma, head_dim, class_token};
  check_q_shift(x_in, height, width, shift);
  shift_segments(x_in.size(2), shift);  // its checks
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  Geometry g = geometry_of(x, height, width, shift);
  if (adjoint) g.pixels = -g.pixels;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  switch (x.element_size()) {
    case 2:
      launch_shift<uint16_t>(g, x, y, stream);
      break;
    case 4:
      launch_shift<uint32_t>(g, x, y, stream);
      break;
    default:
      launch_shift<uint64_t>(g, x, y, stream);
      break;
  }
  return y;
}

/// Calls body(std::integral_constant<int, mixes>).
template <class Body>
void with_count(int64_t mixes, const Body& body) {
  switch (mixes) {
    case 1:
      return body(std::integral_constant<int, 1>{});
    case 2:
      return body(std::integral_constant<int, 2>{});
    case 3:
      return body(std::integral_constant<int, 3>{});
    case 4:
      return body(std::integral_constant<int, 4>{});
    default:
      return body(std::integral_constant<int, 5>{});
  }
}

template <class T>
void launch_mix_forward(const Geometry& g,
                        const at::Tensor& x,
                        const at::Tensor& mixes,
                        std::vector<at::Tensor>& out,
                        cudaStream_t stream) {
  using S = at::opmath_type<T>;
  with_count(mixes.size(0), [&](auto count) {
    constexpr int kMixes = decltype(count)::value;
    Pointers<T, kMixes> to;
    for (int m = 0; m < kMixes; ++m) to.p[m] = out[m].mutable_data_ptr<T>();
    launch({element_grid(x.numel()), kThreads, stream},
           mix_forward_kernel<T, S, kMixes>,
           g,
           x.const_data_ptr<T>(),
           mixes.const_data_ptr<S>(),
           to,
           x.numel());
  });
}

std::vector<at::Tensor> q_shift_mix_cuda(const at::Tensor& x_in,
                                         const at::Tensor& mixes_in,
                                         int64_t height,
                                         int64_t width,
                                         int64_t pixels,
                                         double gamma,
                                         int64_t head_dim,
                                         bool class_token) {
  const QShift shift{pixels, gamma, head_dim, class_token};
  check_q_shift_mix(x_in, mixes_in, height, width, shift);
  shift_segments(x_in.size(2), shift);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), mixes = mixes_in.contiguous();
  std::vector<at::Tensor> out;
  for (int64_t m = 0; m < mixes.size(0); ++m) out.push_back(at::empty(x.sizes(), x.options()));
  if (x.numel() == 0) return out;
  const Geometry g = geometry_of(x, height, width, shift);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "q_shift_mix", [&] {
    launch_mix_forward<scalar_t>(g, x, mixes, out, stream);
  });
  return out;
}

template <class T>
void launch_mix_backward(const Geometry& g,
                         const at::Tensor& x,
                         const at::Tensor& mixes,
                         const std::vector<at::Tensor>& gys,
                         at::Tensor& gx,
                         at::Tensor& gmixes,
                         cudaStream_t stream) {
  using S = at::opmath_type<T>;
  const int64_t tiles = x.size(0) * ((g.tokens + kTokensPerTile - 1) / kTokensPerTile);
  at::Tensor partial = at::empty({tiles, mixes.numel()}, mixes.options());
  with_count(mixes.size(0), [&](auto count) {
    constexpr int kMixes = decltype(count)::value;
    Pointers<const T, kMixes> gy;
    for (int m = 0; m < kMixes; ++m) gy.p[m] = gys[m].const_data_ptr<T>();
    launch({grid_of(tiles * ((g.channels + 31) / 32)), dim3(32, kTileWarps), stream},
           mix_backward_kernel<T, S, kMixes>,
           g,
           x.const_data_ptr<T>(),
           mixes.const_data_ptr<S>(),
           gy,
           gx.mutable_data_ptr<T>(),
           partial.mutable_data_ptr<S>());
  });
  sum_rows(partial.const_data_ptr<S>(), gmixes.mutable_data_ptr<S>(), tiles, mixes.numel(), stream);
}

std::tuple<at::Tensor, at::Tensor> q_shift_mix_backward_cuda(const at::Tensor& x_in,
                                                             const at::Tensor& mixes_in,
                                                             at::TensorList gys_in,
                                                             int64_t height,
                                                             int64_t width,
                                                             int64_t pixels,
                                                             double gamma,
                                                             int64_t head_dim,
                                                             bool class_token) {
  const QShift shift{pixels, gamma, head_dim, class_token};
  check_q_shift_mix(x_in, mixes_in, height, width, shift);
  shift_segments(x_in.size(2), shift);
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = x_in.contiguous(), mixes = mixes_in.contiguous();
  const std::vector<at::Tensor> gys = checked_gradients(x, mixes, gys_in);
  at::Tensor gx = at::empty(x.sizes(), x.options());
  at::Tensor gmixes = at::zeros(mixes.sizes(), mixes.options());
  if (x.numel() == 0) return {gx, gmixes};
  const Geometry g = geometry_of(x, height, width, shift);
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, x.scalar_type(), "q_shift_mix_backward", [&] {
        launch_mix_backward<scalar_t>(g, x, mixes, gys, gx, gmixes, stream);
      });
  return {gx, gmixes};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CUDA, library) {
  library.impl("q_shift", q_shift_cuda);
  library.impl("q_shift_mix", q_shift_mix_cuda);
  library.impl("q_shift_mix_backward", q_shift_mix_backward_cuda);
}

}  // namespace vireo
