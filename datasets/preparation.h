#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "vision/image/volume.h"

// How a raw volume becomes what a network sees. The same description is made once by `vireo
// prepare`, stored in the prepared cache and in every checkpoint, and applied again by `vireo
// predict`, so that training and inference cannot drift apart.
namespace vireo {

/// The class number in prepared labels that neither trains nor counts.
inline constexpr uint8_t kIgnoredClass = 255;

/// A class of a segmentation. `value` is what label files hold; classes are numbered 0..K-1 in the
/// order of `Preparation::labels`, background first.
struct Label {
  std::string name;
  int64_t value = 0;
  std::array<uint8_t, 3> color_rgb{0, 0, 0};
};

/// The colour that class `number` gets when nobody chose one: black for 0, then distinct hues.
std::array<uint8_t, 3> default_color(int64_t number);

struct ChannelNormalization {
  enum class Kind {
    kCt,      ///< clip to [lower, upper] (foreground percentiles of the data set), then
              ///< (x - mean) / sd
    kZScore,  ///< (x - mean) / sd with mean and sd of this case's non-zero voxels
    kRgb,     ///< x / 255 (8 bit) or x / 65535 (16 bit), then (x - mean) / sd of the data set
    kNone,
  };
  std::string channel_name;
  Kind kind = Kind::kZScore;
  double lower = 0, upper = 0, mean = 0, sd = 1;  ///< of the data set, where `kind` uses them
};

struct Preparation {
  std::string dataset_name;
  std::vector<ChannelNormalization> channels;
  std::vector<Label> labels;            ///< background first
  std::optional<int64_t> ignore_value;  ///< label value that neither trains nor counts
  /// How the axes of the volumes grow that the network is trained on (most of the data set's), for
  /// example "RAS"; others are turned to it first (reoriented). Empty: unknown, as for pictures.
  std::string orientation_xyz;
  int slice_axis_zyx = 0;             ///< of the array axes (z, y, x): the axis cut into slices
  bool slice_axis_by_spacing = true;  ///< each case's coarsest axis instead of slice_axis_zyx
  /// Spacing in mm of the prepared grid, axes ordered as prepared (slice axis first), 0 for an axis
  /// that stays as stored; nothing: all as stored.
  std::optional<Vector3> spacing_mm;
  /// Height and width of every prepared slice, whatever its own; instead of spacing_mm.
  std::optional<std::array<int64_t, 2>> slice_size;

  int64_t class_count() const { return static_cast<int64_t>(labels.size()); }
  nlohmann::json to_json() const;
  /// Throws DataError naming `source` and the field.
  static Preparation from_json(const nlohmann::json& json, const std::string& source);
};

/// A case in the network's form: the slice axis first, intensities normalised, resampled if asked.
struct PreparedCase {
  std::string name;
  at::Tensor image;   ///< float32 [C, D, H, W], D the slice axis
  at::Tensor labels;  ///< uint8 [D, H, W] class numbers (kIgnoredClass = ignore), or undefined
  Geometry geometry;  ///< of the prepared grid
  Geometry native;    ///< of the file
  std::array<int, 3> axis_order{0, 1, 2};  ///< prepared axis i is the file's axis axis_order[i]
};

/// The file's axes (0 = z, 1 = y, 2 = x) in the order in which they are prepared: the slice axis
/// first, the others as they were.
std::array<int, 3> prepared_axes(const Preparation& preparation, const Geometry& file);

/// How far apart, in mm, the grids of an image and its label map (or of two channels) may be at any
/// corner: a twentieth of the smallest voxel side.
double grid_tolerance_mm(const Geometry& geometry);

/// Applies `preparation` to a raw volume, which has the preparation's orientation already. A grey
/// picture is repeated where three channels are wanted. `labels`, if given, holds file label values
/// on the same grid. Intensities are normalised on the stored grid, then resampled by cubic
/// convolution (pictures brought to slice_size: linearly, averaged where they shrink); labels by
/// linear interpolation of each class. Throws DataError (path `name`) for
/// non-finite voxels, a wrong channel count, undeclared labels.
PreparedCase prepare_case(const std::string& name,
                          const Volume& image,
                          const std::optional<Volume>& labels,
                          const Preparation& preparation);

}  // namespace vireo
