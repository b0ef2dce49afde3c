#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels/bi_wkv/bi_wkv_lane.h"
#include "kernels/bi_wkv/bi_wkv_ops.h"
#include "kernels/bi_wkv/bi_wkv_published.h"
#include "kernels/bi_wkv/bi_wkv_rows.h"
#include "kernels/cpu_rows.h"

namespace vireo {
namespace {

using wkv_rows::Cut;
using wkv_rows::kWidth;
using wkv_rows::Row;

const wkv_rows::Functions& wkv_functions(at::ScalarType type) {
  static const auto& table = VIREO_TABLE_IN_USE(wkv_rows);
  return functions_of(table, type);
}

/// One call's tensors and what it derives from w and u.
template <class T>
struct Problem {
  using S = at::opmath_type<T>;

  at::Tensor w, u, k, v, gy;
  int64_t batch, tokens, channels, rows_per_item;
  Cut cut;
  at::Tensor parameters;        ///< [rows per item][kParameters][kWidth]
  std::vector<int64_t> unsafe;  ///< channels whose decay needs the other way

  Problem(const at::Tensor& w_in,
          const at::Tensor& u_in,
          const at::Tensor& k_in,
          const at::Tensor& v_in,
          const at::Tensor& gy_in)
      : w(w_in.to(c10::CppTypeToScalarType<S>::value).contiguous()),
        u(u_in.to(c10::CppTypeToScalarType<S>::value).contiguous()),
        k(with_unit_channels(k_in)),
        v(with_unit_channels(v_in)),
        batch(k.size(0)),
        tokens(k.size(1)),
        channels(k.size(2)),
        rows_per_item((channels + kWidth<S> - 1) / kWidth<S>),
        cut(tokens) {
    if (gy_in.defined()) gy = with_unit_channels(gy_in.to(k.scalar_type()));
    derive();
  }

  bool backward() const { return gy.defined(); }
  bool some_safe() const { return static_cast<int64_t>(unsafe.size()) < channels; }

  void derive() {
    parameters = at::empty({rows_per_item, wkv_rows::kParameters, kWidth<S>}, w.options());
    const S *w_at = w.const_data_ptr<S>(), *u_at = u.const_data_ptr<S>();
    std::vector<double> decay(static_cast<size_t>(rows_per_item * kWidth<S>)), bonus(decay.size());
    for (int64_t c = 0; c < channels; ++c) {
      // An unsafe channel takes part with decay and bonus zero; its results are overwritten.
      if (!wkv::row_is_safe(w_at[c], u_at[c], tokens)) {
        unsafe.push_back(c);
        continue;
      }
      decay[c] = static_cast<double>(w_at[c]);
      bonus[c] = static_cast<double>(u_at[c]);
    }
    const auto derive = wkv_functions(k.scalar_type()).derive;
    for (int64_t part = 0; part < rows_per_item; ++part)
      derive(decay.data() + part * kWidth<S>,
             bonus.data() + part * kWidth<S>,
             cut.length,
             parameters.data_ptr<S>() + part * wkv_rows::kParameters * kWidth<S>);
  }

  /// Without results and scratch.
  Row row(int64_t b, int64_t part) const {
    const int64_t first = part * kWidth<S>;
    const auto at = [&](const at::Tensor& x) {
      return x.defined() ? x.const_data_ptr<T>() + b * x.stride(0) + first : nullptr;
    };
    Row row{};
    row.tokens = tokens;
    row.segments = cut.count;
    row.segment_tokens = cut.length;
    row.width = static_cast<int>(std::min<int64_t>(kWidth<S>, channels - first));
    row.k = at(k);
    row.v = at(v);
    row.gy = at(gy);
    row.k_stride = k.stride(1);
    row.v_stride = v.stride(1);
    row.gy_stride = gy.defined() ? gy.stride(1) : 0;
    row.out_stride = channels;
    row.parameters = parameters.const_data_ptr<S>() + part * wkv_rows::kParameters * kWidth<S>;
    return row;
  }

