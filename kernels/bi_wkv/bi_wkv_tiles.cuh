#pragma once

#include <cooperative_groups.h>

#include "kernels/bi_wkv/bi_wkv_problem.cuh"
#include "kernels/cuda_shared.cuh"

// Bi-WKV on CUDA where a row's 32 channels are held whole, one warp per block of tokens, so that
// everything is read once. For bi_wkv_cuda.cu alone.
namespace vireo {
namespace {

constexpr int kTileWarps = 16;
constexpr int kLargestCluster = 16;

// ---- One CTA per batch item and 32 channels: grid (batch * tiles), block (32, blocks). ----

template <class T>
__global__ void __launch_bounds__(32 * kTileWarps) tile_forward(Problem<T> p, T* y) {
  using S = typename Problem<T>::S;
  auto& ends = shared<Ends<S>[kTileWarps][32]>();
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
  auto& ends = shared<Ends<S>[kTileWarps][32]>();
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
  Ends<S> own[kTileWarps][32];  ///< of every block of this CTA
  Ends<S> sum[32];              ///< of all of them; the other CTAs read it
  Ends<S> entering[32];
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
/// What one thread of a cluster holds.
template <class T>
struct ClusterPlace {
  using S = typename Problem<T>::S;
  int size;  ///< CTAs
  int g;     ///< this CTA's group of blocks
  int64_t b, c, j;
  bool active;  ///< the channel exists
  bool held;    ///< and so does the block of tokens
  CarryPlan<S> plan;

  __device__ explicit ClusterPlace(const Problem<T>& p)
      : size(static_cast<int>(cooperative_groups::this_cluster().num_blocks())),
        g(static_cast<int>(blockIdx.x % size)),
        b(blockIdx.x / size / p.tiles()),
        c(blockIdx.x / size % p.tiles() * 32 + threadIdx.x),
        active(c < p.channels),
        plan(active ? p.w[c] : S(0), p.tokens, size) {
    j = plan.begin(g) + threadIdx.y;
    held = active && j < plan.end(g);
  }
};

/// The states that enter every block of the cluster, given every block's own ends. Contains the
/// barriers that the memory's next use needs.
template <class T, class S>
__device__ Ends<S> cluster_entering(const ClusterPlace<T>& at,
                                    ClusterMemory<S>& memory,
                                    const Ends<S>& ends) {
  auto cluster = cooperative_groups::this_cluster();
  const unsigned lane = threadIdx.x;
  const bool first = threadIdx.y == 0;
  const auto own = [&](int64_t i) { return memory.own[i - at.plan.begin(at.g)][lane]; };
  if (at.held) memory.own[threadIdx.y][lane] = ends;
  __syncthreads();
  if (at.active && first) memory.sum[lane] = sum_group(at.plan, at.g, own);
  cluster.sync();
  if (at.active && first)
    memory.entering[lane] = entering_group(at.plan, at.g, [&](int i) {
      return *cluster.map_shared_rank(&memory.sum[lane], static_cast<unsigned>(i));
    });
  cluster.sync();
  Ends<S> entering;
  if (at.held) entering = entering_block(at.plan, at.g, at.j, memory.entering[lane], own);
  __syncthreads();
  return entering;
}
#endif

template <class T>
__global__ void __launch_bounds__(32 * kTileWarps) cluster_forward(Problem<T> p, T* y) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  using S = typename Problem<T>::S;
  auto& memory = shared<ClusterMemory<S>>();
  const ClusterPlace<T> at(p);
  Block<S> block;
  Ends<S> ends;
  if (at.held) {
    block = p.read(at.b, at.j, at.c);
    ends = key_ends(p, block, at.c);
  }
  const Ends<S> entering = cluster_entering(at, memory, ends);
  if (at.held) write_y(p, block, entering, p.first(at.b, at.j, at.c), at.c, y);
#endif
}

/// shares [batch * cluster, 2, channels].
template <class T>
__global__ void __launch_bounds__(32 * kTileWarps)
    cluster_backward(Problem<T> p, T* gk, T* gv, typename Problem<T>::S* shares) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  using S = typename Problem<T>::S;
  auto& memory = shared<ClusterMemory<S>>();
  const ClusterPlace<T> at(p);
  const int64_t first = p.first(at.b, at.j, at.c);
  Block<S> block;
  Ends<S> ends;
  if (at.held) {
    block = p.read(at.b, at.j, at.c);
    ends = key_ends(p, block, at.c);
  }
  const Ends<S> entering = cluster_entering(at, memory, ends);
  if (at.held) ends = gradient_ends(p, block, entering, first, at.c);
  const Ends<S> gentering = cluster_entering(at, memory, ends);
  Share<S> share;
  if (at.held) share = write_gradients(p, block, entering, gentering, first, at.c, gk, gv);
  if (at.active) {
    memory.own[threadIdx.y][threadIdx.x].left.num = share.w;
    memory.own[threadIdx.y][threadIdx.x].left.den = share.u;
  }
  __syncthreads();
  if (!at.active || threadIdx.y != 0) return;
  S sum_w = 0, sum_u = 0;
  for (unsigned i = 0; i < blockDim.y; ++i) {
    sum_w += memory.own[i][threadIdx.x].left.num;
    sum_u += memory.own[i][threadIdx.x].left.den;
  }
  const int64_t slot = 2 * (at.b * at.size + at.g);
  shares[slot * p.channels + at.c] = sum_w;
  shares[(slot + 1) * p.channels + at.c] = sum_u;
#endif
}

}  // namespace
}  // namespace vireo
