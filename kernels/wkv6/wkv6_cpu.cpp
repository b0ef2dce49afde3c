#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels/cpu_rows.h"
#include "kernels/wkv6/wkv6_ops.h"
#include "kernels/wkv6/wkv6_rows.h"

namespace vireo {
namespace {

using wkv6_rows::Entering;
using wkv6_rows::Row;
using wkv6_rows::StateKind;

const wkv6_rows::Functions& functions(at::ScalarType type) {
  static const auto& table = VIREO_TABLE_IN_USE(wkv6_rows);
  return functions_of(table, type);
}

/// One call's tensors.
struct Problem {
  at::Tensor r, k, v, gy, w, u;
  bool causal;
  int64_t batch, tokens, channels, heads, head, rows;
  int segment_tokens;
  int64_t segments;

  Problem(const at::Tensor& r_in,
          const at::Tensor& k_in,
          const at::Tensor& v_in,
          const at::Tensor& w_in,
          const at::Tensor& u_in,
          const at::Tensor& gy_in,
          bool causal)
      : r(with_unit_channels(r_in)),
        k(with_unit_channels(k_in)),
        v(with_unit_channels(v_in)),
        w(with_unit_channels(w_in.to(at::toOpMathType(k_in.scalar_type())))),
        u(u_in.to(w.scalar_type()).contiguous()),
        causal(causal),
        batch(k.size(0)),
        tokens(k.size(1)),
        channels(k.size(2)),
        heads(u.size(0)),
        head(u.size(1)),
        rows(batch * heads),
        segment_tokens(wkv6_rows::segment_tokens_of(tokens, gy_in.defined())),
        segments((tokens + segment_tokens - 1) / segment_tokens) {
    if (gy_in.defined()) gy = with_unit_channels(gy_in.to(k.scalar_type()));
  }

  template <class T>
  Row row(int64_t index) const {
    using S = at::opmath_type<T>;
    const int64_t b = index / heads, first = index % heads * head;
    const auto at = [&](const at::Tensor& x) {
      return x.defined() ? x.const_data_ptr<T>() + b * x.stride(0) + first : nullptr;
    };
    Row row{};
    row.tokens = tokens;
    row.segment_tokens = segment_tokens;
    row.head = static_cast<int>(head);
    row.causal = causal;
    row.r = at(r);
    row.k = at(k);
    row.v = at(v);
    row.gy = at(gy);
    row.w = w.const_data_ptr<S>() + b * w.stride(0) + first;
    row.u = u.const_data_ptr<S>() + first;
    row.r_stride = r.stride(1);
    row.k_stride = k.stride(1);
    row.v_stride = v.stride(1);
    row.gy_stride = gy.defined() ? gy.stride(1) : 0;
    row.w_stride = w.stride(1);
    row.out_stride = channels;
    return row;
  }

  /// Memory for one thread, aligned as vectors are.
  at::Tensor scratch() const {
    return at::empty(
        {wkv6_rows::scratch_size(static_cast<int>(head), segment_tokens, gy.defined())},
        w.options());
  }

  /// Where in a contiguous [B,T,C] tensor this row begins.
  int64_t offset(int64_t index) const {
    return index / heads * tokens * channels + index % heads * head;
  }
};

/// The states that enter every segment, [rows][kinds][segments][padded][padded]; of a single
/// segment one state of zeros for all.
template <class T>
class States {
 public:
  using S = at::opmath_type<T>;

  States(const Problem& problem, bool backward) : segments_(problem.segments) {
    for (int kind = 0; kind < wkv6_rows::kStateKinds; ++kind) {
      const bool gradient = kind == wkv6_rows::kGradLeft || kind == wkv6_rows::kGradRight;
      // A causal row uses the keys' sums from the left and the gradients' from the right.
      const bool other_way = kind == wkv6_rows::kRight || kind == wkv6_rows::kGradLeft;
      place_[kind] = -1;
      if ((gradient && !backward) || (problem.causal && other_way)) continue;
      place_[kind] = static_cast<int64_t>(kinds_.size());
      kinds_.push_back(static_cast<StateKind>(kind));
    }
    width_ = wkv6_rows::padded(static_cast<int>(problem.head));
    const auto options = problem.w.options();
    if (segments_ == 1) {
      states_ = at::zeros({width_, width_}, options);
      return;
    }
    const auto count = static_cast<int64_t>(kinds_.size());
    states_ = at::empty({problem.rows, count, segments_, width_ * width_}, options);
    log_totals_ = at::empty({problem.rows, segments_, width_}, options);
    summarise(problem);
    carry(problem);
  }

  Entering entering(int64_t row, int64_t segment) const {
    Entering entering{};
    for (int kind = 0; kind < wkv6_rows::kStateKinds; ++kind)
      if (place_[kind] >= 0)
        entering.state[kind] = states_.template const_data_ptr<S>() +
                               index(row, place_[kind], segment) * width_ * width_;
    return entering;
  }

 private:
  int64_t index(int64_t row, int64_t kind, int64_t segment) const {
    return segments_ == 1
               ? 0
               : (row * static_cast<int64_t>(kinds_.size()) + kind) * segments_ + segment;
  }

  /// What a segment adds to a state is of use behind it alone.
  void summarise(const Problem& problem) {
    const auto& rows = functions(problem.k.scalar_type());
    S* states = states_.template data_ptr<S>();
    S* log_totals = log_totals_.template data_ptr<S>();
    at::parallel_for(0, problem.rows * segments_, 1, [&](int64_t begin, int64_t end) {
      const at::Tensor scratch = problem.scratch();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i / segments_, segment = i % segments_;
        wkv6_rows::Leaving leaving{};
        for (const StateKind kind : kinds_)
          if (segment != last(kind))
            leaving.state[kind] = states + index(row, place_[kind], segment) * width_ * width_;
        leaving.log_total = log_totals + i * width_;
        rows.summarise(problem.row<T>(row), segment, leaving, scratch.mutable_data_ptr());
      }
    });
  }

