#include "vision/blocks/position_embedding.h"

#include <ATen/ops/upsample_bicubic2d.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <c10/util/StringUtil.h>

#include "vision/blocks/layout.h"
#include "vision/core/error.h"

namespace vireo {

at::Tensor resize_positions(const at::Tensor& positions,
                            int64_t from_height,
                            int64_t from_width,
                            int64_t height,
                            int64_t width,
                            Interpolation interpolation) {
  if (positions.dim() != 3 || positions.size(1) != from_height * from_width)
    throw Error(c10::str("position embedding: found ",
                         positions.sizes(),
                         ", expected [1, ",
                         from_height,
                         "*",
                         from_width,
                         ", channels]"));
  if (from_height == height && from_width == width) return positions;
  const at::Tensor map =
      map_from_tokens(positions, from_height, from_width).contiguous();  // [1, C, h, w]
  const std::array<int64_t, 2> size = {height, width};
  return tokens_from_map(interpolation == Interpolation::kBicubic
                             ? at::upsample_bicubic2d(map, size, /*align_corners=*/false)
                             : at::upsample_bilinear2d(map, size, /*align_corners=*/false));
}

}  // namespace vireo
