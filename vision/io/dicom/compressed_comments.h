#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace vireo {

/// Whether bytes start a JPEG, JPEG-LS or JPEG 2000 picture, the latter with or without the boxes
/// of a JP2 file.
bool starts_compressed_picture(const uint8_t* bytes, std::size_t count);

/// Overwrites with zeros what such a picture holds beside itself: comments, EXIF, XMP, profiles and
/// other application data, thumbnails, what lies between its segments and behind its end. Its
/// length and what it decodes to stay. Throws Error when its segments cannot be followed.
void blank_comments(std::vector<uint8_t>& picture);

}  // namespace vireo