  /// Where in a contiguous [B,T,C] a row begins.
  int64_t offset(int64_t b, int64_t part) const { return b * tokens * channels + part * kWidth<S>; }
};

/// What is done with every segment of every row; of rows of several segments, first `summarise`
/// with every segment and then `carry` with every row, pair after pair.
struct Stages {
  std::vector<std::pair<void (*)(const Row&, int64_t), void (*)(const Row&)>> before;
  void (*segment)(const Row&, int64_t);
};

/// Runs the stages over all rows. finish(row, b, part) adds where results go.
template <class T, class Finish>
void run_stages(const Problem<T>& problem, const Stages& stages, const Finish& finish) {
  using S = typename Problem<T>::S;
  const int64_t parts = problem.rows_per_item, segments = problem.cut.count;
  const at::TensorOptions options = problem.w.options();
  // Items of the batch that go through the stages together: enough to keep all threads busy, and
  // few, so that one stage finds in the cache what another has read.
  const int64_t wanted = 4 * at::get_num_threads(), units = parts * segments;
  const int64_t together =
      segments == 1 ? problem.batch
                    : std::clamp<int64_t>((wanted + units - 1) / units, 1, problem.batch);
  const int64_t ends_size = segments * wkv_rows::kEnds * kWidth<S>;
  at::Tensor ends;
  if (segments > 1) ends = at::empty({together * parts, ends_size}, options);
  for (int64_t first = 0; first < problem.batch; first += together) {
    const int64_t items = std::min(together, problem.batch - first);
    const auto row_at = [&](int64_t item, int64_t part) {
      Row row = problem.row(first + item, part);
      if (segments > 1) row.ends = ends.data_ptr<S>() + (item * parts + part) * ends_size;
      finish(row, first + item, part);
      return row;
    };
    const auto of_segments = [&](void (*stage)(const Row&, int64_t)) {
      at::parallel_for(0, items * units, 1, [&](int64_t begin, int64_t end) {
        const at::Tensor scratch =
            at::empty({wkv_rows::scratch_size<S>(std::min(problem.tokens, problem.cut.length),
                                                 problem.backward())},
                      options);
        for (int64_t i = begin; i < end; ++i) {
          Row row = row_at(i / units, i % parts);
          row.scratch = scratch.data_ptr<S>();
          stage(row, i / parts % segments);
        }
      });
    };
    if (segments > 1)
      for (const auto& [summarise, carry] : stages.before) {
        of_segments(summarise);
        at::parallel_for(0, items * parts, 1, [&, carry = carry](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) carry(row_at(i / parts, i % parts));
        });
      }
    of_segments(stages.segment);
  }
}

/// Calls body(b, c) for every batch item and unsafe channel.
template <class T, class Body>
void for_each_unsafe(const Problem<T>& problem, const Body& body) {
  const int64_t count = static_cast<int64_t>(problem.unsafe.size());
  at::parallel_for(0, problem.batch * count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i / count, problem.unsafe[i % count]);
  });
}

template <class T>
wkv::Lane<const T> lane_of(const at::Tensor& x, int64_t b, int64_t c) {
  return {x.const_data_ptr<T>() + b * x.stride(0) + c, x.stride(1)};
}
template <class T>
wkv::Lane<T> result_lane(at::Tensor& x, int64_t b, int64_t c) {
  return {x.data_ptr<T>() + b * x.stride(0) + c, x.stride(1)};
}

at::Tensor bi_wkv_cpu(const at::Tensor& w,
                      const at::Tensor& u,
                      const at::Tensor& k,
                      const at::Tensor& v) {
  check_bi_wkv(w, u, k, v);
  at::Tensor y = at::empty(k.sizes(), k.options().memory_format(at::MemoryFormat::Contiguous));
  if (y.numel() == 0) return y;
  const auto run = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using S = at::opmath_type<T>;
    const Problem<T> problem(w, u, k, v, {});
    const wkv_rows::Functions& rows = wkv_functions(k.scalar_type());
    if (problem.some_safe())
      run_stages(problem,
                 {{{rows.summarise, rows.carry}}, rows.forward},
                 [&](Row& row, int64_t b, int64_t part) {
                   row.out[0] = y.data_ptr<T>() + problem.offset(b, part);
                 });
    for_each_unsafe(problem, [&](int64_t b, int64_t c) {
      wkv::lane_forward<S, T>(problem.w.template const_data_ptr<S>()[c],
                              problem.u.template const_data_ptr<S>()[c],
                              lane_of<T>(problem.k, b, c),
                              lane_of<T>(problem.v, b, c),
                              result_lane<T>(y, b, c),
                              problem.tokens);
    });
  };
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv", [&] {
    run(static_cast<scalar_t*>(nullptr));
  });
  return y;
}

