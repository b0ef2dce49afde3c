#pragma once

#include <filesystem>
#include <string>

#include <ATen/core/Tensor.h>

namespace vireo {

/// Whether a folder's file is taken for an image by its name: image_extension knows it, or it is a
/// DICOM file's (.dcm). Hidden files are none.
bool is_named_as_image(const std::filesystem::path& path);

/// Reads an image file for classification: uint8 [H, W, 1 or 3], red first.
///
/// Pictures are turned upright by their EXIF orientation; CMYK becomes RGB, palettes are expanded,
/// alpha is dropped. Of a volume `slice` is taken, which must be given where there are several
/// (-1: the only one). Pixels of more than 8 bits become 8 bits by `depth`: "full_scale" divides
/// 16-bit values by 257; "stretch" spreads each picture's 0.5 to 99.5 percentile over 0..255; and
/// "auto" is full_scale for 16-bit pictures and stretch for everything else that is deeper.
/// Throws DataError.
at::Tensor read_classified_picture(const std::filesystem::path& path,
                                   int64_t slice = -1,
                                   const std::string& depth = "auto");

}  // namespace vireo
