#include <type_traits>

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/core/Tensor.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <cooperative_groups.h>
#include <torch/library.h>

#include "kernels/bi_wkv/bi_wkv_blocks.h"
#include "kernels/bi_wkv/bi_wkv_ops.h"
#include "kernels/bi_wkv/bi_wkv_published.h"
#include "kernels/cuda_sums.cuh"

// Lanes of a warp are neighbouring channels; each thread owns one block of kBlock tokens.
//
// A row's 32 channels are held whole, one warp per block of tokens, so that everything is read
// once: by one CTA up to kTileTokens tokens, from sm_90 on by a cluster of up to kLargestCluster.
// Beyond: the stages of bi_wkv_blocks.h as separate kernels, blocks of tokens in parallel.
namespace vireo {
namespace {

using namespace wkv;

constexpr int kTileWarps = 16;
constexpr int kLargestCluster = 16, kPortableCluster = 8;
constexpr int kStageWarps = 8;
constexpr int kCarryWarps = 32;

/// Everything contiguous, [B,T,C]; w, u [C].
template <class T>
struct Problem {
  using S = at::opmath_type<T>;
  const S* w;
  const S* u;
  const T* k;
  const T* v;
  const T* gy;
  int64_t batch;
  int64_t tokens;
  int64_t channels;

  C10_HOST_DEVICE int64_t blocks() const { return (tokens + kBlock - 1) / kBlock; }
  C10_HOST_DEVICE int64_t tiles() const { return (channels + 31) / 32; }

  __device__ int64_t first(int64_t b, int64_t j, int64_t c) const {
    return (b * tokens + j * kBlock) * channels + c;
  }
  __device__ int count(int64_t j) const {
    const int64_t left = tokens - j * kBlock;
    return left < kBlock ? static_cast<int>(left) : kBlock;
  }
  __device__ Block<S> read(int64_t b, int64_t j, int64_t c) const {
    const int64_t at = first(b, j, c);
    Block<S> block;
    block.read(
        count(j),
        [&](int i) { return static_cast<S>(k[at + i * channels]); },
        [&](int i) { return static_cast<S>(v[at + i * channels]); });
    return block;
  }
};

/// One Ends per warp and lane, without the constructor that shared memory may not have.
template <class S, int kWarps>
struct EndsMemory {
  alignas(16) unsigned char bytes[kWarps * 32 * sizeof(Ends<S>)];
  __device__ Ends<S> (*ends())[32] { return reinterpret_cast<Ends<S>(*)[32]>(bytes); }
};

/// Calls body(std::bool_constant<wide>) as this channel's decay asks.
template <class T, class Body>
__device__ void with_way(const Problem<T>& p, int64_t c, const Body& body) {
  if (row_is_safe(static_cast<double>(p.w[c]), static_cast<double>(p.u[c]), p.tokens))
    body(std::false_type{});
  else
    body(std::true_type{});
}

template <class T, class S>
__device__ Ends<S> key_ends(const Problem<T>& p, const Block<S>& block, int64_t c) {
  Ends<S> ends;
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    ends = summarise_keys<kWide>(block, channel_of<kWide>(p.w[c], p.u[c], p.tokens));
  });
  return ends;
}

template <class T, class S>
__device__ void write_y(const Problem<T>& p,
                        const Block<S>& block,
                        const Ends<S>& entering,
                        int64_t at,
                        int64_t c,
                        T* y) {
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    apply_keys<kWide>(
        block, entering, channel_of<kWide>(p.w[c], p.u[c], p.tokens), [&](int i, S value) {
          y[at + i * p.channels] = static_cast<T>(value);
        });
  });
}

template <class T, class S>
__device__ Ends<S> gradient_ends(
    const Problem<T>& p, const Block<S>& block, const Ends<S>& entering, int64_t at, int64_t c) {
  Ends<S> ends;
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    ends = summarise_gradients<kWide>(
        block, entering, channel_of<kWide>(p.w[c], p.u[c], p.tokens), [&](int i) {
          return static_cast<S>(p.gy[at + i * p.channels]);
        });
  });
  return ends;
}

