// WKV6 as the tensor cores compute it, run on the CPU: all lanes of every warp, with m16n8k16's own
// placement of numbers in lanes and registers.
#include "kernels/wkv6/wkv6_mma.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/wkv6/wkv6_mma_backward.h"
#include "kernels/wkv6/wkv6_ops.h"
#include "tests/kernels/reference.h"
#include "tests/kernels/tensor_core.h"

namespace vireo {
namespace {

using test::wkv6_reference;
using namespace wkv6_math;

/// 32 lanes at once.
struct AllLanes {
  static constexpr int kHeld = kLanes;

  int lane(int h) const { return h; }

  void mma(Numbers<AllLanes>& sums,
           int s,
           const Bits<AllLanes>& a,
           const Bits<AllLanes>& b,
           int low,
           int high) const {
    test::mma_m16n8k16([&](int lane, int i) { return a.x[lane][i]; },
                       [&](int lane, int i) { return b.x[lane][i == 0 ? low : high]; },
                       [&](int lane, int i) -> float& { return sums.x[lane][s + i]; });
  }

  void transpose(const Bits<AllLanes>& from, int i, Bits<AllLanes>& to, int j) const {
    for (int lane = 0; lane < 32; ++lane) to.x[lane][j] = from.x[lane][i];
    test::movmatrix([&](int lane) -> uint32_t& { return to.x[lane][j]; });
  }

  Numbers<AllLanes> exchange(const Numbers<AllLanes>& n, int mask) const {
    Numbers<AllLanes> result;
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < kOfLane; ++e) result.x[lane][e] = n.x[lane ^ mask][e];
    return result;
  }
};

template <int kTiles>
struct AllWarps {
  using Warp = AllLanes;
  static constexpr int kWarps = kTiles;

  template <class Body>
  void each_warp(const Body& body) const {
    for (int w = 0; w < kWarps; ++w) body(AllLanes{}, w, w);
  }
  void sync() const {}
};

Numbers<AllLanes> tile_of(const at::Tensor& matrix) {
  const auto x = matrix.accessor<float, 2>();
  return numbers(AllLanes{}, [&](int, int, int row, int column) { return x[row][column]; });
}

at::Tensor matrix_of(const Numbers<AllLanes>& tile) {
  at::Tensor matrix = at::full({kTile, kTile}, NAN);
  auto x = matrix.accessor<float, 2>();
  each_number(AllLanes{},
              [&](int h, int e, int row, int column) { x[row][column] = tile.x[h][e]; });
  return matrix;
}

TEST(Wkv6Tiles, MultiplyAndTransposeLikeMatrices) {
  const AllLanes warp;
  // Whole numbers below 256 are exact in bfloat16, and sums of their products in float32.
  const auto draw = [] { return at::randint(-255, 256, {kTile, kTile}).to(at::kFloat); };
  const at::Tensor a = draw(), b = draw(), c = draw();
  const auto fa = factor<1>(warp, tile_of(a)), fb = factor<1>(warp, tile_of(b));
  Numbers<AllLanes> sums = tile_of(c);
  multiply(warp, sums, fa, fb);
  EXPECT_TRUE(at::equal(matrix_of(sums), c + a.matmul(b.t())));
  sums = tile_of(c);
  multiply(warp, sums, transposed(warp, fa), transposed(warp, fb));
  EXPECT_TRUE(at::equal(matrix_of(sums), c + a.t().matmul(b)));
}

TEST(Wkv6Tiles, ReadRowsApartByABit) {
  const at::Tensor x = at::randn({kTile, kTile});
  for (int bit = 0; bit < 4; ++bit) {
    const at::Tensor rows = at::arange(kTile).bitwise_xor(1 << bit);
    EXPECT_TRUE(
        at::equal(matrix_of(across_rows(AllLanes{}, tile_of(x), bit)), x.index_select(0, rows)));
  }
}

TEST(Wkv6Tiles, ScanRowsInBlocks) {
  const at::Tensor x = at::randn({kTile, kTile});
  for (int bits = 0; bits <= 4; ++bits) {
    const auto scan = add_rows(AllLanes{}, tile_of(x), bits);
    const at::Tensor blocks = x.view({-1, 1 << bits, kTile});
    const at::Tensor all = blocks.sum(1, true).expand_as(blocks);
    const at::Tensor up_to = blocks.cumsum(1);
    const auto near = [&](const Numbers<AllLanes>& ours, const at::Tensor& truth) {
      return (matrix_of(ours) - truth.reshape({kTile, kTile})).abs().max().item<double>() < 1e-5;
    };
    EXPECT_TRUE(near(scan.before, up_to - blocks)) << bits;
    EXPECT_TRUE(near(scan.behind, all - up_to)) << bits;
    EXPECT_TRUE(near(scan.all, all)) << bits;
  }
}

/// float64, but what their storage holds.
struct TileInputs {
  at::Tensor r, k, v, w, u, gy;
};

/// Inputs as T holds them; w from `least` to `most`.
template <class T>
TileInputs draw(
    int64_t batch, int64_t tokens, int64_t heads, int64_t head, double least, double most) {
  const auto type = c10::CppTypeToScalarType<T>::value;
  const auto values = [&] {
    return at::randn({batch, tokens, heads * head}).to(type).to(at::kDouble);
  };
  const at::Tensor w = at::empty({batch, tokens, heads * head}).uniform_(least, most);
  return {values(),
          values(),
          values(),
          w.to(at::kDouble),
          at::randn({heads, head}).to(at::kDouble),
          values()};
}

/// What wkv6_mma.cu launches, one block after the other, with stretches of `each` chunks.
template <class T, int kParts, int kTiles>
class Emulated {
 public:
  Emulated(const TileInputs& in, int64_t each) : w_(in.w), each_(each) {
    for (const at::Tensor* x : {&in.r, &in.k, &in.v, &in.gy})
      stored_.push_back(x->to(c10::CppTypeToScalarType<T>::value));
    log_decay_ = wkv6_log_decay(in.w, stored_[1]);
    u_ = in.u.to(at::kFloat);
    p_ = {stored_[0].const_data_ptr<T>(),
          stored_[1].const_data_ptr<T>(),
          stored_[2].const_data_ptr<T>(),
          stored_[3].const_data_ptr<T>(),
          log_decay_.const_data_ptr<float>(),
          u_.const_data_ptr<float>(),
          in.k.size(0) * in.u.size(0),
          in.k.size(1),
          in.u.size(0),
          static_cast<int>(in.u.size(1))};
    count_ = (p_.chunks() + each - 1) / each;
  }

