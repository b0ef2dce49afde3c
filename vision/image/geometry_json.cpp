#include "vision/image/geometry_json.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "vision/core/error.h"
#include "vision/core/json_text.h"

namespace vireo {
namespace {

template <typename T>
T field(const nlohmann::json& json, const char* name, const std::string& source) {
  try {
    if constexpr (std::is_same_v<T, std::array<int64_t, 3>>)
      return whole_numbers(json.at(name)).get<T>();
    else
      return json.at(name).get<T>();
  } catch (const nlohmann::json::exception&) {
    throw DataError(source, std::string("field \"") + name + "\" of a grid is missing or wrong");
  }
}

}  // namespace

nlohmann::json to_json(const Geometry& geometry) {
  return {{"size_zyx", geometry.size_zyx},
          {"spacing_mm_zyx", geometry.spacing_mm_zyx},
          {"origin_lps_mm", geometry.origin_lps_mm},
          {"direction_lps_from_zyx", geometry.direction_lps_from_zyx}};
}

Geometry geometry_from_json(const nlohmann::json& json, const std::string& source) {
  Geometry geometry;
  geometry.size_zyx = field<std::array<int64_t, 3>>(json, "size_zyx", source);
  geometry.spacing_mm_zyx = field<Vector3>(json, "spacing_mm_zyx", source);
  geometry.origin_lps_mm = field<Vector3>(json, "origin_lps_mm", source);
  geometry.direction_lps_from_zyx = field<Matrix3>(json, "direction_lps_from_zyx", source);
  for (int i = 0; i < 3; ++i)
    if (geometry.size_zyx[i] < 1 || !(geometry.spacing_mm_zyx[i] > 0))
      throw DataError(source, "a grid has no voxels or a spacing that is no length");
  return geometry;
}

}  // namespace vireo
