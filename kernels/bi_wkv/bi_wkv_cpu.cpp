#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "kernels/bi_wkv/bi_wkv_lane.h"
#include "kernels/bi_wkv/bi_wkv_ops.h"

namespace vireo {
namespace {

using wkv::Lane;

at::Tensor bi_wkv_cpu(const at::Tensor& w,
                      const at::Tensor& u,
                      const at::Tensor& k_in,
                      const at::Tensor& v_in) {
  check_bi_wkv(w, u, k_in, v_in);
  at::Tensor y = at::empty(k_in.sizes(), k_in.options());
  if (y.numel() == 0) return y;
  const at::Tensor k = k_in.contiguous(), v = v_in.contiguous();
  const int64_t tokens = k.size(1), channels = k.size(2);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv", [&] {
    using State = at::opmath_type<scalar_t>;
    const at::Tensor ws = w.to(c10::CppTypeToScalarType<State>::value).contiguous();
    const at::Tensor us = u.to(c10::CppTypeToScalarType<State>::value).contiguous();
    at::parallel_for(0, k.size(0) * channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t c = row % channels, at = row / channels * tokens * channels + c;
        wkv::lane_forward<State, scalar_t>(ws.const_data_ptr<State>()[c],
                                           us.const_data_ptr<State>()[c],
                                           {k.const_data_ptr<scalar_t>() + at, channels},
                                           {v.const_data_ptr<scalar_t>() + at, channels},
                                           {y.data_ptr<scalar_t>() + at, channels},
                                           tokens);
      }
    });
  });
  return y;
}

BiWkvGradients bi_wkv_backward_cpu(const at::Tensor& w,
                                   const at::Tensor& u,
                                   const at::Tensor& k_in,
                                   const at::Tensor& v_in,
                                   const at::Tensor& gy_in) {
  check_bi_wkv(w, u, k_in, v_in);
  TORCH_CHECK(gy_in.sizes() == k_in.sizes(),
              "bi_wkv: gy must have k's shape ",
              k_in.sizes(),
              ", found ",
              gy_in.sizes());
  at::Tensor gk = at::empty(k_in.sizes(), k_in.options()),
             gv = at::empty(k_in.sizes(), k_in.options());
  if (gk.numel() == 0) return {at::zeros_like(w), at::zeros_like(u), gk, gv};
  const at::Tensor k = k_in.contiguous(), v = v_in.contiguous();
  const at::Tensor gy = gy_in.to(k.scalar_type()).contiguous();
  const int64_t tokens = k.size(1), channels = k.size(2);
  at::Tensor shares = at::empty({2, k.size(0), channels}, k.options().dtype(at::kDouble));
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kBFloat16, at::kHalf, k.scalar_type(), "bi_wkv_backward", [&] {
        using State = at::opmath_type<scalar_t>;
        const at::Tensor ws = w.to(c10::CppTypeToScalarType<State>::value).contiguous();
        const at::Tensor us = u.to(c10::CppTypeToScalarType<State>::value).contiguous();
        double* share_w = shares.data_ptr<double>();
        double* share_u = share_w + k.size(0) * channels;
        at::parallel_for(0, k.size(0) * channels, 1, [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) {
            const int64_t c = row % channels, at = row / channels * tokens * channels + c;
            const wkv::Share<double> share =
                wkv::lane_backward<State, scalar_t>(ws.const_data_ptr<State>()[c],
                                                    us.const_data_ptr<State>()[c],
                                                    {k.const_data_ptr<scalar_t>() + at, channels},
                                                    {v.const_data_ptr<scalar_t>() + at, channels},
                                                    {gy.const_data_ptr<scalar_t>() + at, channels},
                                                    {gk.data_ptr<scalar_t>() + at, channels},
                                                    {gv.data_ptr<scalar_t>() + at, channels},
                                                    tokens);
            share_w[row] = share.w;
            share_u[row] = share.u;
          }
        });
      });
  const at::Tensor sums = shares.sum(1);
  return {sums[0].to(w.scalar_type()), sums[1].to(u.scalar_type()), gk, gv};
}

}  // namespace

TORCH_LIBRARY_IMPL(vireo, CPU, library) {
  library.impl("bi_wkv", bi_wkv_cpu);
  library.impl("bi_wkv_backward", bi_wkv_backward_cpu);
}

}  // namespace vireo
