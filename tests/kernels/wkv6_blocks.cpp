// The GPU's arithmetic and its decomposition into blocks, run on the CPU.
#include "kernels/wkv6/wkv6_blocks.h"

#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/wkv6/wkv6_ops.h"
#include "tests/kernels/reference.h"

namespace vireo {
namespace {

using test::deviation;
using test::wkv6_reference;
using namespace wkv6_math;

struct Alone {
  int rank() const { return 0; }
  int size() const { return 1; }
  void sync() const {}
};

struct Inputs {
  at::Tensor r, k, v, w, u, gy;

  Inputs(int64_t batch, int64_t tokens, int64_t heads, int64_t head) {
    const auto draw = [&] { return at::randn({batch, tokens, heads * head}).to(at::kDouble); };
    r = draw(), k = draw(), v = draw(), gy = draw();
    w = at::empty_like(k).uniform_(-6, 2).to(at::kFloat).to(at::kDouble);
    u = at::randn({heads, head}).to(at::kDouble);
  }
};

/// What wkv6_cuda.cu launches, one place after the other.
template <class S>
class Grid {
 public:
  Grid(const Inputs& in, bool causal) : causal_(causal) {
    const auto type = c10::CppTypeToScalarType<S>::value;
    for (const at::Tensor* x : {&in.r, &in.k, &in.v, &in.gy, &in.u})
      tensors_.push_back(x->to(type).contiguous());
    log_decay_ = wkv6_log_decay(in.w, tensors_[1]);
    p_ = {data(0),
          data(1),
          data(2),
          data(3),
          log_decay_.const_data_ptr<S>(),
          data(4),
          in.k.size(0) * in.u.size(0),
          in.k.size(1),
          in.u.size(0),
          static_cast<int>(in.u.size(1))};
  }

  at::Tensor forward() {
    at::Tensor y = at::full_like(log_decay_, NAN);
    for (const bool from_left : {true, false}) {
      if (causal_ && !from_left) continue;
      const at::Tensor states = entering(from_left, false);
      over_chunks(from_left, /*backward=*/false, [&](const Place& place, const Tile<S>& tile) {
        forward_chunk(Alone{}, p_, place, state_in(states, place), tile, y.data_ptr<S>());
      });
    }
    return y;
  }

  /// gr, gk, gv, gw, gu
  std::vector<at::Tensor> backward(const at::Tensor& w) {
    std::vector<at::Tensor> g;
    for (int i = 0; i < 4; ++i) g.push_back(at::full_like(log_decay_, NAN));
    at::Tensor shares = at::full({p_.rows, p_.chunks(), p_.head}, NAN, log_decay_.options());
    const Gradients<S> to{g[0].data_ptr<S>(),
                          g[1].data_ptr<S>(),
                          g[2].data_ptr<S>(),
                          g[3].data_ptr<S>(),
                          shares.data_ptr<S>()};
    for (const bool from_left : {true, false}) {
      if (causal_ && !from_left) continue;
      const at::Tensor states = entering(from_left, false), z = entering(!from_left, true);
      over_chunks(from_left, /*backward=*/true, [&](const Place& place, const Tile<S>& tile) {
        backward_chunk(Alone{}, p_, place, state_in(states, place), state_in(z, place), tile, to);
      });
    }
    g[3] = wkv6_gw(g[3], log_decay_, w);
    g.push_back(shares.view({-1, p_.heads, p_.chunks(), p_.head}).sum(2).sum(0));
    return g;
  }

 private:
  const S* data(size_t i) const { return tensors_[i].template const_data_ptr<S>(); }
  const S* state_in(const at::Tensor& states, const Place& place) const {
    return states.const_data_ptr<S>() + (place.row * p_.chunks() + place.chunk) * p_.head * p_.head;
  }

  template <class Body>
  void over_chunks(bool from_left, bool backward, const Body& body) {
    for (int64_t row = 0; row < p_.rows; ++row)
      for (int64_t chunk = 0; chunk < p_.chunks(); ++chunk) {
        std::vector<S> memory(static_cast<size_t>(Tile<S>::size(p_.head, backward)), S(NAN));
        body(Place{row, chunk, from_left}, Tile<S>(memory.data(), p_.head, backward));
      }
  }

  at::Tensor entering(bool from_left, bool gradient) {
    at::Tensor states =
        at::full({p_.rows, p_.chunks(), p_.head, p_.head}, NAN, log_decay_.options());
    at::Tensor less_one = at::full({p_.rows, p_.chunks(), p_.head}, NAN, log_decay_.options());
    over_chunks(from_left, /*backward=*/false, [&](const Place& place, const Tile<S>& tile) {
      summarise_chunk(Alone{},
                      p_,
                      place,
                      gradient,
                      tile,
                      states[place.row][place.chunk].data_ptr<S>(),
                      less_one[place.row][place.chunk].data_ptr<S>());
    });
    for (int64_t row = 0; row < p_.rows; ++row)
      for (int n = 0; n < p_.head; ++n)
        for (int m = 0; m < p_.head; ++m)
          carry_number(p_.chunks(),
                       p_.head,
                       from_left,
                       n,
                       m,
                       states[row].data_ptr<S>(),
                       less_one[row].data_ptr<S>());
    return states;
  }

  bool causal_;
  std::vector<at::Tensor> tensors_;
  at::Tensor log_decay_;
  Problem<S, S> p_;
};

template <class S>
void expect_reference(const Inputs& in, bool causal, double output, double gradient) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor* x : {&in.r, &in.k, &in.v, &in.w, &in.u})
    leaves.push_back(x->clone().requires_grad_());
  const at::Tensor truth =
      wkv6_reference(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], causal);
  truth.backward(in.gy);
  Grid<S> grid(in, causal);
  EXPECT_LE(deviation(grid.forward(), truth), output) << "y";
  const auto gradients = grid.backward(in.w);
  for (size_t i = 0; i < 5; ++i)
    EXPECT_LE(deviation(gradients[i], test::gradient_of(leaves[i])), gradient) << "gradient " << i;
}

TEST(Wkv6Blocks, EqualTheRecurrence) {
  for (const bool causal : {false, true})
    for (const auto& [batch, tokens, heads, head] : std::vector<std::tuple<int, int, int, int>>{
             {1, 1, 1, 1}, {2, 17, 2, 8}, {2, 48, 3, 16}, {1, 37, 1, 64}, {1, 200, 1, 7}}) {
      SCOPED_TRACE(::testing::Message()
                   << batch << " x " << tokens << " x " << heads << " x " << head << " " << causal);
      const Inputs in(batch, tokens, heads, head);
      expect_reference<double>(in, causal, 1e-13, 1e-12);
      expect_reference<float>(in, causal, 2e-6, 5e-6);
    }
}

TEST(Wkv6Blocks, FitTheSharedMemoryOfComputeCapability80) {
  EXPECT_LE(Tile<double>::size(128, /*backward=*/true) * 8, 163 * 1024);
}

}  // namespace
}  // namespace vireo
