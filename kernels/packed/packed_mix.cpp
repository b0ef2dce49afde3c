#include "kernels/packed/packed_mix.h"

#include <algorithm>
#include <functional>

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "kernels/cpu_rows.h"
#include "kernels/packed/norm_rows.h"
#include "kernels/shift/shift_mix_job.h"
#include "kernels/shift/shift_ops.h"
#include "kernels/shift/shift_rows.h"

namespace vireo {
namespace {

using linear_rows::Rows;

// Tokens that pass through everything together.
constexpr int64_t kBlock = 128;

void normalise(const norm_of_rows::Job& job, int64_t rows) {
  static const auto& table = VIREO_TABLE_IN_USE(norm_of_rows);
  table.run(job, rows);
}

bool is_bf16(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16;
}

/// The rows of [..., C], contiguous, from `row` on.
Rows rows_from(const at::Tensor& x, int64_t row) {
  if (!x.defined()) return {};
  const int64_t channels = x.size(-1);
  return {
      static_cast<char*>(const_cast<void*>(x.const_data_ptr())) + row * channels * x.element_size(),
      channels,
      is_bf16(x)};
}

/// y = norm(x) gate + added for some rows.
void norm_rows(const PackedNorm& norm,
               const Rows& x,
               const Rows& y,
               const Rows& gate,
               const Rows& added,
               int64_t channels,
               int64_t rows) {
  norm_of_rows::Job job{};
  job.x = x;
  job.y = y;
  job.gate = gate;
  job.added = added;
  job.channels = channels;
  job.eps = static_cast<float>(norm.eps);
  if (norm.defined()) {
    job.weight = norm.weight.const_data_ptr<float>();
    job.bias = norm.bias.const_data_ptr<float>();
  }
  normalise(job, rows);
}

void multiply(linear_rows::Job job,
              const Rows& x,
              const Rows& y,
              const Rows& gate,
              const Rows& added,
              int64_t rows) {
  job.x = x;
  job.y = y;
  job.gate = gate;
  job.added = added;
  packed_linear_rows().run(job, rows);
}

/// Calls body(first, count) for blocks of rows; a block lies within `tokens` rows of one image.
void for_blocks(int64_t images,
                int64_t tokens,
                const std::function<void(int64_t first, int64_t count)>& body) {
  const int64_t threads = at::get_num_threads();
  // As many blocks as keep all threads busy, none longer than kBlock.
  const int64_t wanted = std::max((tokens + kBlock - 1) / kBlock, (threads + images - 1) / images);
  const int64_t even = (wanted * images + threads - 1) / threads * threads;
  const int64_t blocks = std::min(tokens, std::max(wanted, even / images));
  at::parallel_for(0, images * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t image = i / blocks, block = i % blocks;
      const int64_t first = block * tokens / blocks, last = (block + 1) * tokens / blocks;
      body(image * tokens + first, last - first);
    }
  });
}

/// Mixes tokens with their shifted neighbours, some rows at a time.
class Mixer {
 public:
  Mixer(const at::Tensor& x,
        const at::Tensor& mixes,
        int64_t height,
        int64_t width,
        const QShift& shift)
      : x_(x),
        rows_(functions_of(table(), x.scalar_type())),
        plan_(x, mixes, height, width, shift) {}

  /// Rows [first, first + count) of all images; out[m] takes `count` rows, contiguous.
  void run(int64_t first, int64_t count, const std::vector<at::Tensor>& out) const {
    const int64_t tokens = x_.size(1), size = x_.element_size(), row = x_.size(2) * size;
    const int64_t token = first % tokens;
    void* to[5];
    // The loops write from the image's first token on.
    for (size_t m = 0; m < out.size(); ++m)
      to[m] = static_cast<char*>(out[m].mutable_data_ptr()) - token * row;
    rows_.forward(plan_.job,
                  static_cast<const char*>(x_.const_data_ptr()) + (first - token) * row,
                  to,
                  token,
                  token + count);
  }

 private:
  static const shift_rows::Table& table() { return VIREO_TABLE_IN_USE(shift_rows); }

  const at::Tensor& x_;
  const shift_rows::Functions& rows_;
  ShiftMixJob plan_;
};

}  // namespace

