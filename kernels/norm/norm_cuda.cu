#include <algorithm>

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_shared.cuh"
#include "kernels/cuda_sums.cuh"
#include "kernels/norm/norm_blocks.h"
#include "kernels/norm/norm_ops.h"

// norm_blocks.h as kernels. No atomics.
namespace vireo {
namespace {

using namespace norm_blocks;

struct GpuWarp {
  static constexpr int kHeld = 1;

  __device__ int lane(int) const { return static_cast<int>(threadIdx.x) % kLanes; }
  template <class S>
  __device__ S sum(const S (&x)[1]) const {
    S total = x[0];
    for (int mask = kLanes / 2; mask > 0; mask /= 2)
      total += __shfl_xor_sync(0xffffffffu, total, mask);
    return total;
  }
};

struct GpuBlock {
  using Warp = GpuWarp;

  __device__ int warps() const { return static_cast<int>(blockDim.x) / kLanes; }
  __device__ void sync() const { __syncthreads(); }
  template <class Body>
  __device__ void each_warp(const Body& body) const {
    body(GpuWarp{}, static_cast<int>(threadIdx.x) / kLanes);
  }
};

template <bool kNorm, bool kGate, class T, class S>
__global__ void forward_rows_kernel(Rows<T, S> p) {
  GpuBlock{}.each_warp([&](const GpuWarp& warp, int w) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * kMostWarps + w;
    if (row < p.rows) forward_row<kNorm, kGate>(warp, p, row);
  });
}

template <class T, class S>
__global__ void gate_gradients_kernel(Rows<T, S> p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at < p.rows * p.channels) gate_gradients(p, at);
}

/// partial [blocks][2][C]. The block's own sums are in shared memory, or, if there is none, where
/// they go (one warp).
template <bool kGate, class T, class S>
__global__ void backward_rows_kernel(Rows<T, S> p, bool in_shared, S* partial) {
  partial += blockIdx.x * 2 * p.channels;
  backward_rows<kGate>(GpuBlock{},
                       p,
                       static_cast<int64_t>(blockIdx.x) * kRowsPerBlock,
                       in_shared ? dynamic_shared<S>() : partial,
                       partial);
}

template <class T, class S>
__global__ void forward_pixels_kernel(Maps<T, S> p) {
  forward_pixels(GpuBlock{}, p, blockIdx.x, shared<Board<S>>());
}

template <class T, class S>
__global__ void backward_pixels_kernel(Maps<T, S> p, S* partial) {
  backward_pixels(
      GpuBlock{}, p, blockIdx.x, shared<Board<S>>(), partial + blockIdx.x * 2 * p.channels);
}

unsigned blocks_for(int64_t count, int64_t each) {
  const int64_t blocks = (count + each - 1) / each;
  TORCH_CHECK(blocks < (int64_t{1} << 31), "channel_norm: input too large for one launch");
  return static_cast<unsigned>(blocks);
}

/// Whether channels lie side by side.
bool is_rows(const at::Tensor& x) {
  return x.dim() == 3 || x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

template <class T>
const T* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<T>() : nullptr;
}

template <class T, class S = at::opmath_type<T>>
Rows<T, S> rows_of(const at::Tensor& r,
                   const at::Tensor& y,
                   const at::Tensor& weight,
                   const at::Tensor& bias,
                   double eps) {
  Rows<T, S> p{};
  p.channels = y.size(y.dim() == 4 ? 1 : 2);
  p.rows = y.numel() / p.channels;
  p.eps = static_cast<S>(eps);
  p.r = data_of<T>(r);
  p.y = data_of<T>(y);
  p.weight = data_of<S>(weight);
  p.bias = data_of<S>(bias);
  return p;
}

template <class T, class S = at::opmath_type<T>>
Maps<T, S> maps_of(const at::Tensor& x,
                   const at::Tensor& weight,
                   const at::Tensor& bias,
                   double eps) {
  Maps<T, S> p{};
  p.images = x.size(0);
  p.channels = x.size(1);
  p.pixels = x.size(2) * x.size(3);
  p.eps = static_cast<S>(eps);
  p.x = data_of<T>(x);
  p.weight = data_of<S>(weight);
  p.bias = data_of<S>(bias);
  return p;
}

template <bool kNorm, bool kGate, class T, class S>
void launch_forward(const Rows<T, S>& p) {
  launch({blocks_for(p.rows, kMostWarps), kMostWarps * kLanes, c10::cuda::getCurrentCUDAStream()},
         forward_rows_kernel<kNorm, kGate, T, S>,
         p);
}

/// [2,C] from the blocks' rows of it.
template <class S>
at::Tensor total_of(const at::Tensor& partial) {
  at::Tensor total = at::empty({2, partial.size(1) / 2}, partial.options());
  sum_rows(partial.const_data_ptr<S>(),
           total.mutable_data_ptr<S>(),
           partial.size(0),
           partial.size(1),
           c10::cuda::getCurrentCUDAStream());
  return total;
}

/// [2,C]: gradients of weight and bias.
template <bool kGate, class T, class S>
at::Tensor launch_backward(const Rows<T, S>& p, const at::TensorOptions& options) {
  const unsigned blocks = blocks_for(p.rows, kRowsPerBlock);
  at::Tensor partial = at::empty({static_cast<int64_t>(blocks), 2 * p.channels}, options);
  constexpr int64_t kBytes = 48 * 1024;
  const auto bytes_of_warp = static_cast<int64_t>(2 * p.channels * sizeof(S));
  const int64_t warps = std::clamp<int64_t>(kBytes / bytes_of_warp, 1, kMostWarps);
  const bool in_shared = warps * bytes_of_warp <= kBytes;
  launch({blocks,
          static_cast<unsigned>(warps * kLanes),
          c10::cuda::getCurrentCUDAStream(),
          in_shared ? warps * bytes_of_warp : 0},
         backward_rows_kernel<kGate, T, S>,
         p,
         in_shared,
         partial.mutable_data_ptr<S>());
  return total_of<S>(partial);
}

