#include "kernels/packed/packed_local_block.h"

#include <algorithm>
#include <cstring>

#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "kernels/cpu_rows.h"
#include "kernels/packed/local_block_rows.h"

namespace vireo {
namespace {

const local_block_rows::Table& rows() {
  static const auto& table = VIREO_TABLE_IN_USE(local_block_rows);
  return table;
}

linear_rows::Rows some_rows(void* data, int64_t stride, bool bf16) {
  return {data, stride, bf16};
}

char* bytes_at(const at::Tensor& x, int64_t elements) {
  return const_cast<char*>(static_cast<const char*>(x.const_data_ptr())) +
         elements * x.element_size();
}

}  // namespace

PackedLocalBlock::PackedLocalBlock(const Parts& parts, Arithmetic precision)
    : parts_(parts), hidden_(parts.weight.size(0)), precision_(precision) {
  TORCH_CHECK(parts.weight.dim() == 4 && parts.weight.size(1) == 1 && kernel() % 2 == 1 &&
                  parts.weight.size(3) == kernel(),
              "PackedLocalBlock: the depthwise weight is ",
              parts.weight.sizes(),
              "; expected [C, 1, K, K] with K odd");
  TORCH_CHECK(parts.stride == 1 || (parts.stride == 2 && !parts.skip),
              "PackedLocalBlock: the stride must be 1, or 2 without a skip");
  TORCH_CHECK((!parts.expand.defined() || parts.expand.outer() == hidden_) &&
                  (!parts.project.defined() || parts.project.inner() == hidden_),
              "PackedLocalBlock: the parts do not fit ",
              hidden_,
              " hidden channels");
  const int64_t lanes = packed_linear_rows().lanes;
  padded_hidden_ = (hidden_ + lanes - 1) / lanes * lanes;
  const std::array<int64_t, 2> missing = {0, padded_hidden_ - hidden_};
  const at::Tensor taps = parts.weight.detach().to(at::kFloat).squeeze(1).permute({1, 2, 0});
  taps_ = at::constant_pad_nd(taps, missing).contiguous();
  bias_ = at::constant_pad_nd(parts.bias.detach().to(at::kFloat), missing).contiguous();
}

/// Computes output rows one after the other, keeping the hidden rows that the next one needs too.
class PackedLocalBlock::Worker {
 public:
  Worker(const PackedLocalBlock& block,
         const linear_rows::Job& expansion,
         const linear_rows::Job& projection,
         const at::Tensor& x,
         const at::Tensor& added,
         const at::Tensor& y)
      : block_(block),
        expansion_(expansion),
        projection_(projection),
        x_(x),
        added_(added),
        y_(y),
        bf16_(x.scalar_type() == at::kBFloat16),
        padding_(block.padding()),
        kernel_(block.kernel()),
        ring_row_((x.size(2) + 2 * padding_) * block.padded_hidden_),
        ring_(at::zeros({kernel_ * ring_row_}, at::kFloat)),
        convolved_(at::empty({y.size(2) * block.padded_hidden_}, x.options())) {}

  void run(int64_t image, int64_t row) {
    const int64_t height = x_.size(1), top = row * block_.parts_.stride - padding_;
    if (image != image_ || top < next_ - kernel_) {
      image_ = image;
      next_ = std::max<int64_t>(top, 0);
    }
    next_ = std::max(next_, top);
    for (const int64_t stop = std::min(top + kernel_, height); next_ < stop; ++next_)
      make_hidden_row(next_);
    std::vector<const float*> in(static_cast<size_t>(kernel_));
    for (int64_t i = 0; i < kernel_; ++i)
      in[i] = top + i < 0 || top + i >= height ? nullptr : hidden_row(top + i);
    convolve(in);
    put_out(row);
  }

 private:
  float* hidden_row(int64_t row) {
    return ring_.mutable_data_ptr<float>() + row % kernel_ * ring_row_;
  }

  void make_hidden_row(int64_t row) {
    const int64_t width = x_.size(2), channels = x_.size(3), stride = block_.padded_hidden_;
    char* from = bytes_at(x_, (image_ * x_.size(1) + row) * width * channels);
    float* to = hidden_row(row) + padding_ * stride;
    if (!block_.parts_.expand.defined())
      return rows().widen(from, bf16_, width, channels, to, stride);
    linear_rows::Job job = expansion_;
    job.x = some_rows(from, channels, bf16_);
    job.y = some_rows(to, stride, false);
    packed_linear_rows().run(job, width);
  }

