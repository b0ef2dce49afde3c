#include <cstring>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels/cpu_rows.h"
#include "kernels/shift/shift_mix_job.h"
#include "kernels/shift/shift_ops.h"
#include "kernels/shift/shift_plan.h"
#include "kernels/shift/shift_rows.h"

namespace vireo {
namespace {

// Tokens per block of partial sums: fixed, so that sums do not depend on the number of threads.
constexpr int64_t kBlock = 64;
// Elements that are worth a thread.
constexpr int64_t kShiftGrain = 16384;

const shift_rows::Functions& shift_functions(at::ScalarType type) {
  static const auto& table = VIREO_TABLE_IN_USE(shift_rows);
  return functions_of(table, type);
}

at::Tensor q_shift_cpu(const at::Tensor& x_in,
                       int64_t height,
                       int64_t width,
                       int64_t pixels,
                       double gamma,
                       int64_t head_dim,
                       bool class_token,
                       bool adjoint) {
  const QShift shift{pixels, gamma, head_dim, class_token};
  check_q_shift(x_in, height, width, shift);
  const at::Tensor x = x_in.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  std::vector<ShiftSegment> segments = shift_segments(x.size(2), shift);
  if (adjoint) segments = reversed(std::move(segments));
  const int64_t tokens = x.size(1), size = x.element_size(), row = x.size(2) * size;
  const char* from = static_cast<const char*>(x.const_data_ptr());
  char* to = static_cast<char*>(y.mutable_data_ptr());
  if (y.numel() == 0) return y;
  const int64_t grain = std::max<int64_t>(1, kShiftGrain / x.size(2));
  at::parallel_for(0, x.size(0) * tokens, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t t = i % tokens, image = i - t;
      for (const ShiftSegment& segment : segments) {
        const int64_t sy = t / width + segment.dy, sx = t % width + segment.dx;
        const bool stays = t == height * width;
        const bool inside = stays || (sy >= 0 && sy < height && sx >= 0 && sx < width);
        char* target = to + i * row + segment.begin * size;
        const int64_t bytes = (segment.end - segment.begin) * size;
        const int64_t source = stays ? i : image + sy * width + sx;
        if (inside)
          std::memcpy(target, from + source * row + segment.begin * size, bytes);
        else
          std::memset(target, 0, bytes);
      }
    }
  });
  return y;
}

std::vector<at::Tensor> q_shift_mix_cpu(const at::Tensor& x_in,
                                        const at::Tensor& mixes_in,
                                        int64_t height,
                                        int64_t width,
                                        int64_t pixels,
                                        double gamma,
                                        int64_t head_dim,
                                        bool class_token) {
  const QShift shift{pixels, gamma, head_dim, class_token};
  check_q_shift_mix(x_in, mixes_in, height, width, shift);
  const at::Tensor x = x_in.contiguous(), mixes = mixes_in.contiguous();
  std::vector<at::Tensor> out;
  for (int64_t m = 0; m < mixes.size(0); ++m) out.push_back(at::empty(x.sizes(), x.options()));
  if (x.numel() == 0) return out;
  const ShiftMixJob plan(x, mixes, height, width, shift);
  const shift_rows::Functions& rows = shift_functions(x.scalar_type());
  const int64_t tokens = x.size(1), image_bytes = tokens * x.size(2) * x.element_size();
  const int64_t grain = std::max<int64_t>(1, kShiftGrain / x.size(2));
  at::parallel_for(0, x.size(0) * tokens, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t b = begin / tokens, first = begin % tokens;
      const int64_t last = std::min(tokens, first + (end - begin));
      void* to[5];
      for (size_t m = 0; m < out.size(); ++m)
        to[m] = static_cast<char*>(out[m].mutable_data_ptr()) + b * image_bytes;
      rows.forward(plan.job,
                   static_cast<const char*>(x.const_data_ptr()) + b * image_bytes,
                   to,
                   first,
                   last);
      begin += last - first;
    }
  });
  return out;
}

/// [blocks, n] summed over blocks, in double and in order.
template <class S>
void sum_blocks(const at::Tensor& partial, at::Tensor& total) {
  const int64_t blocks = partial.size(0), n = total.numel();
  const S* from = partial.const_data_ptr<S>();
  S* to = total.data_ptr<S>();
  at::parallel_for(0, n, 256, [&](int64_t begin, int64_t end) {
    std::vector<double> sums(static_cast<size_t>(end - begin), 0.0);
    for (int64_t j = 0; j < blocks; ++j)
      for (int64_t i = begin; i < end; ++i) sums[i - begin] += static_cast<double>(from[j * n + i]);
    for (int64_t i = begin; i < end; ++i) to[i] = static_cast<S>(sums[i - begin]);
  });
}

std::tuple<at::Tensor, at::Tensor> q_shift_mix_backward_cpu(const at::Tensor& x_in,
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
  const at::Tensor x = x_in.contiguous(), mixes = mixes_in.contiguous();
  const std::vector<at::Tensor> gys = checked_gradients(x, mixes, gys_in);
  at::Tensor gx = at::empty(x.sizes(), x.options());
  at::Tensor gmixes = at::zeros(mixes.sizes(), mixes.options());
  if (x.numel() == 0) return {gx, gmixes};

  const ShiftMixJob plan(x, mixes, height, width, shift);
  const shift_rows::Functions& rows = shift_functions(x.scalar_type());
  const int64_t tokens = x.size(1), image_bytes = tokens * x.size(2) * x.element_size();
  const int64_t blocks = (tokens + kBlock - 1) / kBlock;
  at::Tensor partial = at::zeros({x.size(0) * blocks, mixes.numel()}, mixes.options());
  const int64_t sums_bytes = mixes.numel() * mixes.element_size();
  at::parallel_for(0, x.size(0) * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / blocks, first = i % blocks * kBlock;
      const void* gy[5];
      for (size_t m = 0; m < gys.size(); ++m)
        gy[m] = static_cast<const char*>(gys[m].const_data_ptr()) + b * image_bytes;
      rows.backward(plan.job,
                    static_cast<const char*>(x.const_data_ptr()) + b * image_bytes,
                    gy,
                    static_cast<char*>(gx.mutable_data_ptr()) + b * image_bytes,
                    static_cast<char*>(partial.mutable_data_ptr()) + i * sums_bytes,
                    first,
                    std::min(tokens, first + kBlock));
    }
  });
  if (mixes.scalar_type() == at::kDouble)
    sum_blocks<double>(partial, gmixes);
  else
    sum_blocks<float>(partial, gmixes);
  return {gx, gmixes};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CPU, library) {
  library.impl("q_shift", q_shift_cpu);
  library.impl("q_shift_mix", q_shift_mix_cpu);
  library.impl("q_shift_mix_backward", q_shift_mix_backward_cpu);
}

}  // namespace vireo
