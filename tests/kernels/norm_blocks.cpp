// What the GPU does for norm.h, and how it is cut into blocks, run on the CPU: all lanes of every
// warp.
#include "kernels/norm/norm_blocks.h"

#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/deviation.h"

namespace vireo {
namespace {

using test::deviation;
using namespace norm_blocks;
using Tensors = std::vector<at::Tensor>;

constexpr double kEps = 1e-5;

struct AllLanes {
  static constexpr int kHeld = kLanes;

  int lane(int h) const { return h; }
  /// As a warp's lanes exchange their sums.
  template <class S>
  S sum(const S (&x)[kLanes]) const {
    S total[kLanes];
    std::copy_n(x, kLanes, total);
    for (int mask = kLanes / 2; mask > 0; mask /= 2) {
      S before[kLanes];
      std::copy_n(total, kLanes, before);
      for (int i = 0; i < kLanes; ++i) total[i] = before[i] + before[i ^ mask];
    }
    return total[0];
  }
};

struct AllWarps {
  using Warp = AllLanes;
  int count;

  int warps() const { return count; }
  void sync() const {}
  template <class Body>
  void each_warp(const Body& body) const {
    for (int w = 0; w < count; ++w) body(AllLanes{}, w);
  }
};

/// Inputs in S, as T holds what is stored.
struct NormInputs {
  at::Tensor r, x, weight, bias, gout;
};

NormInputs inputs_of(const std::vector<int64_t>& shape, int64_t channels, at::ScalarType storage) {
  const auto stored = [&](double mean) {
    return (at::randn(shape, at::kDouble) + mean).to(storage).to(at::kDouble);
  };
  const auto parameter = [&] { return at::randn({channels}).to(at::kDouble); };
  return {stored(0), stored(5), parameter(), parameter(), stored(0)};
}

/// out, gr, gx, gweight, gbias by autograd; r undefined: no gate, weight undefined: no norm.
Tensors truth_of(const NormInputs& in, bool gate, bool norm) {
  const bool map = in.x.dim() == 4;
  const auto leaf = [](const at::Tensor& x) { return x.clone().requires_grad_(); };
  const at::Tensor r = leaf(in.r), x = leaf(in.x), weight = leaf(in.weight), bias = leaf(in.bias);
  at::Tensor out = map ? x.permute({0, 2, 3, 1}) : x;
  if (norm) out = at::layer_norm(out, {out.size(-1)}, weight, bias, kEps);
  if (map) out = out.permute({0, 3, 1, 2});
  if (gate) out = r.sigmoid() * out;
  out.backward(in.gout);
  Tensors results = {out.detach(), r.grad(), x.grad(), weight.grad(), bias.grad()};
  return results;
}

void expect_all_close(const Tensors& ours, const Tensors& truth, double tolerance) {
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].defined(), truth[i].defined()) << "result " << i;
    if (!ours[i].defined()) continue;
    EXPECT_LE(deviation(ours[i], truth[i]), tolerance) << "result " << i;
  }
}

/// What norm_cuda.cu launches for tokens, one block after the other.
template <bool kNorm, bool kGate, class T, class S>
Tensors by_rows(const NormInputs& in, int warps) {
  const auto type = c10::CppTypeToScalarType<T>::value, state = c10::CppTypeToScalarType<S>::value;
  const at::Tensor r = in.r.to(type), y = in.x.to(type), gout = in.gout.to(type);
  const at::Tensor weight = in.weight.to(state), bias = in.bias.to(state);
  at::Tensor out = at::full_like(y, NAN), gr = at::full_like(y, NAN), gy = at::full_like(y, NAN);
  const int64_t channels = y.size(-1);
  const Rows<T, S> p{y.numel() / channels,
                     channels,
                     static_cast<S>(kEps),
                     kGate ? r.const_data_ptr<T>() : nullptr,
                     y.const_data_ptr<T>(),
                     kNorm ? weight.const_data_ptr<S>() : nullptr,
                     kNorm ? bias.const_data_ptr<S>() : nullptr,
                     out.data_ptr<T>(),
                     gout.const_data_ptr<T>(),
                     kGate ? gr.data_ptr<T>() : nullptr,
                     gy.data_ptr<T>()};
  for (int64_t row = 0; row < p.rows; ++row) forward_row<kNorm, kGate>(AllLanes{}, p, row);
  if constexpr (!kNorm) {
    for (int64_t at = 0; at < y.numel(); ++at) gate_gradients(p, at);
    return {out, gr, gy, {}, {}};
  }
  const int64_t blocks = (p.rows + kRowsPerBlock - 1) / kRowsPerBlock;
  at::Tensor partial = at::full({blocks, 2, channels}, NAN, weight.options());
  for (int64_t block = 0; block < blocks; ++block) {
    at::Tensor sums = at::full({warps, 2, channels}, NAN, weight.options());
    S* own = partial[block].data_ptr<S>();
    // One warp sums where the sums go.
    backward_rows<kGate>(
        AllWarps{warps}, p, block * kRowsPerBlock, warps == 1 ? own : sums.data_ptr<S>(), own);
  }
  const at::Tensor total = partial.sum(0, /*keepdim=*/false, at::kDouble);
  return {out, kGate ? gr : at::Tensor(), gy, total[0], total[1]};
}

