#pragma once

#include <array>
#include <cstdint>

#include "vision/io/canvas.h"

namespace vireo {

/// sRGB as RecommendedDisplayCIELabValue: CIELab of the ICC profile connection space (D50, adapted
/// by Bradford), L 0..100 and a, b -128..127 on 0..65535 (DICOM PS3.3 C.10.7.1.1).
std::array<uint16_t, 3> dicom_lab(Color rgb);

}  // namespace vireo
