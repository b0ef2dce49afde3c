#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "datasets/preparation.h"
#include "vision/image/volume.h"
#include "vision/io/canvas.h"

namespace vireo {

/// How a slice across an index axis is turned for display.
struct DisplayTurn {
  bool transpose = false, flip_rows = false, flip_columns = false;  ///< applied in this order
  int row_axis_zyx = 1, column_axis_zyx = 2;  ///< the volume's axes that run down and to the right
};

/// Radiological display: the patient's left on the picture's right; axial slices with posterior
/// down, coronal and sagittal ones with the feet down, sagittal ones with posterior on the right.
DisplayTurn display_turn(const Geometry& geometry, int slice_axis_zyx);

/// One slice [C, H, W] with its labels [H, W] (0 = background) drawn over it, turned for display
/// and with square pixels, its longer side `side_px`. Grey from `low` to `high`, or colour where C
/// = 3 and `colored`.
Canvas display_slice(const at::Tensor& image,
                     const at::Tensor& labels,
                     const Geometry& geometry,
                     int slice_axis_zyx,
                     double low,
                     double high,
                     bool colored,
                     const std::vector<Color>& colors,
                     int64_t side_px);

/// Up to `count` slices that show a segmentation: over the labelled extent, the one with most
/// labelled pixels among them; over the whole where nothing is labelled. `labelled` holds the
/// number of labelled pixels of each slice.
std::vector<int64_t> telling_slices(const std::vector<int64_t>& labelled, int64_t count);

/// The overview picture of a prediction: a row per case with some slices and their labels, and a
/// legend. Keeps small pictures only.
class Preview {
 public:
  explicit Preview(const Preparation& preparation, int64_t max_cases = 12);

  bool has_room() const { return static_cast<int64_t>(rows_.size()) < max_cases_; }
  /// `classes` is uint8 [Z, Y, X] on the image's grid. Cases beyond `max_cases` are only counted.
  void add(const std::string& name,
           const Volume& image,
           const at::Tensor& classes,
           int slice_axis_zyx);
  Canvas picture() const;
  void write(const std::filesystem::path& png) const { picture().write_png(png); }

 private:
  const Preparation& preparation_;
  std::vector<Color> colors_;
  int64_t max_cases_, cases_ = 0;
  std::map<std::string, Canvas> rows_;
};

}  // namespace vireo
