#include "apps/engine/segmentation_outputs.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/segmentation/rtstruct.h"
#include "vision/io/segmentation/seg_nrrd.h"
#include "vision/io/segmentation/slice_pictures.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// Black and white of a picture of the first channel: all but the darkest and brightest half
// percent.
std::array<double, 2> window_of(const at::Tensor& image) {
  const at::Tensor values = image[0].flatten();
  const int64_t step = std::max<int64_t>(1, values.numel() / 1'000'000);
  const at::Tensor sorted = std::get<0>(values.slice(0, 0, values.numel(), step).sort());
  const auto at = [&](double share) {
    const auto last = static_cast<double>(sorted.numel() - 1);
    return sorted[static_cast<int64_t>(std::lround(share * last))].item<double>();
  };
  const double low = at(0.005), high = at(0.995);
  return {low, high > low ? high : low + 1};
}

const DicomSeries& series_of(const InputCase& input, const char* format) {
  if (!input.series)
    throw DataError(input.files[0],
                    std::string("is no DICOM image, and --also ") + format +
                        " refers to one; seg-nrrd holds names and colours without it");
  return *input.series;
}

}  // namespace

void SegmentationOutputs::choose(const std::vector<std::string>& names) {
  for (const std::string& name : names)
    if (name == "dicom-seg")
      dicom_seg = true;
    else if (name == "rtstruct")
      rtstruct = true;
    else if (name == "seg-nrrd")
      seg_nrrd = true;
    else if (name == "pictures")
      pictures = true;
    else
      throw UsageError("--also " + name + ": expected dicom-seg, rtstruct, seg-nrrd or pictures");
}

SegmentationMetadata describe_labels(const SegmentationOutputs& outputs,
                                     const std::vector<Label>& labels) {
  SegmentationMetadata metadata;
  if (!outputs.metadata_file.empty()) metadata = read_dcmqi_metadata(outputs.metadata_file);
  for (const Label& label : labels) {
    if (label.value == 0) continue;
    const auto described = std::any_of(
        metadata.segments.begin(), metadata.segments.end(), [&](const SegmentDescription& segment) {
          return segment.value == label.value;
        });
    if (described) continue;
    if (!outputs.metadata_file.empty())
      throw DataError(outputs.metadata_file,
                      "describes no labelID " + std::to_string(label.value) + ", which is " +
                          label.name + " in the model");
    SegmentDescription segment = describe_segment(label.value, label.name);
    if (label.color_rgb != Color{0, 0, 0}) segment.color = label.color_rgb;
    metadata.segments.push_back(std::move(segment));
  }
  return metadata;
}

void write_segmentation(const SegmentationOutputs& outputs,
                        const fs::path& folder,
                        const InputCase& input,
                        const Volume& image,
                        const at::Tensor& labels,
                        const SegmentationMetadata& metadata,
                        const AlgorithmIdentity& algorithm) {
  const Geometry& grid = image.geometry;
  const auto tell_empty = [&](bool written, const char* what) {
    if (!written) log_warning(input.name + ": no " + what + " written, since no voxel has a label");
  };
  if (outputs.dicom_seg)
    tell_empty(write_dicom_seg(folder / (input.name + ".seg.dcm"),
                               labels,
                               grid,
                               series_of(input, "dicom-seg"),
                               metadata,
                               algorithm,
                               {outputs.deflate}),
               "DICOM SEG");
  if (outputs.rtstruct)
    tell_empty(write_rtstruct(folder / (input.name + ".rtstruct.dcm"),
                              labels,
                              grid,
                              series_of(input, "rtstruct"),
                              metadata,
                              algorithm.software_version),
               "RTSTRUCT");
  if (outputs.seg_nrrd)
    write_seg_nrrd(folder / (input.name + ".seg.nrrd"), labels, grid, metadata.segments);
  if (outputs.pictures) {
    const fs::path pictures = folder / (input.name + "_pictures");
    fs::create_directories(pictures);
    write_mask_pictures(pictures, labels);
    write_overlay_pictures(
        pictures, image.values, labels, metadata.segments, window_of(image.values));
  }
}

}  // namespace vireo