  /// Replaces every segment's own sum by what enters it.
  void carry(const Problem& problem) {
    const auto count = static_cast<int64_t>(kinds_.size());
    S* states = states_.template data_ptr<S>();
    const S* log_totals = log_totals_.template const_data_ptr<S>();
    at::parallel_for(0, problem.rows * count * width_, 16, [&](int64_t begin, int64_t end) {
      std::vector<S> running(static_cast<size_t>(width_));
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i % width_, row = i / width_ / count, place = i / width_ % count;
        const StateKind kind = kinds_[static_cast<size_t>(place)];
        std::fill(running.begin(), running.end(), S(0));
        for (int64_t j = 0; j < segments_; ++j) {
          const int64_t segment = from_left(kind) ? j : segments_ - 1 - j;
          S* state = states + (index(row, place, segment) * width_ + n) * width_;
          if (segment == last(kind)) {
            std::copy(running.begin(), running.end(), state);
            break;
          }
          const S less_one = std::expm1(log_totals[(row * segments_ + segment) * width_ + n]);
          for (int64_t m = 0; m < width_; ++m) {
            const S own = state[m];
            state[m] = running[static_cast<size_t>(m)];
            running[static_cast<size_t>(m)] += state[m] * less_one + own;
          }
        }
      }
    });
  }

  static bool from_left(StateKind kind) {
    return kind == wkv6_rows::kLeft || kind == wkv6_rows::kGradLeft;
  }
  /// The segment that a state meets last.
  int64_t last(StateKind kind) const { return from_left(kind) ? segments_ - 1 : 0; }

  int64_t segments_, width_;
  std::vector<StateKind> kinds_;
  int64_t place_[wkv6_rows::kStateKinds];
  at::Tensor states_, log_totals_;
};

at::Tensor contiguous_like(const at::Tensor& x) {
  return at::empty(x.sizes(), x.options().memory_format(at::MemoryFormat::Contiguous));
}

at::Tensor wkv6_cpu(const at::Tensor& r,
                    const at::Tensor& k,
                    const at::Tensor& v,
                    const at::Tensor& w,
                    const at::Tensor& u,
                    bool causal) {
  check_wkv6(r, k, v, w, u);
  at::Tensor y = contiguous_like(k);
  if (y.numel() == 0) return y;
  const Problem problem(r, k, v, w, u, {}, causal);
  const auto& rows = functions(k.scalar_type());
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, k.scalar_type(), "wkv6", [&] {
    const States<scalar_t> states(problem, /*backward=*/false);
    at::parallel_for(0, problem.rows * problem.segments, 1, [&](int64_t begin, int64_t end) {
      const at::Tensor scratch = problem.scratch();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t index = i / problem.segments, segment = i % problem.segments;
        Row row = problem.row<scalar_t>(index);
        row.y = y.data_ptr<scalar_t>() + problem.offset(index);
        rows.forward(row, segment, states.entering(index, segment), scratch.mutable_data_ptr());
      }
    });
  });
  return y;
}

Wkv6Gradients wkv6_backward_cpu(const at::Tensor& r,
                                const at::Tensor& k,
                                const at::Tensor& v,
                                const at::Tensor& w,
                                const at::Tensor& u,
                                const at::Tensor& gy,
                                bool causal) {
  check_wkv6(r, k, v, w, u);
  check_wkv6_gradient(k, gy);
  at::Tensor gr = contiguous_like(k), gk = contiguous_like(k), gv = contiguous_like(k);
  if (k.numel() == 0) return {gr, gk, gv, at::zeros_like(w), at::zeros_like(u)};
  const Problem problem(r, k, v, w, u, gy, causal);
  const auto& rows = functions(k.scalar_type());
  at::Tensor gw = at::empty(k.sizes(), problem.w.options());
  // Shares of single segments, summed in one order whoever computed them.
  at::Tensor shares =
      at::empty({problem.batch, problem.heads, problem.segments, problem.head}, at::kDouble);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, k.scalar_type(), "wkv6_backward", [&] {
    using S = at::opmath_type<scalar_t>;
    const States<scalar_t> states(problem, /*backward=*/true);
    at::parallel_for(0, problem.rows * problem.segments, 1, [&](int64_t begin, int64_t end) {
      const at::Tensor scratch = problem.scratch();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t index = i / problem.segments, segment = i % problem.segments;
        const int64_t offset = problem.offset(index);
        Row row = problem.row<scalar_t>(index);
        row.gr = gr.data_ptr<scalar_t>() + offset;
        row.gk = gk.data_ptr<scalar_t>() + offset;
        row.gv = gv.data_ptr<scalar_t>() + offset;
        row.gw = gw.data_ptr<S>() + offset;
        rows.backward(row,
                      segment,
                      states.entering(index, segment),
                      scratch.mutable_data_ptr(),
                      shares.data_ptr<double>() + i * problem.head);
      }
    });
  });
  at::Tensor gu = at::zeros({problem.heads, problem.head}, at::kDouble);
  for (int64_t b = 0; b < problem.batch; ++b)
    for (int64_t j = 0; j < problem.segments; ++j) gu += shares.select(0, b).select(1, j);
  return {gr, gk, gv, gw.to(w.scalar_type()), gu.to(u.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CPU, library) {
  library.impl("wkv6", wkv6_cpu);
  library.impl("wkv6_backward", wkv6_backward_cpu);
}

}  // namespace vireo
