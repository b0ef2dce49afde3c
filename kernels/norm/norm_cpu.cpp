#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels/cpu_rows.h"
#include "kernels/norm/norm_ops.h"
#include "kernels/norm/norm_rows.h"

namespace vireo {
namespace {

using norm_rows::kTile;

// Rows, or tiles of a map, whose sums are taken together: fixed, so that sums do not depend on the
// number of threads.
constexpr int64_t kRowsPerBlock = 64;
constexpr int64_t kTilesPerBlock = 4;
// Elements that are worth a thread.
constexpr int64_t kNormGrain = 8192;

const norm_rows::Functions& norm_functions(at::ScalarType type) {
  static const auto& table = VIREO_TABLE_IN_USE(norm_rows);
  return functions_of(table, type);
}

const void* data_of(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr() : nullptr;
}

/// Whether channels lie side by side.
bool is_tokens(const at::Tensor& x) {
  return x.dim() == 3 || x.is_contiguous(at::MemoryFormat::ChannelsLast);
}

norm_rows::Job tokens_job(const at::Tensor& r,
                          const at::Tensor& y,
                          const at::Tensor& weight,
                          const at::Tensor& bias,
                          double eps) {
  norm_rows::Job job{};
  job.channels = y.size(y.dim() == 4 ? 1 : 2);
  job.eps = eps;
  job.r = data_of(r);
  job.y = data_of(y);
  job.weight = data_of(weight);
  job.bias = data_of(bias);
  return job;
}

norm_rows::Maps maps_job(const at::Tensor& x,
                         const at::Tensor& weight,
                         const at::Tensor& bias,
                         double eps) {
  return {x.size(1),
          x.size(2) * x.size(3),
          eps,
          data_of(x),
          data_of(weight),
          data_of(bias),
          nullptr,
          nullptr,
          nullptr};
}

/// Calls body(block, row begin, row end, the block's sums, scratch) and returns the sums' sum over
/// blocks, [2,C], taken in float64 and in order.
template <class Body>
at::Tensor sum_blocks(int64_t blocks,
                      int64_t channels,
                      int64_t scratch_size,
                      const at::TensorOptions& options,
                      const Body& body) {
  at::Tensor partial = at::zeros({blocks, 2, channels}, options);
  const int64_t bytes = 2 * channels * partial.element_size();
  char* sums = static_cast<char*>(partial.mutable_data_ptr());
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor scratch = at::empty({scratch_size}, options);
    for (int64_t i = begin; i < end; ++i) body(i, sums + i * bytes, scratch.mutable_data_ptr());
  });
  return partial.sum(0, /*keepdim=*/false, at::kDouble).to(options);
}

void forward_tokens(const norm_rows::Job& job, const at::Tensor& y) {
  const int64_t rows = y.numel() / job.channels;
  const auto& functions = norm_functions(y.scalar_type());
  at::parallel_for(
      0, rows, std::max<int64_t>(1, kNormGrain / job.channels), [&](int64_t a, int64_t b) {
        functions.forward(job, a, b);
      });
}

/// [2,C]: gradients of weight and bias.
at::Tensor backward_tokens(const norm_rows::Job& job,
                           const at::Tensor& y,
                           const at::TensorOptions& options) {
  const int64_t rows = y.numel() / job.channels;
  const auto& functions = norm_functions(y.scalar_type());
  return sum_blocks((rows + kRowsPerBlock - 1) / kRowsPerBlock,
                    job.channels,
                    job.channels,
                    options,
                    [&](int64_t block, void* sums, void* scratch) {
                      const int64_t first = block * kRowsPerBlock;
                      functions.backward(
                          job, first, std::min(rows, first + kRowsPerBlock), sums, scratch);
                    });
}

int64_t tiles_of(const norm_rows::Maps& maps) {
  return (maps.pixels + kTile - 1) / kTile;
}

at::Tensor channel_norm_cpu(const at::Tensor& x_in,
                            const at::Tensor& weight,
                            const at::Tensor& bias,
                            double eps) {
  const at::Tensor x = norm_input(x_in);
  at::Tensor out = at::empty_like(x);
  if (x.numel() == 0) return out;
  if (is_tokens(x)) {
    norm_rows::Job job = tokens_job({}, x, weight, bias, eps);
    job.out = out.mutable_data_ptr();
    forward_tokens(job, x);
    return out;
  }
  norm_rows::Maps maps = maps_job(x, weight, bias, eps);
  maps.out = out.mutable_data_ptr();
  const int64_t tiles = tiles_of(maps);
  const auto& functions = norm_functions(x.scalar_type());
  at::parallel_for(0, x.size(0) * tiles, 1, [&](int64_t begin, int64_t end) {
    const at::Tensor scratch = at::empty({maps.channels * kTile}, weight.options());
    for (int64_t i = begin; i < end; ++i)
      functions.map_forward(maps, i / tiles, i % tiles * kTile, scratch.mutable_data_ptr());
  });
  return out;
}

