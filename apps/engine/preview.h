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
  /// `classes` is uint8 [Z, Y, X] on the image's grid; slices are shown towards the patient's left,
  /// back or head. Cases beyond `max_cases` are only counted.
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