  void convolve(const std::vector<const float*>& in) {
    const auto& parts = block_.parts_;
    local_block_rows::Job job{};
    job.in = in.data();
    job.weight = block_.taps_.const_data_ptr<float>();
    job.bias = block_.bias_.const_data_ptr<float>();
    if (parts.skip) job.skipped = in[kernel_ / 2] + padding_ * block_.padded_hidden_;
    job.out = convolved_.mutable_data_ptr();
    job.out_bf16 = bf16_;
    job.width = y_.size(2);
    job.channels = block_.padded_hidden_;
    job.kernel = static_cast<int>(kernel_);
    job.stride = static_cast<int>(parts.stride);
    job.finish = parts.finish;
    rows().depthwise(job);
  }

  void put_out(int64_t row) {
    const int64_t width = y_.size(2), channels = y_.size(3);
    const int64_t begin = (image_ * y_.size(1) + row) * width * channels;
    if (!block_.parts_.project.defined()) {
      const int64_t size = y_.element_size();
      for (int64_t i = 0; i < width; ++i)
        std::memcpy(bytes_at(y_, begin + i * channels),
                    bytes_at(convolved_, i * block_.padded_hidden_),
                    static_cast<size_t>(channels * size));
      return;
    }
    linear_rows::Job job = projection_;
    job.x = some_rows(bytes_at(convolved_, 0), block_.padded_hidden_, bf16_);
    job.y = some_rows(bytes_at(y_, begin), channels, bf16_);
    if (added_.defined()) job.added = some_rows(bytes_at(added_, begin), channels, bf16_);
    packed_linear_rows().run(job, width);
  }

  const PackedLocalBlock& block_;
  const linear_rows::Job &expansion_, &projection_;  ///< operands are still to be set
  const at::Tensor &x_, &added_, &y_;
  bool bf16_;
  int64_t padding_, kernel_, ring_row_;
  at::Tensor ring_;                ///< the last hidden rows, with their borders of zeros
  at::Tensor convolved_;           ///< one row
  int64_t image_ = -1, next_ = 0;  ///< the next hidden row to be made
};

at::Tensor PackedLocalBlock::operator()(const at::Tensor& x_in, const at::Tensor& added_in) const {
  const int64_t in = parts_.expand.defined() ? parts_.expand.inner() : hidden_;
  TORCH_CHECK(
      x_in.dim() == 4 && x_in.size(3) == in && x_in.scalar_type() == activation_type(precision_),
      "PackedLocalBlock: found ",
      x_in.scalar_type(),
      " ",
      x_in.sizes(),
      "; expected ",
      activation_type(precision_),
      " [B, H, W, ",
      in,
      "]");
  const at::Tensor x = x_in.contiguous();
  const auto extent = [&](int64_t size) {
    return (size + 2 * padding() - kernel()) / parts_.stride + 1;
  };
  const int64_t height = extent(x.size(1)), width = extent(x.size(2));
  const int64_t out = parts_.project.defined() ? parts_.project.outer() : hidden_;
  at::Tensor y = at::empty({x.size(0), height, width, out}, x.options());
  at::Tensor added = added_in;
  if (added.defined()) {
    TORCH_CHECK(parts_.project.defined() && added.sizes() == y.sizes() &&
                    added.scalar_type() == y.scalar_type(),
                "PackedLocalBlock: what is added must be as the result, ",
                y.sizes());
    added = added.contiguous();
  }
  at::Tensor wide_expand, wide_project;
  const auto expansion =
      parts_.expand.defined() ? parts_.expand.job(wide_expand) : linear_rows::Job{};
  const auto projection =
      parts_.project.defined() ? parts_.project.job(wide_project) : linear_rows::Job{};
  at::parallel_for(0, x.size(0) * height, 1, [&](int64_t begin, int64_t end) {
    Worker worker(*this, expansion, projection, x, added, y);
    for (int64_t i = begin; i < end; ++i) worker.run(i / height, i % height);
  });
  return y;
}

}  // namespace vireo