template <class T, class S>
__device__ Share<S> write_gradients(const Problem<T>& p,
                                    const Block<S>& block,
                                    const Ends<S>& entering,
                                    const Ends<S>& gentering,
                                    int64_t at,
                                    int64_t c,
                                    T* gk,
                                    T* gv) {
  Share<S> share;
  with_way(p, c, [&](auto wide) {
    constexpr bool kWide = decltype(wide)::value;
    share = apply_gradients<kWide>(
        block,
        entering,
        gentering,
        channel_of<kWide>(p.w[c], p.u[c], p.tokens),
        [&](int i) { return static_cast<S>(p.gy[at + i * p.channels]); },
        [&](int i, S at_k, S at_v) {
          gk[at + i * p.channels] = static_cast<T>(at_k);
          gv[at + i * p.channels] = static_cast<T>(at_v);
        });
  });
  return share;
}

// ---- One CTA per batch item and 32 channels: grid (batch * tiles), block (32, blocks). ----

template <class T>
__global__ void __launch_bounds__(32 * kTileWarps) tile_forward(Problem<T> p, T* y) {
  using S = typename Problem<T>::S;
  __shared__ EndsMemory<S, kTileWarps> memory;
  Ends<S>(*ends)[32] = memory.ends();
  const int64_t b = blockIdx.x / p.tiles(), j = threadIdx.y;
  const int64_t c = blockIdx.x % p.tiles() * 32 + threadIdx.x;
  const bool active = c < p.channels;
  Block<S> block;
  if (active) {
    block = p.read(b, j, c);
    ends[j][threadIdx.x] = key_ends(p, block, c);
  }
  __syncthreads();
  if (!active) return;
  const CarryPlan<S> plan(p.w[c], p.tokens, static_cast<int>(blockDim.y));
  const Ends<S> entering =
      entering_group(plan, static_cast<int>(j), [&](int i) { return ends[i][threadIdx.x]; });
  write_y(p, block, entering, p.first(b, j, c), c, y);
}

/// shares [batch, 2, channels].
template <class T>
__global__ void __launch_bounds__(32 * kTileWarps)
    tile_backward(Problem<T> p, T* gk, T* gv, typename Problem<T>::S* shares) {
  using S = typename Problem<T>::S;
  __shared__ EndsMemory<S, kTileWarps> memory;
  Ends<S>(*ends)[32] = memory.ends();
  const int64_t b = blockIdx.x / p.tiles(), j = threadIdx.y;
  const int64_t c = blockIdx.x % p.tiles() * 32 + threadIdx.x;
  const int64_t at = p.first(b, j, c);
  const bool active = c < p.channels;
  const CarryPlan<S> plan(active ? p.w[c] : S(0), p.tokens, static_cast<int>(blockDim.y));
  const auto others = [&](int i) { return ends[i][threadIdx.x]; };
  Block<S> block;
  Ends<S> entering, gentering;
  if (active) {
    block = p.read(b, j, c);
    ends[j][threadIdx.x] = key_ends(p, block, c);
  }
  __syncthreads();
  if (active) entering = entering_group(plan, static_cast<int>(j), others);
  __syncthreads();
  if (active) ends[j][threadIdx.x] = gradient_ends(p, block, entering, at, c);
  __syncthreads();
  if (active) gentering = entering_group(plan, static_cast<int>(j), others);
  __syncthreads();
  // The blocks' shares of gw and gu use the same memory.
  if (active) {
    const Share<S> share = write_gradients(p, block, entering, gentering, at, c, gk, gv);
    ends[j][threadIdx.x].left.num = share.w;
    ends[j][threadIdx.x].left.den = share.u;
  }
  __syncthreads();
  if (!active || j != 0) return;
  S sum_w = 0, sum_u = 0;
  for (unsigned i = 0; i < blockDim.y; ++i) {
    sum_w += ends[i][threadIdx.x].left.num;
    sum_u += ends[i][threadIdx.x].left.den;
  }
  shares[(2 * b) * p.channels + c] = sum_w;
  shares[(2 * b + 1) * p.channels + c] = sum_u;
}

// ---- One cluster per batch item and 32 channels: grid (batch * tiles * cluster), block (32,
// blocks of a CTA). Every CTA is a group of CarryPlan. ----