std::vector<at::Tensor> packed_token_mix(const at::Tensor& x_in,
                                         const at::Tensor& mixes,
                                         const std::vector<const PackedLinear*>& layers,
                                         int64_t height,
                                         int64_t width,
                                         const QShift& shift) {
  const at::Tensor x = x_in.contiguous();
  const int64_t images = x.size(0), tokens = x.size(1), channels = x.size(2);
  TORCH_CHECK(static_cast<int64_t>(layers.size()) == mixes.size(0),
              "packed_token_mix: one layer per mix");
  check_q_shift_mix(x, mixes, height, width, shift);
  const Mixer mixer(x, mixes, height, width, shift);
  std::vector<at::Tensor> wide(layers.size()), y;
  std::vector<linear_rows::Job> jobs;
  for (size_t m = 0; m < layers.size(); ++m) {
    TORCH_CHECK(layers[m]->inner() == channels, "packed_token_mix: a layer does not fit");
    jobs.push_back(layers[m]->job(wide[m]));
    y.push_back(at::empty({images, tokens, layers[m]->outer()}, x.options()));
  }
  for_blocks(images, tokens, [&](int64_t first, int64_t count) {
    std::vector<at::Tensor> mixed;
    for (size_t m = 0; m < layers.size(); ++m)
      mixed.push_back(at::empty({count, channels}, x.options()));
    mixer.run(first, count, mixed);
    for (size_t m = 0; m < layers.size(); ++m)
      multiply(jobs[m], rows_from(mixed[m], 0), rows_from(y[m], first), {}, {}, count);
  });
  return y;
}

at::Tensor packed_readout(const at::Tensor& y_in,
                          const PackedNorm& norm,
                          const at::Tensor& gate_in,
                          const PackedLinear& layer,
                          const PackedNorm& last,
                          const at::Tensor& added_in) {
  const at::Tensor y = y_in.contiguous(), gate = gate_in.contiguous();
  const at::Tensor added = added_in.defined() ? added_in.contiguous() : added_in;
  const int64_t images = y.size(0), tokens = y.size(1), inner = y.size(2), outer = layer.outer();
  at::Tensor out = at::empty({images, tokens, outer}, y.options());
  TORCH_CHECK(layer.inner() == inner && gate.sizes() == y.sizes() &&
                  gate.scalar_type() == y.scalar_type() &&
                  (!added.defined() ||
                   (added.sizes() == out.sizes() && added.scalar_type() == out.scalar_type())),
              "packed_readout: the operands do not fit");
  at::Tensor wide;
  const linear_rows::Job job = layer.job(wide);
  for_blocks(images, tokens, [&](int64_t first, int64_t count) {
    const at::Tensor gated = at::empty({count, inner}, y.options());
    norm_rows(
        norm, rows_from(y, first), rows_from(gated, 0), rows_from(gate, first), {}, inner, count);
    const Rows to = rows_from(out, first), plus = rows_from(added, first);
    if (!last.defined()) return multiply(job, rows_from(gated, 0), to, {}, plus, count);
    multiply(job, rows_from(gated, 0), to, {}, {}, count);
    norm_rows(last, to, to, {}, plus, outer, count);
  });
  return out;
}

at::Tensor PackedChannelMix::operator()(const at::Tensor& x_in,
                                        int64_t height,
                                        int64_t width,
                                        const at::Tensor& added_in) const {
  const at::Tensor x = x_in.contiguous();
  const at::Tensor added = added_in.defined() ? added_in.contiguous() : added_in;
  const int64_t images = x.size(0), tokens = x.size(1), channels = x.size(2);
  at::Tensor out = at::empty({images, tokens, value.outer()}, x.options());
  TORCH_CHECK(key.inner() == channels && receptance.inner() == channels &&
                  key.outer() == value.inner() && receptance.outer() == value.outer() &&
                  (!added.defined() ||
                   (added.sizes() == out.sizes() && added.scalar_type() == out.scalar_type())),
              "PackedChannelMix: the operands do not fit");
  check_q_shift_mix(x, mixes, height, width, shift);
  const Mixer mixer(x, mixes, height, width, shift);
  at::Tensor wide[3];
  const linear_rows::Job to_hidden = key.job(wide[0]), to_gate = receptance.job(wide[1]),
                         to_out = value.job(wide[2]);
  for_blocks(images, tokens, [&](int64_t first, int64_t count) {
    const std::vector<at::Tensor> mixed = {at::empty({count, channels}, x.options()),
                                           at::empty({count, channels}, x.options())};
    const at::Tensor hidden = at::empty({count, key.outer()}, x.options());
    const at::Tensor gate = at::empty({count, value.outer()}, x.options());
    mixer.run(first, count, mixed);
    multiply(to_hidden, rows_from(mixed[0], 0), rows_from(hidden, 0), {}, {}, count);
    if (norm.defined())
      norm_rows(norm, rows_from(hidden, 0), rows_from(hidden, 0), {}, {}, key.outer(), count);
    multiply(to_gate, rows_from(mixed[1], 0), rows_from(gate, 0), {}, {}, count);
    const Rows to = rows_from(out, first), plus = rows_from(added, first);
    const Rows gating = rows_from(gate, 0);
    if (!last.defined()) return multiply(to_out, rows_from(hidden, 0), to, gating, plus, count);
    multiply(to_out, rows_from(hidden, 0), to, gating, {}, count);
    norm_rows(last, to, to, {}, plus, value.outer(), count);
  });
  return out;
}

}  // namespace vireo
