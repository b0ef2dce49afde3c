#pragma once

#include <filesystem>

#include "vision/image/orientation.h"

namespace vireo {

/// How viewers turn a JPEG before they show it, as its EXIF data say: 1 (not at all) to 8; from 5
/// on height and width change places. 1 also for what is no JPEG or does not say.
int exif_orientation(const std::filesystem::path& path);

/// What puts the pixels of a picture so that it stands upright.
Reorientation upright(int exif_orientation);

}  // namespace vireo