/// [count,C] summed in order, whatever the number of threads.
at::Tensor sum_shares(const double* shares, int64_t count, const at::Tensor& like) {
  at::Tensor total = at::zeros(like.sizes(), like.options().dtype(at::kDouble));
  double* sums = total.data_ptr<double>();
  const int64_t channels = like.numel();
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < channels; ++c) sums[c] += shares[i * channels + c];
  return total.to(like.scalar_type());
}

BiWkvGradients bi_wkv_backward_cpu(const at::Tensor& w,
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
  const auto options = k.options().memory_format(at::MemoryFormat::Contiguous);
  at::Tensor gk = at::empty(k.sizes(), options), gv = at::empty(k.sizes(), options);
  if (gk.numel() == 0) return {at::zeros_like(w), at::zeros_like(u), gk, gv};
  const int64_t segments = Cut(k.size(1)).count;
  at::Tensor shares =
      at::empty({2, k.size(0) * segments, k.size(2)}, k.options().dtype(at::kDouble));
  double* share_w = shares.data_ptr<double>();
  double* share_u = share_w + shares.stride(0);
  const auto run = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    using S = at::opmath_type<T>;
    const Problem<T> problem(w, u, k, v, gy);
    const wkv_rows::Functions& rows = wkv_functions(k.scalar_type());
    if (problem.some_safe())
      run_stages(
          problem,
          {{{rows.summarise, rows.carry}, {rows.grad_summarise, rows.grad_carry}}, rows.backward},
          [&](Row& row, int64_t b, int64_t part) {
            const int64_t offset = problem.offset(b, part);
            row.out[0] = gk.data_ptr<T>() + offset;
            row.out[1] = gv.data_ptr<T>() + offset;
            const int64_t share = b * segments * problem.channels + part * kWidth<S>;
            row.shares = share_w + share;
            row.shares_u = share_u + share;
            row.shares_stride = problem.channels;
          });
    for_each_unsafe(problem, [&](int64_t b, int64_t c) {
      const wkv::Share<double> share =
          wkv::lane_backward<S, T>(problem.w.template const_data_ptr<S>()[c],
                                   problem.u.template const_data_ptr<S>()[c],
                                   lane_of<T>(problem.k, b, c),
                                   lane_of<T>(problem.v, b, c),
                                   lane_of<T>(problem.gy, b, c),
                                   result_lane<T>(gk, b, c),
                                   result_lane<T>(gv, b, c),
                                   problem.tokens);
      for (int64_t j = 0; j < segments; ++j) {
        share_w[(b * segments + j) * problem.channels + c] = j == 0 ? share.w : 0;
        share_u[(b * segments + j) * problem.channels + c] = j == 0 ? share.u : 0;
      }
    });
  };
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv_backward", [&] {
        run(static_cast<scalar_t*>(nullptr));
      });
  const int64_t count = shares.size(1);
  return {sum_shares(share_w, count, w), sum_shares(share_u, count, u), gk, gv};
}

at::Tensor bi_wkv_published_cpu(const at::Tensor& w,
                                const at::Tensor& u,
                                const at::Tensor& k,
                                const at::Tensor& v) {
  check_bi_wkv(w, u, k, v);
  at::Tensor y = at::empty(k.sizes(), k.options().memory_format(at::MemoryFormat::Contiguous));
  if (y.numel() == 0) return y;
  const at::Tensor decay = w.to(at::kDouble).contiguous(), bonus = u.to(at::kDouble).contiguous();
  const at::Tensor keys = with_unit_channels(k), values = with_unit_channels(v);
  const int64_t channels = k.size(2);
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv_published", [&] {
        at::parallel_for(0, k.size(0) * channels, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t b = i / channels, c = i % channels;
            const auto key = lane_of<scalar_t>(keys, b, c), value = lane_of<scalar_t>(values, b, c);
            const auto result = result_lane<scalar_t>(y, b, c);
            wkv::published_row(
                decay.const_data_ptr<double>()[c],
                bonus.const_data_ptr<double>()[c],
                k.size(1),
                [&](int64_t t) { return static_cast<double>(key(t)); },
                [&](int64_t t) { return static_cast<double>(value(t)); },
                [&](int64_t t, double x) { result(t) = static_cast<scalar_t>(x); });
          }
        });
      });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CPU, library) {
  library.impl("bi_wkv", bi_wkv_cpu);
  library.impl("bi_wkv_backward", bi_wkv_backward_cpu);
  library.impl("bi_wkv_published", bi_wkv_published_cpu);
}

}  // namespace vireo
