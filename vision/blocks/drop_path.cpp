#include "vision/blocks/drop_path.h"

#include <string>
#include <vector>

#include <ATen/ops/empty.h>

#include "vision/core/error.h"

namespace vireo {

DropPathImpl::DropPathImpl(double rate) : rate(rate) {
  if (!(rate >= 0 && rate < 1))
    throw Error("DropPath: the rate is " + std::to_string(rate) +
                "; it must be at least 0 and below 1");
}

at::Tensor DropPathImpl::forward(const at::Tensor& x) {
  if (!is_training() || rate == 0) return x;
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  const at::Tensor kept = at::empty(shape, x.options()).bernoulli_(1 - rate).div_(1 - rate);
  return x * kept;
}

}  // namespace vireo
