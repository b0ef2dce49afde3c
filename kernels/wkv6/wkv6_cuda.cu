#include <algorithm>

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_shared.cuh"
#include "kernels/cuda_sums.cuh"
#include "kernels/wkv6/wkv6_blocks.h"
#include "kernels/wkv6/wkv6_cuda.h"
#include "kernels/wkv6/wkv6_ops.h"

// The stages of wkv6_blocks.h as kernels, a block of threads per chunk of tokens of one head, for
// what wkv6_mma.cu does not take. No atomics.
namespace vireo {
namespace {

using namespace wkv6_math;

unsigned grid_of(int64_t blocks) {
  TORCH_CHECK(blocks < (int64_t{1} << 31), "wkv6: input too large for one launch");
  return static_cast<unsigned>(blocks);
}

struct Block {
  __device__ int rank() const { return static_cast<int>(threadIdx.x); }
  __device__ int size() const { return static_cast<int>(blockDim.x); }
  __device__ void sync() const { __syncthreads(); }
};

template <class T, class S>
__device__ Place place_of(const Problem<T, S>& p, bool from_left) {
  const int64_t block = blockIdx.x;
  return {block / p.chunks(), block % p.chunks(), from_left};
}

/// A chunk's [N][N] among [rows][chunks][N][N].
template <class T, class S>
__device__ int64_t state_offset(const Problem<T, S>& p, const Place& place) {
  return (place.row * p.chunks() + place.chunk) * p.head * p.head;
}

template <class T, class S>
__global__ void summarise_kernel(
    Problem<T, S> p, bool from_left, bool gradient, S* states, S* less_one) {
  const Place place = place_of(p, from_left);
  summarise_chunk(Block{},
                  p,
                  place,
                  gradient,
                  Tile<S>(dynamic_shared<S>(), p.head, /*backward=*/false),
                  states + state_offset(p, place),
                  less_one + (place.row * p.chunks() + place.chunk) * p.head);
}

template <class S>
__global__ void carry_kernel(
    int64_t rows, int64_t chunks, int head, bool from_left, S* states, const S* less_one) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t numbers = static_cast<int64_t>(head) * head, row = i / numbers;
  if (row >= rows) return;
  carry_number(chunks,
               head,
               from_left,
               static_cast<int>(i % numbers / head),
               static_cast<int>(i % head),
               states + row * chunks * numbers,
               less_one + row * chunks * head);
}

template <class T, class S>
__global__ void forward_kernel(Problem<T, S> p, bool from_left, const S* states, S* y) {
  const Place place = place_of(p, from_left);
  forward_chunk(Block{},
                p,
                place,
                states + state_offset(p, place),
                Tile<S>(dynamic_shared<S>(), p.head, /*backward=*/false),
                y);
}

template <class T, class S>
__global__ void backward_kernel(
    Problem<T, S> p, bool from_left, const S* states, const S* gradient_states, Gradients<S> to) {
  const Place place = place_of(p, from_left);
  backward_chunk(Block{},
                 p,
                 place,
                 states + state_offset(p, place),
                 gradient_states + state_offset(p, place),
                 Tile<S>(dynamic_shared<S>(), p.head, /*backward=*/true),
                 to);
}

/// Contiguous, at an address from which two neighbours can be read as one word.
at::Tensor in_words(const at::Tensor& x) {
  const at::Tensor y = x.contiguous();
  const auto address = reinterpret_cast<uintptr_t>(y.const_data_ptr());
  return address % (2 * y.element_size()) == 0 ? y : y.clone();
}

template <class W, class S>
__global__ void log_decay_kernel(const W* w, S* log_decay, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const S x = static_cast<S>(w[i]), most = static_cast<S>(kWkv6LargestW);
  log_decay[i] = -::exp(x > most ? most : x);
}

/// wkv6_log_decay() in one pass.
at::Tensor log_decay_of(const at::Tensor& w_in, const at::Tensor& k) {
  const at::Tensor w = w_in.contiguous();
  const at::ScalarType state = k.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor log_decay = at::empty(w.sizes(), w.options().dtype(state));
  const int64_t count = w.numel();
  if (count == 0) return log_decay;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, w.scalar_type(), "wkv6", [&] {
    using W = scalar_t;
    AT_DISPATCH_FLOATING_TYPES(state, "wkv6", [&] {
      launch({grid_of((count + 255) / 256), 256, c10::cuda::getCurrentCUDAStream()},
             log_decay_kernel<W, scalar_t>,
             w.const_data_ptr<W>(),
             log_decay.mutable_data_ptr<scalar_t>(),
             count);
    });
  });
  return log_decay;
}