template <class T, class S>
void expect_rows_close(double tolerance) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {1, 1, 6}, {2, 5, 7}, {1, 3, 32}, {3, 50, 33}, {2, 130, 64}, {1, 9, 200}})
    for (const int warps : {1, 3, 8}) {
      SCOPED_TRACE(::testing::Message() << at::IntArrayRef(shape) << ", " << warps << " warps");
      const auto in = inputs_of(shape, shape.back(), c10::CppTypeToScalarType<T>::value);
      expect_all_close(by_rows<true, false, T, S>(in, warps), truth_of(in, false, true), tolerance);
      expect_all_close(by_rows<false, true, T, S>(in, warps), truth_of(in, true, false), tolerance);
      expect_all_close(by_rows<true, true, T, S>(in, warps), truth_of(in, true, true), tolerance);
    }
}

TEST(NormBlocks, EqualTheDefinitionOnTokens) {
  expect_rows_close<double, double>(1e-12);
  expect_rows_close<float, float>(1e-5);
  expect_rows_close<c10::BFloat16, float>(4e-3);  // rounded once
}

/// What norm_cuda.cu launches for maps.
template <class T, class S>
Tensors by_pixels(const NormInputs& in, int warps) {
  const auto type = c10::CppTypeToScalarType<T>::value, state = c10::CppTypeToScalarType<S>::value;
  const at::Tensor x = in.x.to(type), gout = in.gout.to(type);
  const at::Tensor weight = in.weight.to(state), bias = in.bias.to(state);
  at::Tensor out = at::full_like(x, NAN), gx = at::full_like(x, NAN);
  const Maps<T, S> p{x.size(0),
                     x.size(1),
                     x.size(2) * x.size(3),
                     static_cast<S>(kEps),
                     x.const_data_ptr<T>(),
                     weight.const_data_ptr<S>(),
                     bias.const_data_ptr<S>(),
                     out.data_ptr<T>(),
                     gout.const_data_ptr<T>(),
                     gx.data_ptr<T>()};
  const int64_t tiles = p.images * p.tiles();
  at::Tensor partial = at::full({tiles, 2, p.channels}, NAN, weight.options());
  for (int64_t tile = 0; tile < tiles; ++tile) {
    std::vector<Board<S>> boards(2);
    forward_pixels(AllWarps{warps}, p, tile, boards[0]);
    backward_pixels(AllWarps{warps}, p, tile, boards[1], partial[tile].data_ptr<S>());
  }
  const at::Tensor total = partial.sum(0, /*keepdim=*/false, at::kDouble);
  return {out, {}, gx, total[0], total[1]};
}

template <class T, class S>
void expect_maps_close(double tolerance) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {1, 6, 1, 1}, {2, 7, 3, 5}, {1, 33, 8, 8}, {3, 16, 9, 29}}) {
    SCOPED_TRACE(::testing::Message() << at::IntArrayRef(shape));
    const auto in = inputs_of(shape, shape[1], c10::CppTypeToScalarType<T>::value);
    expect_all_close(by_pixels<T, S>(in, kMostWarps), truth_of(in, false, true), tolerance);
  }
}

TEST(NormBlocks, EqualTheDefinitionOnMaps) {
  expect_maps_close<double, double>(1e-12);
  expect_maps_close<float, float>(1e-5);
  expect_maps_close<c10::BFloat16, float>(4e-3);
}

TEST(NormBlocks, StayExactFarFromZero) {
  // The mean is a thousand deviations away, and differences from it are exact.
  NormInputs in = inputs_of({1, 40, 96}, 96, at::kFloat);
  in.x = (in.x + 1000).to(at::kFloat).to(at::kDouble);
  EXPECT_LE(deviation(by_rows<true, false, float, float>(in, 8)[0], truth_of(in, false, true)[0]),
            2e-4);
}

}  // namespace
}  // namespace vireo