  at::Tensor forward(bool causal) { return forward(p_, {true, !causal}); }

  /// gr, gk, gv, gw, gu
  std::vector<at::Tensor> backward(bool causal) {
    const Problem<T, float> of_k = exchanged(p_);
    const Sides of_r{true, !causal}, both_or_right{!causal, true};
    at::Tensor gr = like(), gk = like(), log_decay = at::full_like(log_decay_, NAN);
    at::Tensor part_r = at::full_like(log_decay_, NAN), part_k = at::full_like(log_decay_, NAN);
    at::Tensor shares = at::full({p_.rows, count_, p_.head}, NAN);
    Kept kept_r(kept_size()), kept_k(causal ? 0 : kept_size());
    bool add = false;
    for (const bool from_left : {true, false}) {
      if (from_left || !causal) {
        gradient(p_, {of_r, from_left}, part_r, gr, log_decay, add, &shares, kept_r, kept_k);
        add = true;
      }
      if (!from_left || !causal)
        gradient(
            of_k, {both_or_right, from_left}, part_k, gk, log_decay, add, nullptr, kept_k, kept_r);
    }
    return {gr,
            gk,
            forward(of_k, both_or_right),
            wkv6_gw(log_decay, log_decay_, w_),
            shares.view({-1, p_.heads, count_, p_.head}).sum(2).sum(0)};
  }

 private:
  using Kept = std::vector<uint32_t>;

  at::Tensor like() const { return at::full_like(stored_[0], NAN); }
  size_t kept_size() const {
    return static_cast<size_t>(p_.rows * p_.chunks() * kKeptOfChunk<kTiles, kParts>);
  }
  uint32_t* of_row(Kept& kept, int64_t row) const {
    return kept.empty() ? nullptr : kept.data() + row * p_.chunks() * kKeptOfChunk<kTiles, kParts>;
  }
  float* of_stretch(const at::Tensor& states, int64_t row, int64_t i) const {
    return states.defined() ? states[row][i].data_ptr<float>() : nullptr;
  }