/// Kernels over all chunks of all rows.
struct ByChunks : Wkv6Inputs {
  using Wkv6Inputs::Wkv6Inputs;

  template <class T, class S, class Kernel, class... Arguments>
  void over_chunks(const Problem<T, S>& p,
                   Kernel* kernel,
                   bool backward,
                   const Arguments&... arguments) const {
    const int threads = std::clamp((kChunk / kTogether * p.head + 31) / 32 * 32, 64, 256);
    const auto bytes = Tile<S>::size(p.head, backward) * static_cast<int64_t>(sizeof(S));
    launch({grid_of(p.rows * p.chunks()), static_cast<unsigned>(threads), stream, bytes},
           kernel,
           p,
           arguments...);
  }

  /// [rows][chunks][N][N]: the states that enter every chunk, of k and v, or of r and gy.
  template <class T, class S>
  at::Tensor states(const Problem<T, S>& p, bool from_left, bool gradient) const {
    at::Tensor states = at::empty({p.rows * p.chunks(), p.head, p.head}, log_decay.options());
    at::Tensor less_one = at::empty({p.rows * p.chunks(), p.head}, log_decay.options());
    over_chunks(p,
                summarise_kernel<T, S>,
                /*backward=*/false,
                from_left,
                gradient,
                states.mutable_data_ptr<S>(),
                less_one.mutable_data_ptr<S>());
    carry_wkv6_states(p.rows, from_left, states, less_one, stream);
    return states;
  }
};

at::Tensor wkv6_cuda(const at::Tensor& r,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const at::Tensor& w,
                     const at::Tensor& u,
                     bool causal) {
  check_wkv6(r, k, v, w, u);
  const c10::cuda::CUDAGuard guard(k.device());
  const ByChunks in(r, k, v, w, u, {});
  if (k.numel() == 0) return at::empty(k.sizes(), in.k.options());
  if (const auto y = wkv6_by_tiles(in, causal)) return *y;
  at::Tensor y = at::empty_like(in.log_decay);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, k.scalar_type(), "wkv6", [&] {
    using S = at::opmath_type<scalar_t>;
    const auto p = in.problem<scalar_t, S>();
    for (const bool from_left : {true, false}) {
      if (causal && !from_left) continue;
      const at::Tensor states = in.states(p, from_left, /*gradient=*/false);
      in.over_chunks(p,
                     forward_kernel<scalar_t, S>,
                     /*backward=*/false,
                     from_left,
                     states.const_data_ptr<S>(),
                     y.mutable_data_ptr<S>());
    }
  });
  return y.to(k.scalar_type());
}

