#pragma once

#include <array>
#include <filesystem>
#include <vector>

#include <ATen/core/Tensor.h>

#include "vision/io/segmentation/segment_description.h"

namespace vireo {

/// Writes every slice of labels (integers [Z, Y, X], 0..65535) as a grey PNG of the label values:
/// `mask_0000.png`, ... in `folder`; a picture (Z = 1) as `mask.png`. Pixel by pixel, atomically.
void write_mask_pictures(const std::filesystem::path& folder, const at::Tensor& labels);

/// Writes every slice that holds a label as `overlay_0000.png`, ... (`overlay.png` for Z = 1): the
/// image [C, Z, Y, X] (3 channels: colour; else the first, grey), black at window[0] and white at
/// window[1], with the labels drawn over it in their descriptions' colours.
void write_overlay_pictures(const std::filesystem::path& folder,
                            const at::Tensor& image,
                            const at::Tensor& labels,
                            const std::vector<SegmentDescription>& descriptions,
                            std::array<double, 2> window);

}  // namespace vireo
