#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "vision/image/geometry.h"

namespace vireo {

/// {"size_zyx": [..], "spacing_mm_zyx": [..], "origin_lps_mm": [..], "direction_lps_from_zyx":
/// [[..], [..], [..]]}, exact to the last bit.
nlohmann::json to_json(const Geometry& geometry);

/// Throws DataError naming `source` and the field that is missing or wrong.
Geometry geometry_from_json(const nlohmann::json& json, const std::string& source);

}  // namespace vireo