NormGradients channel_norm_backward_cpu(const at::Tensor& x_in,
                                        const at::Tensor& weight,
                                        const at::Tensor& gout_in,
                                        double eps) {
  const at::Tensor x = norm_input(x_in), gout = norm_gradient(x, gout_in);
  at::Tensor gx = at::empty_like(x);
  if (x.numel() == 0) return {gx, at::zeros_like(weight), at::zeros_like(weight)};
  at::Tensor sums;
  if (is_tokens(x)) {
    norm_rows::Job job = tokens_job({}, x, weight, weight, eps);
    job.gout = gout.const_data_ptr();
    job.gy = gx.mutable_data_ptr();
    sums = backward_tokens(job, x, weight.options());
  } else {
    norm_rows::Maps maps = maps_job(x, weight, weight, eps);
    maps.gout = gout.const_data_ptr();
    maps.gx = gx.mutable_data_ptr();
    const int64_t tiles = tiles_of(maps), all = x.size(0) * tiles;
    const auto& functions = norm_functions(x.scalar_type());
    sums = sum_blocks((all + kTilesPerBlock - 1) / kTilesPerBlock,
                      maps.channels,
                      2 * maps.channels * kTile,
                      weight.options(),
                      [&](int64_t block, void* to, void* scratch) {
                        const int64_t first = block * kTilesPerBlock;
                        for (int64_t i = first; i < std::min(all, first + kTilesPerBlock); ++i)
                          functions.map_backward(maps, i / tiles, i % tiles * kTile, to, scratch);
                      });
  }
  return {gx, sums[0], sums[1]};
}

at::Tensor gate_cpu(const at::Tensor& r_in,
                    const at::Tensor& y_in,
                    const std::optional<at::Tensor>& weight,
                    const std::optional<at::Tensor>& bias,
                    double eps) {
  const at::Tensor r = r_in.contiguous(), y = y_in.contiguous();
  at::Tensor out = at::empty_like(y);
  if (y.numel() == 0) return out;
  norm_rows::Job job =
      tokens_job(r, y, weight.value_or(at::Tensor()), bias.value_or(at::Tensor()), eps);
  job.out = out.mutable_data_ptr();
  forward_tokens(job, y);
  return out;
}

GateGradients gate_backward_cpu(const at::Tensor& r_in,
                                const at::Tensor& y_in,
                                const std::optional<at::Tensor>& weight,
                                const std::optional<at::Tensor>& bias,
                                const at::Tensor& gout_in,
                                double eps) {
  const at::Tensor r = r_in.contiguous(), y = y_in.contiguous(), gout = norm_gradient(y, gout_in);
  at::Tensor gr = at::empty_like(r), gy = at::empty_like(y);
  const at::TensorOptions options = y.options().dtype(norm_state_type(y));
  const at::Tensor none = weight ? at::zeros_like(*weight) : at::empty({0}, options);
  if (y.numel() == 0) return {gr, gy, none, none};
  norm_rows::Job job =
      tokens_job(r, y, weight.value_or(at::Tensor()), bias.value_or(at::Tensor()), eps);
  job.gout = gout.const_data_ptr();
  job.gr = gr.mutable_data_ptr();
  job.gy = gy.mutable_data_ptr();
  if (weight) {
    const at::Tensor sums = backward_tokens(job, y, options);
    return {gr, gy, sums[0], sums[1]};
  }
  const auto& functions = norm_functions(y.scalar_type());
  const int64_t rows = y.numel() / job.channels;
  at::parallel_for(
      0, rows, std::max<int64_t>(1, kNormGrain / job.channels), [&](int64_t a, int64_t b) {
        functions.backward(job, a, b, nullptr, nullptr);
      });
  return {gr, gy, none, none};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CPU, library) {
  library.impl("channel_norm", channel_norm_cpu);
  library.impl("channel_norm_backward", channel_norm_backward_cpu);
  library.impl("gate", gate_cpu);
  library.impl("gate_backward", gate_backward_cpu);
}

}  // namespace vireo
