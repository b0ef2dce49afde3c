#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include "kernels/bi_wkv/bi_wkv_ops.h"
#include "kernels/bi_wkv/bi_wkv_problem.cuh"
#include "kernels/bi_wkv/bi_wkv_published.h"
#include "kernels/bi_wkv/bi_wkv_tiles.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_shared.cuh"
#include "kernels/cuda_sums.cuh"

// Rows are held whole (bi_wkv_tiles.cuh) by one CTA up to kTileWarps blocks of tokens, from sm_90
// on by a cluster of up to kLargestCluster. Beyond: the stages of bi_wkv_blocks.h as separate
// kernels, blocks of tokens in parallel.
namespace vireo {
namespace {

constexpr int kStageWarps = 8;
constexpr int kCarryWarps = 32;

// ---- Stages over any number of tokens: ends [batch, blocks, channels]. ----

/// Which item, block of tokens and channel a thread of a stage has; false beyond the end.
/// Grid (batch * tiles * ceil(blocks / kStageWarps)), block (32, kStageWarps).
template <class T>
__device__ bool place(const Problem<T>& p, int64_t& b, int64_t& j, int64_t& c) {
  const int64_t groups = (p.blocks() + kStageWarps - 1) / kStageWarps;
  c = blockIdx.x % p.tiles() * 32 + threadIdx.x;
  j = blockIdx.x / p.tiles() % groups * kStageWarps + threadIdx.y;
  b = blockIdx.x / p.tiles() / groups;
  return c < p.channels && j < p.blocks();
}

template <class T>
__device__ int64_t slot(const Problem<T>& p, int64_t b, int64_t j, int64_t c) {
  return (b * p.blocks() + j) * p.channels + c;
}

template <class T>
__global__ void __launch_bounds__(32 * kStageWarps)
    stage_summarise(Problem<T> p, Ends<typename Problem<T>::S>* ends) {
  int64_t b, j, c;
  if (place(p, b, j, c)) ends[slot(p, b, j, c)] = key_ends(p, p.read(b, j, c), c);
}

/// Grid (batch * tiles), block (32, kCarryWarps).
template <class T>
__global__ void __launch_bounds__(32 * kCarryWarps)
    stage_carry(Problem<T> p, Ends<typename Problem<T>::S>* ends) {
  using S = typename Problem<T>::S;
  auto& sums = shared<Ends<S>[kCarryWarps][32]>();
  const int64_t b = blockIdx.x / p.tiles();
  const int64_t c = blockIdx.x % p.tiles() * 32 + threadIdx.x;
  const int g = static_cast<int>(threadIdx.y);
  const bool active = c < p.channels;
  const CarryPlan<S> plan(active ? p.w[c] : S(0), p.tokens, kCarryWarps);
  const auto own = [&](int64_t j) { return ends[slot(p, b, j, c)]; };
  if (active) sums[g][threadIdx.x] = sum_group(plan, g, own);
  __syncthreads();
  if (!active) return;
  walk_group(
      plan,
      g,
      entering_group(plan, g, [&](int i) { return sums[i][threadIdx.x]; }),
      own,
      [&](int64_t j, const State<S>& left) { ends[slot(p, b, j, c)].left = left; },
      [&](int64_t j, const State<S>& right) { ends[slot(p, b, j, c)].right = right; });
}

template <class T>
__global__ void __launch_bounds__(32 * kStageWarps)
    stage_forward(Problem<T> p, const Ends<typename Problem<T>::S>* entering, T* y) {
  int64_t b, j, c;
  if (place(p, b, j, c))
    write_y(p, p.read(b, j, c), entering[slot(p, b, j, c)], p.first(b, j, c), c, y);
}

template <class T>
__global__ void __launch_bounds__(32 * kStageWarps)
    stage_grad_summarise(Problem<T> p,
                         const Ends<typename Problem<T>::S>* entering,
                         Ends<typename Problem<T>::S>* gends) {
  int64_t b, j, c;
  if (!place(p, b, j, c)) return;
  const int64_t at = slot(p, b, j, c);
  gends[at] = gradient_ends(p, p.read(b, j, c), entering[at], p.first(b, j, c), c);
}

/// shares [batch * blocks, 2, channels].
template <class T>
__global__ void __launch_bounds__(32 * kStageWarps)
    stage_backward(Problem<T> p,
                   const Ends<typename Problem<T>::S>* entering,
                   const Ends<typename Problem<T>::S>* gentering,
                   T* gk,
                   T* gv,
                   typename Problem<T>::S* shares) {
  int64_t b, j, c;
  if (!place(p, b, j, c)) return;
  const int64_t at = slot(p, b, j, c);
  const auto share =
      write_gradients(p, p.read(b, j, c), entering[at], gentering[at], p.first(b, j, c), c, gk, gv);
  const int64_t row = 2 * (b * p.blocks() + j);
  shares[row * p.channels + c] = share.w;
  shares[(row + 1) * p.channels + c] = share.u;
}

/// One thread per row.
template <class T>
__global__ void published_forward(Problem<T> p, T* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.batch * p.channels) return;
  const int64_t c = i % p.channels, at = p.first(i / p.channels, 0, c);
  published_row(
      static_cast<double>(p.w[c]),
      static_cast<double>(p.u[c]),
      p.tokens,
      [&](int64_t t) { return static_cast<double>(p.k[at + t * p.channels]); },
      [&](int64_t t) { return static_cast<double>(p.v[at + t * p.channels]); },
      [&](int64_t t, double value) { y[at + t * p.channels] = static_cast<T>(value); });
}

// ---- Host ----

/// Contiguous inputs, alive as long as their Problem is in use.
struct Inputs {
  at::Tensor w, u, k, v, gy;