  template <class Body>
  void over_stretches(const Walk& walk, const Body& body) const {
    for (int64_t row = 0; row < p_.rows; ++row)
      for (int64_t i = 0; i < count_; ++i) {
        const int64_t first = i * each_, left = p_.chunks() - first;
        body(row, i, Stretch{row, first, std::min(each_, left), walk});
      }
  }

  at::Tensor entering(const Problem<T, float>& p, const Walk& walk) {
    if (count_ == 1) return {};
    at::Tensor states = at::full({p.rows, count_, p.head, p.head}, NAN);
    at::Tensor less_one = at::full({p.rows, count_, p.head}, NAN);
    over_stretches(walk, [&](int64_t row, int64_t i, const Stretch& stretch) {
      summarise_stretch(blocks_,
                        p,
                        stretch,
                        boards_.data(),
                        of_stretch(states, row, i),
                        of_stretch(less_one, row, i));
    });
    for (int64_t row = 0; row < p.rows; ++row)
      for (int n = 0; n < p.head; ++n)
        for (int m = 0; m < p.head; ++m)
          carry_number(count_,
                       p.head,
                       walk.from_left,
                       n,
                       m,
                       states[row].template data_ptr<float>(),
                       less_one[row].template data_ptr<float>());
    return states;
  }

  at::Tensor forward(const Problem<T, float>& p, const Sides& sides) {
    at::Tensor y = like(), part = at::full_like(log_decay_, NAN);
    for (const bool from_left : {true, false}) {
      if (!(from_left ? sides.left : sides.right)) continue;
      const Walk walk{sides, from_left};
      const at::Tensor states = entering(p, walk);
      over_stretches(walk, [&](int64_t row, int64_t i, const Stretch& stretch) {
        forward_stretch(blocks_,
                        p,
                        stretch,
                        boards_.data(),
                        of_stretch(states, row, i),
                        part.data_ptr<float>(),
                        y.data_ptr<T>());
      });
    }
    return y;
  }

  void gradient(const Problem<T, float>& p,
                const Walk& walk,
                at::Tensor& part,
                at::Tensor& g,
                at::Tensor& log_decay,
                bool add,
                const at::Tensor* gu,
                Kept& kept,
                Kept& other) {
    const at::Tensor states = entering(p, walk);
    over_stretches(walk, [&](int64_t row, int64_t i, const Stretch& stretch) {
      const TileGradients<T> to{part.data_ptr<float>(),
                                g.data_ptr<T>(),
                                log_decay.data_ptr<float>(),
                                add,
                                gu == nullptr ? nullptr : of_stretch(*gu, row, i),
                                of_row(kept, row)};
      gradient_stretch(
          blocks_, p, stretch, boards_.data(), of_stretch(states, row, i), of_row(other, row), to);
    });
  }

  at::Tensor w_, log_decay_, u_;
  std::vector<at::Tensor> stored_;
  Problem<T, float> p_;
  int64_t each_, count_;
  AllWarps<kTiles> blocks_;
  std::vector<Board<kTiles, kParts>> boards_{2};
};

/// y, gr, gk, gv, gw, gu by the recurrence.
std::vector<at::Tensor> by_recurrence(const TileInputs& in, bool causal) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor* x : {&in.r, &in.k, &in.v, &in.w, &in.u})
    leaves.push_back(x->clone().requires_grad_());
  const at::Tensor y =
      wkv6_reference(leaves[0], leaves[1], leaves[2], leaves[3], leaves[4], causal);
  y.backward(in.gy);
  std::vector<at::Tensor> results = {y.detach()};
  for (const at::Tensor& leaf : leaves) results.push_back(test::gradient_of(leaf));
  return results;
}

TileInputs without_signs(const TileInputs& in) {
  return {in.r.abs(), in.k.abs(), in.v.abs(), in.w, in.u.abs(), in.gy.abs()};
}

