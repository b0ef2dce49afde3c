#include "vision/metrics/distance_transform.h"

#include <limits>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

namespace vireo {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Replaces f by min over q of f(q) + (step·(p - q))² along one line.
class LineTransform {
 public:
  LineTransform(int64_t length, double step)
      : squared_step_(step * step), values_(length), apex_(length), begin_(length) {}

  void apply(double* line, int64_t stride) {
    const auto length = static_cast<int64_t>(values_.size());
    int64_t count = 0;  // parabolas on the envelope
    for (int64_t q = 0; q < length; ++q) {
      const double value = line[q * stride];
      values_[q] = value;
      if (value == kInfinity) continue;
      double begin = -kInfinity;
      while (count > 0) {
        begin = crossing(apex_[count - 1], q);
        if (begin > begin_[count - 1]) break;
        begin = -kInfinity;
        --count;
      }
      apex_[count] = q;
      begin_[count] = begin;
      ++count;
    }
    if (count == 0) return;
    for (int64_t p = 0, k = 0; p < length; ++p) {
      while (k + 1 < count && begin_[k + 1] < static_cast<double>(p)) ++k;
      const auto offset = static_cast<double>(p - apex_[k]);
      line[p * stride] = values_[apex_[k]] + squared_step_ * offset * offset;
    }
  }

 private:
  // Where the parabola of apex b comes below that of apex a < b.
  double crossing(int64_t a, int64_t b) const {
    const auto from = static_cast<double>(a), to = static_cast<double>(b);
    return 0.5 * (from + to) + (values_[b] - values_[a]) / (2 * squared_step_ * (to - from));
  }

  double squared_step_;
  std::vector<double> values_;
  std::vector<int64_t> apex_;
  std::vector<double> begin_;
};

}  // namespace

at::Tensor squared_distance_transform(const at::Tensor& mask, c10::ArrayRef<double> spacing) {
  TORCH_CHECK(static_cast<int64_t>(spacing.size()) == mask.dim(),
              "squared_distance_transform: ",
              spacing.size(),
              " spacings for ",
              mask.dim(),
              " axes");
  for (const double step : spacing)
    TORCH_CHECK(step > 0, "squared_distance_transform: spacing must be positive, got ", step);
  at::Tensor result = at::full(mask.sizes(), kInfinity, at::kDouble).masked_fill_(mask != 0, 0.0);
  if (result.numel() == 0) return result;

  auto* values = result.data_ptr<double>();
  for (int64_t axis = mask.dim() - 1; axis >= 0; --axis) {
    const int64_t length = mask.size(axis), stride = result.stride(axis);
    const int64_t lines = result.numel() / length;
    const int64_t grain = std::max<int64_t>(1, 32768 / length);
    at::parallel_for(0, lines, grain, [&](int64_t begin, int64_t end) {
      LineTransform transform(length, spacing[axis]);
      for (int64_t line = begin; line < end; ++line)
        transform.apply(values + (line / stride) * stride * length + line % stride, stride);
    });
  }
  return result;
}

}  // namespace vireo
