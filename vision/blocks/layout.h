#pragma once

#include <ATen/core/Tensor.h>

namespace vireo {

/// A feature map [B, C, H, W] as tokens [B, H·W, C], row by row. Free for a channels-last map, one
/// copy otherwise.
at::Tensor tokens_from_map(const at::Tensor& map);

/// Tokens [B, H·W, C] as a channels-last map [B, C, H, W]. Free for contiguous tokens.
at::Tensor map_from_tokens(const at::Tensor& tokens, int64_t height, int64_t width);

}  // namespace vireo
