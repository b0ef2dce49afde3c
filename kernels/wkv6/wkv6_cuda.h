#pragma once

#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/wkv6/wkv6_blocks.h"
#include "kernels/wkv6/wkv6_ops.h"

// What the two files of WKV6's CUDA half share.
namespace vireo {

/// Contiguous inputs on a GPU, where two neighbours can be read as one word; alive as long as their
/// Problem is in use.
struct Wkv6Inputs {
  at::Tensor r, k, v, gy, log_decay, u;
  cudaStream_t stream;

  /// gy may be undefined.
  Wkv6Inputs(const at::Tensor& r,
             const at::Tensor& k,
             const at::Tensor& v,
             const at::Tensor& w,
             const at::Tensor& u,
             const at::Tensor& gy);

  template <class T, class S>
  wkv6_math::Problem<T, S> problem() const {
    return {r.const_data_ptr<T>(),
            k.const_data_ptr<T>(),
            v.const_data_ptr<T>(),
            gy.defined() ? gy.const_data_ptr<T>() : nullptr,
            log_decay.const_data_ptr<S>(),
            u.const_data_ptr<S>(),
            k.size(0) * u.size(0),
            k.size(1),
            u.size(0),
            static_cast<int>(u.size(1))};
  }
};

/// In every row: from what each of its pieces adds to a state, [rows][pieces][N][N], and prod d - 1
/// over it, [rows][pieces][N], to the states that enter the pieces.
void carry_wkv6_states(int64_t rows,
                       bool from_left,
                       at::Tensor& states,
                       const at::Tensor& less_one,
                       cudaStream_t stream);

/// gu [H,N] from shares of it, [B,H,pieces,N].
at::Tensor sum_wkv6_shares(const at::Tensor& shares, cudaStream_t stream);

/// On tensor cores; none where the type is not half precision or heads are not of whole tiles.
std::optional<at::Tensor> wkv6_by_tiles(const Wkv6Inputs& in, bool causal);
/// The fourth is the gradient of ln d, float32.
std::optional<Wkv6Gradients> wkv6_backward_by_tiles(const Wkv6Inputs& in, bool causal);

}  // namespace vireo