  Inputs(const at::Tensor& w_in,
         const at::Tensor& u_in,
         const at::Tensor& k_in,
         const at::Tensor& v_in,
         const at::Tensor& gy_in) {
    const at::ScalarType state = k_in.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    w = w_in.to(state).contiguous();
    u = u_in.to(state).contiguous();
    k = k_in.contiguous();
    v = v_in.contiguous();
    if (gy_in.defined()) gy = gy_in.to(k.scalar_type()).contiguous();
  }

  template <class T>
  Problem<T> problem() const {
    using S = at::opmath_type<T>;
    return {w.const_data_ptr<S>(),
            u.const_data_ptr<S>(),
            k.const_data_ptr<T>(),
            v.const_data_ptr<T>(),
            gy.defined() ? gy.const_data_ptr<T>() : nullptr,
            k.size(0),
            k.size(1),
            k.size(2)};
  }
};

dim3 grid_of(int64_t blocks) {
  TORCH_CHECK(blocks < (int64_t{1} << 31), "bi_wkv: input too large for one launch");
  return dim3(static_cast<unsigned>(blocks));
}

/// Rows whole, `size` CTAs hold each.
template <class T>
LaunchPlan whole_rows(const Problem<T>& p, int size, cudaStream_t stream) {
  LaunchPlan plan{grid_of(p.batch * p.tiles() * size),
                  dim3(32, static_cast<unsigned>((p.blocks() + size - 1) / size)),
                  stream};
  plan.cluster = static_cast<unsigned>(size);
  return plan;
}

/// How many CTAs hold a row of p, with `kernel` where they are more than one; 0: it takes the
/// stages.
template <class T, class Kernel>
int cluster_of(const Problem<T>& p, Kernel* kernel, cudaStream_t stream) {
  const bool clusters = device_attribute(cudaDevAttrComputeCapabilityMajor) >= 9;
  const int size = cluster_for(p.blocks(), kTileWarps, clusters ? kLargestCluster : 1);
  // Larger ones need as many processors close to each other as not every GPU has free.
  const bool fits = size <= static_cast<int>(kPortableCluster) ||
                    cluster_fits(whole_rows(p, size, stream), kernel);
  return fits ? size : 0;
}

template <class T>
LaunchPlan stage(const Problem<T>& p, cudaStream_t stream) {
  return {grid_of(p.batch * p.tiles() * ((p.blocks() + kStageWarps - 1) / kStageWarps)),
          dim3(32, kStageWarps),
          stream};
}

template <class T>
void carry(const Problem<T>& p, Ends<typename Problem<T>::S>* ends, cudaStream_t stream) {
  launch({grid_of(p.batch * p.tiles()), dim3(32, kCarryWarps), stream}, stage_carry<T>, p, ends);
}

template <class S>
at::Tensor ends_like(const at::Tensor& k, int64_t blocks) {
  return at::empty({k.size(0) * blocks * k.size(2) * static_cast<int64_t>(sizeof(Ends<S>))},
                   k.options().dtype(at::kByte));
}
template <class S>
Ends<S>* ends_in(at::Tensor& bytes) {
  return static_cast<Ends<S>*>(bytes.mutable_data_ptr());
}

/// Stages 1 and 2.
template <class T>
void enter_keys(const Problem<T>& p, Ends<typename Problem<T>::S>* ends, cudaStream_t stream) {
  launch(stage(p, stream), stage_summarise<T>, p, ends);
  carry(p, ends, stream);
}

at::Tensor bi_wkv_cuda(const at::Tensor& w,
                       const at::Tensor& u,
                       const at::Tensor& k,
                       const at::Tensor& v) {
  check_bi_wkv(w, u, k, v);
  const c10::cuda::CUDAGuard guard(k.device());
  const Inputs in(w, u, k, v, {});
  at::Tensor y = at::empty(k.sizes(), in.k.options());
  if (y.numel() == 0) return y;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv", [&] {
    using S = at::opmath_type<scalar_t>;
    const Problem<scalar_t> p = in.problem<scalar_t>();
    scalar_t* out = y.mutable_data_ptr<scalar_t>();
    const int size = cluster_of(p, cluster_forward<scalar_t>, stream);
    if (size == 1) {
      launch(whole_rows(p, size, stream), tile_forward<scalar_t>, p, out);
    } else if (size > 1) {
      launch(whole_rows(p, size, stream), cluster_forward<scalar_t>, p, out);
    } else {
      at::Tensor bytes = ends_like<S>(in.k, p.blocks());
      enter_keys(p, ends_in<S>(bytes), stream);
      launch(stage(p, stream), stage_forward<scalar_t>, p, ends_in<S>(bytes), out);
    }
  });
  return y;
}

