#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "vision/image/volume.h"

// Made-up CT scans of upper abdomens, with their organs outlined: data to try everything on, for
// demos and tests. Nothing in them comes from a patient.
namespace vireo {

struct PhantomOptions {
  uint64_t seed = 1;
  std::array<int64_t, 3> size_zyx{28, 96, 96};
  /// mm; nothing: chosen per case so that the trunk fits, with slices coarser than pixels.
  std::optional<Vector3> spacing_mm_zyx;
  double noise_hu = 14;  ///< standard deviation, give or take a quarter from case to case

  nlohmann::json to_json() const;
};

struct PhantomCase {
  Volume image;   ///< int16 Hounsfield units [1, Z, Y, X]
  Volume labels;  ///< uint8 [1, Z, Y, X], on the same grid
};

/// "background", "liver", ...: the name of each label value.
std::vector<std::string> phantom_label_names();

/// Case number `index` of a seed: always the same bytes, whatever the threads. The number of slices
/// varies by up to two; about half of the cases lie obliquely (up to 6 degrees about each axis),
/// and about a third are stored with two or three axes flipped.
PhantomCase make_phantom(int64_t index, const PhantomOptions& options);

}  // namespace vireo
