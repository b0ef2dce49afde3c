#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace vireo {

/// Corners of a closed polygon as (x, y) in pixels, in order; the last is joined to the first.
using PixelPolygon = std::vector<std::array<double, 2>>;

/// The outlines of the pixels with one value in a slice [height][width]. They run along the edges
/// between pixels: pixel (x, y) reaches from x - 0.5 to x + 0.5, so that its centre lies inside a
/// polygon exactly when it has the value, and a polygon's area is that of its pixels.
///
/// Each 4-connected region gives one polygon. A hole is joined to it by a keyhole: a channel
/// without width, along a line between pixels, gone to the hole and back. Interiors of polygons do
/// not overlap, so that a reader may fill them one by one or all by the even-odd rule.
std::vector<PixelPolygon> outlines(const int32_t* slice,
                                   int64_t height,
                                   int64_t width,
                                   int64_t value);

}  // namespace vireo
