#include <array>
#include <type_traits>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_shared.cuh"
#include "kernels/wkv6/wkv6_cuda.h"
#include "kernels/wkv6/wkv6_mma_backward.h"
#include "kernels/wkv6/wkv6_mma_instructions.cuh"

// wkv6_mma.h and wkv6_mma_backward.h as kernels, for compute capability 8.0 and above. No atomics.
namespace vireo {
namespace {

using namespace wkv6_math;

struct GpuWarp {
  static constexpr int kHeld = 1;

  __device__ int lane(int) const { return static_cast<int>(threadIdx.x) % kLanes; }

  __device__ void mma(Numbers<GpuWarp>& sums,
                      int s,
                      const Bits<GpuWarp>& a,
                      const Bits<GpuWarp>& b,
                      int low,
                      int high) const {
    multiply_m16n8k16(sums.x[0] + s, a.x[0], b.x[0][low], b.x[0][high]);
  }

  __device__ void transpose(const Bits<GpuWarp>& from, int i, Bits<GpuWarp>& to, int j) const {
    to.x[0][j] = transpose_8x8(from.x[0][i]);
  }

  __device__ Numbers<GpuWarp> exchange(const Numbers<GpuWarp>& n, int mask) const {
    Numbers<GpuWarp> result;
    VIREO_WKV6_UNROLL
    for (int e = 0; e < kOfLane; ++e)
      result.x[0][e] = __shfl_xor_sync(0xffffffffu, n.x[0][e], mask);
    return result;
  }
};

struct GpuBlock {
  using Warp = GpuWarp;
  static constexpr int kWarps = 1;

  template <class Body>
  __device__ void each_warp(const Body& body) const {
    body(GpuWarp{}, static_cast<int>(threadIdx.x) / kLanes, 0);
  }
  __device__ void sync() const { __syncthreads(); }
};

/// bfloat16 holds itself; float16 takes two of them for its 11 bits.
template <class T>
constexpr int kPartsOf = std::is_same_v<T, c10::BFloat16> ? 1 : 2;

/// Block b takes stretch b % count of row b / count.
struct Stretches {
  int64_t each;   ///< chunks of a stretch
  int64_t count;  ///< stretches of a row
  Walk walk;

  template <class T>
  __device__ Stretch here(const Problem<T, float>& p) const {
    const int64_t first = blockIdx.x % count * each, left = p.chunks() - first;
    return {blockIdx.x / count, first, left < each ? left : each, walk};
  }
};

template <int kTiles, class T>
__global__ void __launch_bounds__(kTiles* kLanes)
    summarise_stretch_kernel(Problem<T, float> p, Stretches s, float* sums, float* less_one) {
  summarise_stretch(GpuBlock{},
                    p,
                    s.here(p),
                    dynamic_shared<Board<kTiles, kPartsOf<T>>>(),
                    sums + static_cast<int64_t>(blockIdx.x) * p.head * p.head,
                    less_one + static_cast<int64_t>(blockIdx.x) * p.head);
}

/// The state that enters the block's stretch, of [rows][stretches][N][N]; null where rows are
/// whole.
__device__ const float* entering_here(const float* entering, int head) {
  return entering == nullptr ? nullptr : entering + static_cast<int64_t>(blockIdx.x) * head * head;
}

template <int kTiles, class T>
__global__ void __launch_bounds__(kTiles* kLanes) forward_stretch_kernel(
    Problem<T, float> p, Stretches s, const float* entering, float* part, T* y) {
  forward_stretch(GpuBlock{},
                  p,
                  s.here(p),
                  dynamic_shared<Board<kTiles, kPartsOf<T>>>(),
                  entering_here(entering, p.head),
                  part,
                  y);
}

template <int kTiles, class T>
__global__ void __launch_bounds__(kTiles* kLanes) gradient_stretch_kernel(Problem<T, float> p,
                                                                          Stretches s,
                                                                          const float* entering,
                                                                          const uint32_t* other,
                                                                          TileGradients<T> to) {
  const Stretch stretch = s.here(p);
  const int64_t kept = stretch.row * p.chunks() * kKeptOfChunk<kTiles, kPartsOf<T>>;
  if (to.kept != nullptr) to.kept += kept;
  if (to.u != nullptr) to.u += static_cast<int64_t>(blockIdx.x) * p.head;
  gradient_stretch(GpuBlock{},
                   p,
                   stretch,
                   dynamic_shared<Board<kTiles, kPartsOf<T>>>(),
                   entering_here(entering, p.head),
                   other == nullptr ? nullptr : other + kept,
                   to);
}

template <class X>
X* data_or_null(const at::Tensor& x) {
  return x.defined() ? x.mutable_data_ptr<X>() : nullptr;
}

/// The kernels over all rows of a Problem.
template <int kTiles, class T>
class Tiles {
 public:
  explicit Tiles(const Wkv6Inputs& in)
      : in_(in),
        p_(in.problem<T, float>()),
        each_(stretch_length(p_.rows, p_.chunks())),
        count_((p_.chunks() + each_ - 1) / each_) {
    TORCH_CHECK(p_.rows * count_ < (int64_t{1} << 31), "wkv6: input too large for one launch");
  }

  at::Tensor forward(bool causal) const { return forward(p_, {true, !causal}); }