/// What the CTAs of a cluster tell each other about their channels.
template <class S>
struct ClusterMemory {
  EndsMemory<S, kTileWarps> own;  ///< of every block of this CTA
  EndsMemory<S, 1> sum;           ///< of all of them; the other CTAs read it
  EndsMemory<S, 1> entering;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
/// The states that enter every block of the cluster, given every block's own ends. Contains the
/// barriers that the memory's next use needs.
template <class S>
__device__ Ends<S> cluster_entering(const CarryPlan<S>& plan,
                                    ClusterMemory<S>& memory,
                                    const Ends<S>& ends,
                                    int64_t j,
                                    bool active) {
  auto cluster = cooperative_groups::this_cluster();
  const int g = static_cast<int>(cluster.block_rank());
  const unsigned lane = threadIdx.x;
  const bool first = threadIdx.y == 0;
  const auto own = [&](int64_t i) { return memory.own.ends()[i - plan.begin(g)][lane]; };
  if (active && j < plan.end(g)) memory.own.ends()[threadIdx.y][lane] = ends;
  __syncthreads();
  if (active && first) memory.sum.ends()[0][lane] = sum_group(plan, g, own);
  cluster.sync();
  if (active && first)
    memory.entering.ends()[0][lane] = entering_group(plan, g, [&](int i) {
      return *cluster.map_shared_rank(&memory.sum.ends()[0][lane], static_cast<unsigned>(i));
    });
  cluster.sync();
  Ends<S> entering;
  if (active && j < plan.end(g))
    entering = entering_block(plan, g, j, memory.entering.ends()[0][lane], own);
  __syncthreads();
  return entering;
}
#endif

template <class T>
__global__ void __launch_bounds__(32 * kTileWarps) cluster_forward(Problem<T> p, T* y) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using S = typename Problem<T>::S;
  __shared__ ClusterMemory<S> memory;
  const auto size = static_cast<int>(cooperative_groups::this_cluster().num_blocks());
  const int64_t row = blockIdx.x / size, b = row / p.tiles();
  const int64_t c = row % p.tiles() * 32 + threadIdx.x;
  const bool active = c < p.channels;
  const CarryPlan<S> plan(active ? p.w[c] : S(0), p.tokens, size);
  const int g = static_cast<int>(blockIdx.x % size);
  const int64_t j = plan.begin(g) + threadIdx.y;
  const bool held = active && j < plan.end(g);
  Block<S> block;
  Ends<S> ends;
  if (held) {
    block = p.read(b, j, c);
    ends = key_ends(p, block, c);
  }
  const Ends<S> entering = cluster_entering(plan, memory, ends, j, active);
  if (held) write_y(p, block, entering, p.first(b, j, c), c, y);
#endif
}

/// shares [batch * cluster, 2, channels].
template <class T>
__global__ void __launch_bounds__(32 * kTileWarps)
    cluster_backward(Problem<T> p, T* gk, T* gv, typename Problem<T>::S* shares) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  using S = typename Problem<T>::S;
  __shared__ ClusterMemory<S> memory;
  const auto size = static_cast<int>(cooperative_groups::this_cluster().num_blocks());
  const int64_t row = blockIdx.x / size, b = row / p.tiles();
  const int64_t c = row % p.tiles() * 32 + threadIdx.x;
  const bool active = c < p.channels;
  const CarryPlan<S> plan(active ? p.w[c] : S(0), p.tokens, size);
  const int g = static_cast<int>(blockIdx.x % size);
  const int64_t j = plan.begin(g) + threadIdx.y, at = p.first(b, j, c);
  const bool held = active && j < plan.end(g);
  Block<S> block;
  Ends<S> ends;
  if (held) {
    block = p.read(b, j, c);
    ends = key_ends(p, block, c);
  }
  const Ends<S> entering = cluster_entering(plan, memory, ends, j, active);
  if (held) ends = gradient_ends(p, block, entering, at, c);
  const Ends<S> gentering = cluster_entering(plan, memory, ends, j, active);
  Share<S> share;
  if (held) share = write_gradients(p, block, entering, gentering, at, c, gk, gv);
  if (active) {
    memory.own.ends()[threadIdx.y][threadIdx.x].left.num = share.w;
    memory.own.ends()[threadIdx.y][threadIdx.x].left.den = share.u;
  }
  __syncthreads();
  if (!active || threadIdx.y != 0) return;
  S sum_w = 0, sum_u = 0;
  for (unsigned i = 0; i < blockDim.y; ++i) {
    sum_w += memory.own.ends()[i][threadIdx.x].left.num;
    sum_u += memory.own.ends()[i][threadIdx.x].left.den;
  }
  const int64_t slot = 2 * (b * size + g);
  shares[slot * p.channels + c] = sum_w;
  shares[(slot + 1) * p.channels + c] = sum_u;
#endif
}

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
  __shared__ EndsMemory<S, kCarryWarps> memory;
  Ends<S>(*sums)[32] = memory.ends();
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