at::Tensor channel_norm_cuda(const at::Tensor& x_in,
                             const at::Tensor& weight,
                             const at::Tensor& bias,
                             double eps) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = norm_input(x_in);
  at::Tensor out = at::empty_like(x);
  if (x.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "channel_norm", [&] {
    if (is_rows(x)) {
      auto p = rows_of<scalar_t>({}, x, weight, bias, eps);
      p.out = out.mutable_data_ptr<scalar_t>();
      launch_forward</*kNorm=*/true, /*kGate=*/false>(p);
    } else {
      auto p = maps_of<scalar_t>(x, weight, bias, eps);
      p.out = out.mutable_data_ptr<scalar_t>();
      launch({blocks_for(p.images * p.tiles(), 1),
              kMostWarps * kLanes,
              c10::cuda::getCurrentCUDAStream()},
             forward_pixels_kernel<scalar_t, at::opmath_type<scalar_t>>,
             p);
    }
  });
  return out;
}

NormGradients channel_norm_backward_cuda(const at::Tensor& x_in,
                                         const at::Tensor& weight,
                                         const at::Tensor& gout_in,
                                         double eps) {
  const c10::cuda::CUDAGuard guard(x_in.device());
  const at::Tensor x = norm_input(x_in), gout = norm_gradient(x, gout_in);
  at::Tensor gx = at::empty_like(x), sums = at::zeros({2, weight.size(0)}, weight.options());
  if (x.numel() == 0) return {gx, sums[0], sums[1]};
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, x.scalar_type(), "channel_norm_backward", [&] {
        using S = at::opmath_type<scalar_t>;
        if (is_rows(x)) {
          auto p = rows_of<scalar_t>({}, x, weight, weight, eps);
          p.gout = gout.const_data_ptr<scalar_t>();
          p.gy = gx.mutable_data_ptr<scalar_t>();
          sums = launch_backward</*kGate=*/false>(p, weight.options());
        } else {
          auto p = maps_of<scalar_t>(x, weight, weight, eps);
          p.gout = gout.const_data_ptr<scalar_t>();
          p.gx = gx.mutable_data_ptr<scalar_t>();
          const unsigned blocks = blocks_for(p.images * p.tiles(), 1);
          at::Tensor partial =
              at::empty({static_cast<int64_t>(blocks), 2 * p.channels}, weight.options());
          launch({blocks, kMostWarps * kLanes, c10::cuda::getCurrentCUDAStream()},
                 backward_pixels_kernel<scalar_t, S>,
                 p,
                 partial.mutable_data_ptr<S>());
          sums = total_of<S>(partial);
        }
      });
  return {gx, sums[0], sums[1]};
}

at::Tensor gate_cuda(const at::Tensor& r_in,
                     const at::Tensor& y_in,
                     const std::optional<at::Tensor>& weight,
                     const std::optional<at::Tensor>& bias,
                     double eps) {
  const c10::cuda::CUDAGuard guard(y_in.device());
  const at::Tensor r = r_in.contiguous(), y = y_in.contiguous();
  at::Tensor out = at::empty_like(y);
  if (y.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, y.scalar_type(), "gate", [&] {
    auto p =
        rows_of<scalar_t>(r, y, weight.value_or(at::Tensor()), bias.value_or(at::Tensor()), eps);
    p.out = out.mutable_data_ptr<scalar_t>();
    if (weight)
      launch_forward</*kNorm=*/true, /*kGate=*/true>(p);
    else
      launch_forward</*kNorm=*/false, /*kGate=*/true>(p);
  });
  return out;
}

GateGradients gate_backward_cuda(const at::Tensor& r_in,
                                 const at::Tensor& y_in,
                                 const std::optional<at::Tensor>& weight,
                                 const std::optional<at::Tensor>& bias,
                                 const at::Tensor& gout_in,
                                 double eps) {
  const c10::cuda::CUDAGuard guard(y_in.device());
  const at::Tensor r = r_in.contiguous(), y = y_in.contiguous(), gout = norm_gradient(y, gout_in);
  at::Tensor gr = at::empty_like(r), gy = at::empty_like(y);
  at::Tensor sums =
      at::zeros({2, weight ? weight->size(0) : 0}, y.options().dtype(norm_state_type(y)));
  if (y.numel() == 0) return {gr, gy, sums[0], sums[1]};
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, y.scalar_type(), "gate_backward", [&] {
    auto p =
        rows_of<scalar_t>(r, y, weight.value_or(at::Tensor()), bias.value_or(at::Tensor()), eps);
    p.gout = gout.const_data_ptr<scalar_t>();
    p.gr = gr.mutable_data_ptr<scalar_t>();
    p.gy = gy.mutable_data_ptr<scalar_t>();
    if (weight) {
      sums = launch_backward</*kGate=*/true>(p, weight->options());
      return;
    }
    constexpr int kThreads = 256;
    launch({blocks_for(y.numel(), kThreads), kThreads, c10::cuda::getCurrentCUDAStream()},
           gate_gradients_kernel<scalar_t, at::opmath_type<scalar_t>>,
           p);
  });
  return {gr, gy, sums[0], sums[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CUDA, library) {
  library.impl("channel_norm", channel_norm_cuda);
  library.impl("channel_norm_backward", channel_norm_backward_cuda);
  library.impl("gate", gate_cuda);
  library.impl("gate_backward", gate_backward_cuda);
}

}  // namespace vireo