BiWkvGradients bi_wkv_backward_cuda(const at::Tensor& w,
                                    const at::Tensor& u,
                                    const at::Tensor& k,
                                    const at::Tensor& v,
                                    const at::Tensor& gy) {
  check_bi_wkv(w, u, k, v);
  TORCH_CHECK(gy.sizes() == k.sizes(),
              "bi_wkv: gy must have k's shape ",
              k.sizes(),
              ", found ",
              gy.sizes());
  const c10::cuda::CUDAGuard guard(k.device());
  const Inputs in(w, u, k, v, gy);
  at::Tensor gk = at::empty(k.sizes(), in.k.options()), gv = at::empty(k.sizes(), in.k.options());
  if (gk.numel() == 0) return {at::zeros_like(w), at::zeros_like(u), gk, gv};
  const int64_t channels = k.size(2);
  at::Tensor sums = at::empty({2, channels}, in.w.options());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv_backward", [&] {
        using S = at::opmath_type<scalar_t>;
        const Problem<scalar_t> p = in.problem<scalar_t>();
        scalar_t* to_k = gk.mutable_data_ptr<scalar_t>();
        scalar_t* to_v = gv.mutable_data_ptr<scalar_t>();
        const int size = cluster_of(p, cluster_backward<scalar_t>, stream);
        const int64_t rows = p.batch * (size > 0 ? size : p.blocks());
        at::Tensor shares = at::empty({rows, 2, channels}, in.w.options());
        S* to_shares = shares.mutable_data_ptr<S>();
        if (size == 1) {
          launch(whole_rows(p, size, stream), tile_backward<scalar_t>, p, to_k, to_v, to_shares);
        } else if (size > 1) {
          launch(whole_rows(p, size, stream), cluster_backward<scalar_t>, p, to_k, to_v, to_shares);
        } else {
          at::Tensor bytes = ends_like<S>(in.k, p.blocks()),
                     gbytes = ends_like<S>(in.k, p.blocks());
          Ends<S>* ends = ends_in<S>(bytes);
          Ends<S>* gends = ends_in<S>(gbytes);
          enter_keys(p, ends, stream);
          launch(stage(p, stream), stage_grad_summarise<scalar_t>, p, ends, gends);
          carry(p, gends, stream);
          launch(stage(p, stream), stage_backward<scalar_t>, p, ends, gends, to_k, to_v, to_shares);
        }
        sum_rows(to_shares, sums.mutable_data_ptr<S>(), rows, 2 * channels, stream);
      });
  return {sums[0].to(w.scalar_type()), sums[1].to(u.scalar_type()), gk, gv};
}

at::Tensor bi_wkv_published_cuda(const at::Tensor& w,
                                 const at::Tensor& u,
                                 const at::Tensor& k,
                                 const at::Tensor& v) {
  check_bi_wkv(w, u, k, v);
  const c10::cuda::CUDAGuard guard(k.device());
  const Inputs in(w, u, k, v, {});
  at::Tensor y = at::empty(k.sizes(), in.k.options());
  if (y.numel() == 0) return y;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv_published", [&] {
        const Problem<scalar_t> p = in.problem<scalar_t>();
        launch({grid_of((p.batch * p.channels + 127) / 128), 128, stream},
               published_forward<scalar_t>,
               p,
               y.mutable_data_ptr<scalar_t>());
      });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CUDA, library) {
  library.impl("bi_wkv", bi_wkv_cuda);
  library.impl("bi_wkv_backward", bi_wkv_backward_cuda);
  library.impl("bi_wkv_published", bi_wkv_published_cuda);
}

}  // namespace vireo
