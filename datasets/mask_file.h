#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <vector>

#include "vision/image/volume.h"

namespace vireo {

/// How the numbers or colours of mask files become label values.
struct MaskRule {
  enum class Kind {
    kValues,     ///< they are the label values; of a PNG with a palette, the indices
    kBinary,     ///< brighter than half is foreground: JPEG and smoothed masks of two classes; of a
                 ///< PNG with a palette of colours, index 1 or 255
    kInstances,  ///< every number but 0 is foreground: numbered objects of one class
    kColors,     ///< every class has its colour
  };
  Kind kind = Kind::kValues;
  std::vector<int64_t> values = {0, 1};             ///< of the classes, background first
  std::vector<std::array<uint8_t, 3>> colors = {};  ///< kColors: one per class

  /// Two rules with the same text read the same.
  std::string text() const;
};

/// A case's truth as int32 [1, Z, Y, X]. Several files are parts of it: where one is background the
/// next one counts. Throws DataError (path first) for a file that cannot be read, parts that differ
/// in size, and what a rule cannot decide, telling the values or colours that were found:
///
/// - kBinary: a picture in colour; a mask whose brightest pixel is not above half of full
/// brightness
///   (masks of 0 and 1 that are no JPEG are taken as such);
/// - kInstances, kColors: a JPEG, which keeps neither numbers nor colours;
/// - kColors: a colour that is no class's.
Volume read_masks(const std::vector<std::filesystem::path>& files, const MaskRule& rule);

}  // namespace vireo