  /// gr, gk, gv, the gradient of ln d, gu.
  Wkv6Gradients backward(bool causal) const {
    const Problem<T, float> of_k = exchanged(p_);
    const at::Tensor gr = at::empty_like(in_.k), gk = at::empty_like(in_.k);
    const at::Tensor log_decay = at::empty_like(in_.log_decay);
    const at::Tensor shares = floats({p_.rows / p_.heads, p_.heads, count_, p_.head});
    const Sides of_r{true, !causal}, both_or_right{!causal, true};
    at::Tensor part_r, part_k, kept_k;
    const at::Tensor kept_r = room_for_states();
    if (!causal) {
      part_r = at::empty_like(in_.log_decay);
      part_k = at::empty_like(in_.log_decay);
      kept_k = room_for_states();
    }
    bool add = false;
    for (const bool from_left : {true, false}) {
      if (from_left || !causal) {
        gradient(p_, {of_r, from_left}, part_r, gr, log_decay, add, shares, kept_r, kept_k);
        add = true;
      }
      if (!from_left || !causal)
        gradient(of_k, {both_or_right, from_left}, part_k, gk, log_decay, add, {}, kept_k, kept_r);
    }
    return {gr, gk, forward(of_k, both_or_right), log_decay, sum_wkv6_shares(shares, in_.stream)};
  }

 private:
  template <class Kernel, class... Arguments>
  void run(Kernel* kernel, const Arguments&... arguments) const {
    launch({static_cast<unsigned>(p_.rows * count_),
            kTiles * kLanes,
            in_.stream,
            2 * sizeof(Board<kTiles, kPartsOf<T>>)},
           kernel,
           arguments...);
  }

  at::Tensor floats(at::IntArrayRef sizes) const {
    return at::empty(sizes, in_.log_decay.options());
  }
  at::Tensor room_for_states() const {
    return at::empty({p_.rows * p_.chunks() * kKeptOfChunk<kTiles, kPartsOf<T>>},
                     in_.log_decay.options().dtype(at::kInt));
  }

  /// The states that enter every stretch; undefined where rows are whole.
  at::Tensor entering(const Problem<T, float>& p, const Walk& walk) const {
    if (count_ == 1) return {};
    at::Tensor states = floats({p.rows * count_, p.head, p.head});
    const at::Tensor less_one = floats({p.rows * count_, p.head});
    run(summarise_stretch_kernel<kTiles, T>,
        p,
        Stretches{each_, count_, walk},
        states.mutable_data_ptr<float>(),
        less_one.mutable_data_ptr<float>());
    carry_wkv6_states(p.rows, walk.from_left, states, less_one, in_.stream);
    return states;
  }

  at::Tensor forward(const Problem<T, float>& p, const Sides& sides) const {
    at::Tensor y = at::empty_like(in_.k), part;
    if (sides.left && sides.right) part = at::empty_like(in_.log_decay);
    for (const bool from_left : {true, false}) {
      if (!(from_left ? sides.left : sides.right)) continue;
      const Walk walk{sides, from_left};
      const at::Tensor states = entering(p, walk);
      run(forward_stretch_kernel<kTiles, T>,
          p,
          Stretches{each_, count_, walk},
          data_or_null<float>(states),
          data_or_null<float>(part),
          y.mutable_data_ptr<T>());
    }
    return y;
  }

  void gradient(const Problem<T, float>& p,
                const Walk& walk,
                const at::Tensor& part,
                const at::Tensor& g,
                const at::Tensor& log_decay,
                bool add,
                const at::Tensor& gu,
                const at::Tensor& kept,
                const at::Tensor& other) const {
    const at::Tensor states = entering(p, walk);
    const auto bits = [](const at::Tensor& x) {
      return reinterpret_cast<uint32_t*>(data_or_null<int32_t>(x));
    };
    const TileGradients<T> to{data_or_null<float>(part),
                              g.mutable_data_ptr<T>(),
                              log_decay.mutable_data_ptr<float>(),
                              add,
                              data_or_null<float>(gu),
                              bits(kept)};
    run(gradient_stretch_kernel<kTiles, T>,
        p,
        Stretches{each_, count_, walk},
        data_or_null<float>(states),
        bits(other),
        to);
  }

  const Wkv6Inputs& in_;
  Problem<T, float> p_;
  int64_t each_, count_;  ///< chunks of a stretch, stretches of a row
};

/// body(Tiles) for heads of the sizes in use.
template <class T, class Body>
bool with_head(const Wkv6Inputs& in, const Body& body) {
  switch (in.u.size(1)) {
    case 32:
      body(Tiles<2, T>(in));
      return true;
    case 48:
      body(Tiles<3, T>(in));
      return true;
    case 64:
      body(Tiles<4, T>(in));
      return true;
    case 80:
      body(Tiles<5, T>(in));
      return true;
    case 96:
      body(Tiles<6, T>(in));
      return true;
    case 128:
      body(Tiles<8, T>(in));
      return true;
    default:
      return false;
  }
}

template <class Body>
bool with_tiles(const Wkv6Inputs& in, const Body& body) {
  if (in.k.scalar_type() == at::kBFloat16) return with_head<c10::BFloat16>(in, body);
  if (in.k.scalar_type() == at::kHalf) return with_head<c10::Half>(in, body);
  return false;
}

}  // namespace

std::optional<at::Tensor> wkv6_by_tiles(const Wkv6Inputs& in, bool causal) {
  at::Tensor y;
  if (!with_tiles(in, [&](const auto& tiles) { y = tiles.forward(causal); })) return std::nullopt;
  return y;
}

std::optional<Wkv6Gradients> wkv6_backward_by_tiles(const Wkv6Inputs& in, bool causal) {
  Wkv6Gradients g;
  if (!with_tiles(in, [&](const auto& tiles) { g = tiles.backward(causal); })) return std::nullopt;
  return g;
}

}  // namespace vireo