Wkv6Gradients wkv6_backward_cuda(const at::Tensor& r,
                                 const at::Tensor& k,
                                 const at::Tensor& v,
                                 const at::Tensor& w,
                                 const at::Tensor& u,
                                 const at::Tensor& gy,
                                 bool causal) {
  check_wkv6(r, k, v, w, u);
  check_wkv6_gradient(k, gy);
  const c10::cuda::CUDAGuard guard(k.device());
  const ByChunks in(r, k, v, w, u, gy);
  const at::ScalarType type = k.scalar_type();
  if (k.numel() == 0)
    return {at::empty_like(k),
            at::empty_like(k),
            at::empty_like(k),
            at::zeros_like(w),
            at::zeros_like(u)};
  if (auto g = wkv6_backward_by_tiles(in, causal)) {
    std::get<3>(*g) = wkv6_gw(std::get<3>(*g), in.log_decay, w);
    std::get<4>(*g) = std::get<4>(*g).to(u.scalar_type());
    return *g;
  }
  const auto like = [&] { return at::empty_like(in.log_decay); };
  at::Tensor gr = like(), gk = like(), gv = like(), g_log_decay = like();
  at::Tensor gu;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, type, "wkv6_backward", [&] {
    using S = at::opmath_type<scalar_t>;
    const auto p = in.problem<scalar_t, S>();
    at::Tensor shares = at::empty({k.size(0), u.size(0), p.chunks(), u.size(1)}, in.u.options());
    const Gradients<S> to{gr.mutable_data_ptr<S>(),
                          gk.mutable_data_ptr<S>(),
                          gv.mutable_data_ptr<S>(),
                          g_log_decay.mutable_data_ptr<S>(),
                          shares.mutable_data_ptr<S>()};
    for (const bool from_left : {true, false}) {
      if (causal && !from_left) continue;
      const at::Tensor states = in.states(p, from_left, /*gradient=*/false);
      const at::Tensor gradient_states = in.states(p, !from_left, /*gradient=*/true);
      in.over_chunks(p,
                     backward_kernel<scalar_t, S>,
                     /*backward=*/true,
                     from_left,
                     states.const_data_ptr<S>(),
                     gradient_states.const_data_ptr<S>(),
                     to);
    }
    gu = sum_wkv6_shares(shares, in.stream);
  });
  return {gr.to(type),
          gk.to(type),
          gv.to(type),
          wkv6_gw(g_log_decay, in.log_decay, w),
          gu.to(u.scalar_type())};
}

}  // namespace

Wkv6Inputs::Wkv6Inputs(const at::Tensor& r_in,
                       const at::Tensor& k_in,
                       const at::Tensor& v_in,
                       const at::Tensor& w_in,
                       const at::Tensor& u_in,
                       const at::Tensor& gy_in)
    : r(in_words(r_in)),
      k(in_words(k_in)),
      v(in_words(v_in)),
      log_decay(log_decay_of(w_in, k_in)),
      u(u_in.to(log_decay.scalar_type()).contiguous()),
      stream(c10::cuda::getCurrentCUDAStream()) {
  if (gy_in.defined()) gy = in_words(gy_in.to(k.scalar_type()));
}

void carry_wkv6_states(int64_t rows,
                       bool from_left,
                       at::Tensor& states,
                       const at::Tensor& less_one,
                       cudaStream_t stream) {
  const int64_t head = less_one.size(-1), numbers = rows * head * head;
  AT_DISPATCH_FLOATING_TYPES(states.scalar_type(), "wkv6", [&] {
    launch({grid_of((numbers + 127) / 128), 128, stream},
           carry_kernel<scalar_t>,
           rows,
           less_one.numel() / (rows * head),
           static_cast<int>(head),
           from_left,
           states.mutable_data_ptr<scalar_t>(),
           less_one.const_data_ptr<scalar_t>());
  });
}

at::Tensor sum_wkv6_shares(const at::Tensor& shares, cudaStream_t stream) {
  at::Tensor gu = at::empty({shares.size(1), shares.size(3)}, shares.options());
  const at::Tensor rows = shares.transpose(1, 2).contiguous();
  AT_DISPATCH_FLOATING_TYPES(gu.scalar_type(), "wkv6_backward", [&] {
    sum_rows(rows.const_data_ptr<scalar_t>(),
             gu.mutable_data_ptr<scalar_t>(),
             rows.size(0) * rows.size(1),
             gu.numel(),
             stream);
  });
  return gu;
}

TORCH_LIBRARY_IMPL(vireo, CUDA, library) {
  library.impl("wkv6", wkv6_cuda);
  library.impl("wkv6_backward", wkv6_backward_cuda);
}

}  // namespace vireo
