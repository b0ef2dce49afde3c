#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vireo::io {

/// A decoded JPEG 2000 codestream: samples of a pixel side by side.
struct Jpeg2000Image {
  int64_t height = 0, width = 0;
  int components = 0, bits = 0;
  bool is_signed = false;
  std::vector<int32_t> samples;  ///< [height][width][components]
};

/// Decodes a codestream of just this size with OpenJPEG. Throws Error saying what is wrong: another
/// size (found out before room is made for the pixels), broken data, subsampled colours.
Jpeg2000Image decode_jpeg2000(const uint8_t* bytes,
                              size_t count,
                              int64_t expected_height,
                              int64_t expected_width);

}  // namespace vireo::io
