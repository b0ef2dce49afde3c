#pragma once

#include <filesystem>
#include <string>

class DcmDataset;

namespace vireo {

/// Takes out of a data set's PixelData what is no pixel, where overlays are still beside it: bits
/// outside BitsStored (old overlays are drawn there), bytes behind the last frame, comments and
/// application data of JPEG and JPEG 2000. The pixels' values and the transfer syntax stay. `path`
/// is for messages. Returns what somebody has to look at; empty when there is nothing. Throws
/// DataError for compressed pixels with an overlay in their bits or with segments that cannot be
/// followed.
std::string clean_pixel_data(const std::filesystem::path& path, DcmDataset& item);

}  // namespace vireo
