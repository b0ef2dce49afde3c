#pragma once

#include <cstdint>

#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda_launch.cuh"
#include "kernels/cuda_shared.cuh"

// Deterministic sums of partial results on the GPU.
namespace vireo {

constexpr int kSumWarps = 16;

/// total[c] = sum over r of partial[r, c], in double and always in the same order.
/// One block of 32 columns by kSumWarps rows per 32 columns.
template <class S, class Out>
__global__ void sum_rows_kernel(const S* partial, Out* total, int64_t rows, int64_t columns) {
  auto& sums = shared<double[kSumWarps][32]>();
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
  double sum = 0;
  if (c < columns)
    for (int64_t r = threadIdx.y; r < rows; r += kSumWarps)
      sum += static_cast<double>(partial[r * columns + c]);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
  double total_c = 0;
  for (int i = 0; i < kSumWarps; ++i) total_c += sums[i][threadIdx.x];
  total[c] = static_cast<Out>(total_c);
}

template <class S, class Out>
void sum_rows(const S* partial, Out* total, int64_t rows, int64_t columns, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((columns + 31) / 32)), block(32, kSumWarps);
  launch({grid, block, stream}, sum_rows_kernel<S, Out>, partial, total, rows, columns);
}

}  // namespace vireo
