// The loops for a processor with tiles (AMX-BF16), run on one without: its instructions, emulated.
#define VIREO_AMX
#define VIREO_AMX_EMULATED
#define VIREO_ISA emulated_amx
#include <cmath>
#include <limits>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "kernels/packed/linear_rows.cpp"  // NOLINT(bugprone-suspicious-include)
#include "tests/support/deviation.h"

namespace vireo {
namespace {

using linear_rows::Finish;
using linear_rows::Form;
using linear_rows::Rows;
using test::deviation;

/// A layer's weights as the loops take them.
struct Layer {
  at::Tensor weight, scale, bias, panels;  ///< scale undefined: weights of bfloat16
  linear_rows::Weights weights;

  Layer(int64_t inner, int64_t outer, bool int8) {
    const auto& table = linear_rows::emulated_amx();
    const int64_t padded = (outer + table.lanes - 1) / table.lanes * table.lanes;
    bias = at::randn({padded});
    Form form = Form::kPairs;
    if (int8) {
      weight = at::randint(-127, 128, {outer, inner}, at::kFloat);
      scale = at::rand({padded}) / 100;
      const at::Tensor narrow = packed(weight, Form::kInt8);
      panels = at::empty({table.packed_bytes(inner, outer, form)}, at::kByte);
      table.widen(narrow.const_data_ptr(), inner, outer, panels.mutable_data_ptr());
    } else {
      weight = at::randn({outer, inner}).to(at::kBFloat16).to(at::kFloat);
      panels = packed(weight, form);
    }
    weights = {panels.const_data_ptr(),
               int8 ? scale.const_data_ptr<float>() : nullptr,
               bias.const_data_ptr<float>(),
               inner,
               outer,
               form};
  }

  static at::Tensor packed(const at::Tensor& weight, Form form) {
    const auto& table = linear_rows::emulated_amx();
    const int64_t outer = weight.size(0), inner = weight.size(1);
    at::Tensor to = at::empty({table.packed_bytes(inner, outer, form)}, at::kByte);
    table.pack(weight.const_data_ptr<float>(), inner, outer, form, to.mutable_data_ptr());
    return to;
  }

  at::Tensor applied(const at::Tensor& x) const {
    at::Tensor sums = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
    const int64_t outer = weight.size(0);
    if (scale.defined()) sums = sums * scale.narrow(0, 0, outer);
    return sums + bias.narrow(0, 0, outer);
  }
};

Rows rows_of(const at::Tensor& x) {
  return {const_cast<void*>(x.const_data_ptr()), x.stride(0), x.scalar_type() == at::kBFloat16};
}

// Counts on either side of a tile of rows, two of them and a block; of one, two and more steps of
// inputs, odd ones too; of one to four tiles of outputs.
TEST(PackedTiles, EqualTheProductInDoublePrecision) {
  at::manual_seed(1);
  for (const int64_t inner : {1, 3, 24, 31, 32, 33, 64, 97})
    for (const int64_t outer : {1, 16, 17, 33, 48, 49})
      for (const bool int8 : {false, true}) {
        const Layer layer(inner, outer, int8);
        for (const int64_t rows : {1, 7, 14, 16, 17, 28, 32, 45, 130}) {
          const at::Tensor x = at::randn({rows, inner}).to(at::kBFloat16);
          const at::Tensor y = at::full({rows, outer}, 1e9), gate = at::randn({rows, outer}),
                           added = at::randn({rows, outer});
          linear_rows::emulated_amx().run(
              {layer.weights, rows_of(x), rows_of(y), rows_of(gate), rows_of(added), Finish::kNone},
              rows);
          EXPECT_LE(deviation(y, layer.applied(x) * gate + added), 1e-5)
              << rows << " rows, " << inner << " to " << outer << (int8 ? ", int8" : "");
        }
      }
}

TEST(PackedTiles, AddToWhatIsAlreadyThereOnce) {
  const Layer layer(48, 20, false);
  const at::Tensor x = at::randn({21, 48}).to(at::kBFloat16), y = at::randn({21, 20});
  const at::Tensor expected = layer.applied(x) + y;
  linear_rows::emulated_amx().run(
      {layer.weights, rows_of(x), rows_of(y), {}, rows_of(y), Finish::kNone}, 21);
  EXPECT_LE(deviation(y, expected), 1e-5);
}

TEST(PackedTiles, TakeNoRows) {
  const Layer layer(48, 20, false);
  const at::Tensor none = at::empty({0, 48}, at::kBFloat16), y = at::full({1, 20}, 7.0f);
  linear_rows::emulated_amx().run({layer.weights, rows_of(none), rows_of(y), {}, {}, Finish::kNone},
                                  0);
  EXPECT_TRUE(at::equal(y, at::full({1, 20}, 7.0f)));
}

TEST(PackedTiles, ReadNothingBehindARow) {
  for (const int64_t inner : {5, 24, 40}) {
    const Layer layer(inner, 20, false);
    const at::Tensor wide =
        at::full({19, inner + 40}, std::numeric_limits<float>::quiet_NaN(), at::kBFloat16);
    const at::Tensor x = wide.narrow(1, 0, inner);
    x.copy_(at::randn({19, inner}));
    const at::Tensor y = at::empty({19, 20}, at::kBFloat16);
    linear_rows::emulated_amx().run({layer.weights, rows_of(x), rows_of(y), {}, {}, Finish::kSilu},
                                    19);
    EXPECT_LE(deviation(y, at::silu(layer.applied(x))), 8e-3) << inner;
  }
}

TEST(PackedTiles, GiveARowTheSameWhereverItLies) {
  const Layer layer(70, 50, false);
  const at::Tensor x = at::randn({53, 70}).to(at::kBFloat16), y = at::empty({53, 50});
  const auto run = [&](int64_t first, int64_t count) {
    const at::Tensor from = x.narrow(0, first, count), to = y.narrow(0, first, count);
    linear_rows::emulated_amx().run(
        {layer.weights, rows_of(from), rows_of(to), {}, {}, Finish::kNone}, count);
  };
  run(0, 53);
  const at::Tensor whole = y.clone();
  for (const int64_t cut : {1, 15, 20, 40}) {
    y.fill_(0);
    run(0, cut);
    run(cut, 53 - cut);
    EXPECT_TRUE(at::equal(y, whole)) << cut;
  }
}

}  // namespace
}  // namespace vireo
