#pragma once

#include <string>

#include "vision/io/segmentation/segment_description.h"

namespace vireo {

struct AnatomyCodes {
  CodedConcept category, type, side;  ///< side: Left, Right or empty
};

/// SNOMED CT codes (DICOM PS3.16, CID 7150, 7151 and 244) of an organ or a lesion named in English:
/// letters' case, order of "left" and "right", underscores and plural do not matter. An unknown
/// name is Tissue of the category Tissue.
AnatomyCodes anatomy_codes(const std::string& name);

}  // namespace vireo