// The error of every single number, in units of the sum of its terms' sizes:
//   float32     every term passes through fewer than tokens + head + 64 roundings
//   factors     p parts hold a number to 2^-8p. A term of y goes through two products, into the
//               state or the scores and out of them: of their four factors v alone is exact, and
//               either leaves out p - 1 products of parts of that size, 3 + 2 (p - 1). Nor does any
//               gradient take more, but for gw: two states and the sum of their products, 4
//               roundings and 3 products.
//   the result  rounded once to its type
double float32_bound(int64_t tokens, int64_t head) {
  return static_cast<double>(tokens + head + 64) * std::ldexp(1, -24);
}
double factor_bound(int parts, bool gw) {
  return (gw ? 3 * parts + 1 : 2 * parts + 1) * std::ldexp(1.01, -8 * parts);
}

/// How far c10 numbers of a type may be from what they stand for, relatively.
template <class T>
double rounding_of() {
  return std::is_same_v<T, float> ? 0 : std::ldexp(1.01, std::is_same_v<T, c10::Half> ? -11 : -8);
}

template <class T, int kParts, int kTiles>
void expect_within_bounds(int64_t batch, int64_t tokens, double least = -6, double most = 2) {
  constexpr int kHead = kTiles * kTile;
  const char* names[] = {"y", "gr", "gk", "gv", "gw", "gu"};
  for (const bool causal : {false, true})
    for (const int64_t each : {1, 2, 100}) {
      SCOPED_TRACE(::testing::Message()
                   << batch << " x " << tokens << " x " << kHead << ", w from " << least << " to "
                   << most << (causal ? ", causal, " : ", ") << each << " chunks each");
      const TileInputs in = draw<T>(batch, tokens, 2, kHead, least, most);
      const auto truth = by_recurrence(in, causal),
                 sizes = by_recurrence(without_signs(in), causal);
      Emulated<T, kParts, kTiles> emulated(in, each);
      auto ours = emulated.backward(causal);
      ours.insert(ours.begin(), emulated.forward(causal));
      for (size_t i = 0; i < ours.size(); ++i) {
        const at::Tensor error = (ours[i].to(at::kDouble) - truth[i]).abs();
        const double relative = (error / (sizes[i].abs() + 1e-30)).max().template item<double>();
        // Written so that NaN is no pass.
        EXPECT_TRUE(relative <= float32_bound(tokens, kHead) + factor_bound(kParts, i == 4) +
                                    (i < 4 ? rounding_of<T>() : 0))
            << names[i] << ": " << relative;
      }
    }
}

// Factors of three parts hold float32 itself: a number out of place would show.
TEST(Wkv6Mma, EqualsTheRecurrenceWhereFactorsAreExact) {
  expect_within_bounds<float, 3, 1>(1, 1);
  expect_within_bounds<float, 3, 1>(2, 16);
  expect_within_bounds<float, 3, 2>(2, 37);
  expect_within_bounds<float, 3, 3>(1, 64);
  expect_within_bounds<float, 3, 4>(1, 100);
}

TEST(Wkv6Mma, ErrsByTheRoundingOfBfloat16) {
  expect_within_bounds<c10::BFloat16, 1, 2>(2, 37);
  expect_within_bounds<c10::BFloat16, 1, 4>(1, 100);
  expect_within_bounds<c10::BFloat16, 1, 4>(1, 100, -12, -5);
}

TEST(Wkv6Mma, KeepsWhatFloat16Holds) {
  expect_within_bounds<c10::Half, 2, 2>(2, 37);
  expect_within_bounds<c10::Half, 2, 4>(1, 100);
}

TEST(Wkv6Mma, StaysExactForDecaysNearNoneAndNearOne) {
  for (const auto& [least, most] :
       std::vector<std::pair<double, double>>{{-20, -12}, {2, 5}, {10, 12}, {-20, 12}})
    expect_within_bounds<float, 3, 2>(1, 200, least, most);
}

TEST(Wkv6Mma, CutsRowsOnlyWhereTheyAreFew) {
  EXPECT_EQ(stretch_length(384, 13), 13);  // 128 pictures of 196 tokens, 3 heads
  EXPECT_EQ(stretch_length(100000, 64), 64);
  EXPECT_EQ(stretch_length(3, 1024), 16);  // one of 16384 tokens
  EXPECT_EQ(stretch_length(64, 1024), 256);
  EXPECT_EQ(stretch_length(1, 1), 1);
}

TEST(Wkv6Mma, FitsTheSharedMemoryOfComputeCapability80) {
  EXPECT_LE(2 * sizeof(Board<8, 2>), size_t{163 * 1024});
}

}  // namespace
}  // namespace vireo