/// The launch of a kernel in which `size` CTAs hold a row together.
struct ClusterLaunch {
  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t config{};

  ClusterLaunch(int64_t rows, int64_t blocks, int size, cudaStream_t stream) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(size);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    config.gridDim = grid_of(rows * size);
    config.blockDim = dim3(32, static_cast<unsigned>((blocks + size - 1) / size));
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  ClusterLaunch(const ClusterLaunch&) = delete;
  ClusterLaunch& operator=(const ClusterLaunch&) = delete;
};

/// How many CTAs hold a row of p, with `kernel` where they are more than one; 0: it takes the
/// stages.
template <class T, class Kernel>
int cluster_of(const Problem<T>& p, Kernel* kernel, cudaStream_t stream) {
  const bool clusters = at::cuda::getCurrentDeviceProperties()->major >= 9;
  const int size = cluster_for(p.blocks(), kTileWarps, clusters ? kLargestCluster : 1);
  if (size <= kPortableCluster) return size;
  // Larger ones need as many processors close to each other as not every GPU has free.
  C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
  const ClusterLaunch launch(p.batch * p.tiles(), p.blocks(), size, stream);
  int fitting = 0;
  C10_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&fitting, kernel, &launch.config));
  return fitting > 0 ? size : 0;
}

template <class T>
dim3 stage_grid(const Problem<T>& p) {
  return grid_of(p.batch * p.tiles() * ((p.blocks() + kStageWarps - 1) / kStageWarps));
}
const dim3 kStageBlock(32, kStageWarps);

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
  stage_summarise<T><<<stage_grid(p), kStageBlock, 0, stream>>>(p, ends);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  stage_carry<T><<<grid_of(p.batch * p.tiles()), dim3(32, kCarryWarps), 0, stream>>>(p, ends);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
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
      const dim3 block(32, static_cast<unsigned>(p.blocks()));
      tile_forward<scalar_t><<<grid_of(p.batch * p.tiles()), block, 0, stream>>>(p, out);
      C10_CUDA_KERNEL_LAUNCH_CHECK();
      return;
    }
    if (size > 1) {
      const ClusterLaunch launch(p.batch * p.tiles(), p.blocks(), size, stream);
      C10_CUDA_CHECK(cudaLaunchKernelEx(&launch.config, cluster_forward<scalar_t>, p, out));
      return;
    }
    at::Tensor bytes = ends_like<S>(in.k, p.blocks());
    enter_keys(p, ends_in<S>(bytes), stream);
    stage_forward<scalar_t><<<stage_grid(p), kStageBlock, 0, stream>>>(p, ends_in<S>(bytes), out);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
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
          const dim3 block(32, static_cast<unsigned>(p.blocks()));
          tile_backward<scalar_t>
              <<<grid_of(p.batch * p.tiles()), block, 0, stream>>>(p, to_k, to_v, to_shares);
          C10_CUDA_KERNEL_LAUNCH_CHECK();
        } else if (size > 1) {
          const ClusterLaunch launch(p.batch * p.tiles(), p.blocks(), size, stream);
          C10_CUDA_CHECK(cudaLaunchKernelEx(
              &launch.config, cluster_backward<scalar_t>, p, to_k, to_v, to_shares));
        } else {
          at::Tensor bytes = ends_like<S>(in.k, p.blocks()),
                     gbytes = ends_like<S>(in.k, p.blocks());
          Ends<S>* ends = ends_in<S>(bytes);
          Ends<S>* gends = ends_in<S>(gbytes);
          enter_keys(p, ends, stream);
          stage_grad_summarise<scalar_t><<<stage_grid(p), kStageBlock, 0, stream>>>(p, ends, gends);
          C10_CUDA_KERNEL_LAUNCH_CHECK();
          stage_carry<scalar_t>
              <<<grid_of(p.batch * p.tiles()), dim3(32, kCarryWarps), 0, stream>>>(p, gends);
          C10_CUDA_KERNEL_LAUNCH_CHECK();
          stage_backward<scalar_t>
              <<<stage_grid(p), kStageBlock, 0, stream>>>(p, ends, gends, to_k, to_v, to_shares);
          C10_CUDA_KERNEL_LAUNCH_CHECK();
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
        published_forward<scalar_t>
            <<<grid_of((p.batch * p.channels + 127) / 128), 128, 0, stream>>>(
                p, y.mutable_data_ptr<scalar_t>());
        C10_CUDA_KERNEL_LAUNCH_CHECK();
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
