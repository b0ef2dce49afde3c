#pragma once

#include <tuple>

#include <ATen/core/Tensor.h>

// The operators behind bi_wkv(), for its own files.
namespace vireo {

/// gw, gu, gk, gv.
using BiWkvGradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Throws unless shapes, types and devices are as bi_wkv.h says.
void check_bi_wkv(const at::Tensor& w,
                  const at::Tensor& u,
                  const at::Tensor& k,
                  const at::Tensor& v);

/// The dispatcher's entries vireo::bi_wkv, vireo::bi_wkv_backward and vireo::bi_wkv_published.
at::Tensor call_bi_wkv(const at::Tensor& w,
                       const at::Tensor& u,
                       const at::Tensor& k,
                       const at::Tensor& v);
BiWkvGradients call_bi_wkv_backward(const at::Tensor& w,
                                    const at::Tensor& u,
                                    const at::Tensor& k,
                                    const at::Tensor& v,
                                    const at::Tensor& gy);
at::Tensor call_bi_wkv_published(const at::Tensor& w,
                                 const at::Tensor& u,
                                 const at::Tensor& k,
                                 const at::Tensor& v);

}  // namespace vireo
