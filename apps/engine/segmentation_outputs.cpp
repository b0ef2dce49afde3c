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

void check_outputs(const SegmentationOutputs& outputs, const InputCase& input) {
  if (!outputs.dicom_seg && !outputs.rtstruct) return;
  if (!input.series)
    throw DataError(input.files[0],
                    std::string("is no DICOM image, and --also ") +
                        (outputs.dicom_seg ? "dicom-seg" : "rtstruct") +
                        " refers to one; seg-nrrd holds names and colours without it");
  if (outputs.dicom_seg) check_dicom_seg_source(*input.series);
  if (outputs.rtstruct) check_rtstruct_source(*input.series);
}

std::vector<std::string> write_segmentation(const SegmentationOutputs& outputs,
                                            const fs::path& folder,
                                            const InputCase& input,
                                            const Volume& image,
                                            const at::Tensor& labels,
                                            const SegmentationMetadata& metadata,
                                            const AlgorithmIdentity& algorithm) {
  check_outputs(outputs, input);
  const Geometry& grid = image.geometry;
  std::vector<std::string> written;
  const auto note = [&](const std::string& name, bool is_there, const char* what) {
    if (is_there)
      written.push_back(name);
    else
      log_warning(input.name + ": no " + what + " written, since no voxel has a label");
  };
  if (outputs.dicom_seg) {
    const std::string name = input.name + ".seg.dcm";
    note(name,
         write_dicom_seg(
             folder / name, labels, grid, *input.series, metadata, algorithm, {outputs.deflate}),
         "DICOM SEG");
  }
  if (outputs.rtstruct) {
    const std::string name = input.name + ".rtstruct.dcm";
    note(name,
         write_rtstruct(
             folder / name, labels, grid, *input.series, metadata, algorithm.software_version),
         "RTSTRUCT");
  }
  if (outputs.seg_nrrd) {
    written.push_back(input.name + ".seg.nrrd");
    write_seg_nrrd(folder / written.back(), labels, grid, metadata.segments);
  }
  if (outputs.pictures) {
    written.push_back(input.name + "_pictures");
    const fs::path pictures = folder / written.back();
    fs::create_directories(pictures);
    write_mask_pictures(pictures, labels);
    write_overlay_pictures(
        pictures, image.values, labels, metadata.segments, window_of(image.values));
  }
  return written;
}

}  // namespace vireo
