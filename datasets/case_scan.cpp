#include "datasets/case_scan.h"

#include <algorithm>
#include <cmath>

#include <ATen/Functions.h>

#include "datasets/array_file.h"
#include "datasets/mask_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// A label map with more values than this is an image.
constexpr size_t kMostLabelValues = 1000;

// The reason alone, where the error already names the file.
std::string without_path(const fs::path& path, const std::string& message) {
  const std::string prefix = path.string() + ": ";
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

std::map<int64_t, int64_t> count_labels(const fs::path& path, const at::Tensor& labels) {
  std::map<int64_t, int64_t> counts;
  const int32_t* values = labels.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < labels.numel();) {
    const int32_t value = values[i];
    int64_t run = i;
    while (run < labels.numel() && values[run] == value) ++run;
    counts[value] += run - i;
    i = run;
    if (counts.size() > kMostLabelValues)
      throw DataError(path,
                      "holds more than " + std::to_string(kMostLabelValues) +
                          " different values; is this an image?");
  }
  return counts;
}

// Every n-th voxel of those that are neither background nor ignored.
std::vector<float> sample_foreground(const at::Tensor& channel,
                                     const at::Tensor& labels,
                                     std::optional<int64_t> ignore_value) {
  at::Tensor chosen = labels.ne(0);
  if (ignore_value) chosen &= labels.ne(*ignore_value);
  const at::Tensor values = channel.masked_select(chosen);
  const int64_t count = values.numel(), kept = std::min(count, kForegroundSamples);
  const float* from = values.const_data_ptr<float>();
  std::vector<float> samples(static_cast<size_t>(kept));
  for (int64_t i = 0; i < kept; ++i) samples[static_cast<size_t>(i)] = from[i * count / kept];
  return samples;
}

ChannelScan scan_channel(const at::Tensor& channel,
                         const at::Tensor& labels,
                         double full_scale,
                         std::optional<int64_t> ignore_value) {
  ChannelScan scan;
  scan.foreground = sample_foreground(channel, labels, ignore_value);
  const double scale = full_scale > 0 ? 1 / full_scale : 1;
  const float* values = channel.const_data_ptr<float>();
  for (int64_t i = 0; i < channel.numel(); ++i) {
    const double value = values[i] * scale;
    scan.sum += value;
    scan.sum_of_squares += value * value;
  }
  return scan;
}

// Grids of files that belong together.
void check_same_grid(const fs::path& path, const Geometry& of_path, const Geometry& of_first) {
  const std::string apart = difference(of_first, of_path, grid_tolerance_mm(of_first));
  if (!apart.empty()) throw DataError(path, "its grid is not that of the image: " + apart);
}

// A picture says nothing of space: beside a volume of one slice only the sizes count.
void forget_space_of_pictures(const SourceCase& source, RawCase& raw) {
  if (is_picture(source.labels) != is_picture(source.images[0]) &&
      raw.labels.geometry.size_zyx == raw.image.geometry.size_zyx)
    raw.labels.geometry = raw.image.geometry;
}

// One volume of the slices that array files hold, each a volume of one.
Volume read_stack(const SourceCase& source, Volume (*read)(const fs::path&)) {
  Volume whole = read(source.images[0]);
  if (source.images.size() == 1) return whole;
  std::vector<at::Tensor> slices;
  for (const fs::path& file : source.images) {
    const Volume one = slices.empty() ? whole : read(file);
    if (one.values.sizes() != whole.values.sizes() || one.values.size(1) != 1)
      throw DataError(file,
                      "has the size " + c10::str(one.values.sizes()) + "; its case's first slice " +
                          c10::str(whole.values.sizes()));
    slices.push_back(one.values);
  }
  whole.values = at::cat(slices, 1);
  whole.geometry.size_zyx[0] = whole.values.size(1);
  return whole;
}

Volume read_truth(const SourceCase& source) {
  return is_array_file(source.labels) ? read_stack(source, read_array_labels)
                                      : read_masks(source.mask_files(), source.rule);
}

Volume read_channels(const SourceCase& source) {
  if (is_array_file(source.images[0])) return read_stack(source, read_array_image);
  Volume image = read_image(source.images[0]);
  if (source.images.size() == 1) return image;
  std::vector<at::Tensor> channels;
  for (const fs::path& file : source.images) {
    const Volume one = channels.empty() ? image : read_image(file);
    if (one.values.size(0) != 1)
      throw DataError(file,
                      "has " + std::to_string(one.values.size(0)) +
                          " channels, where each file is one channel");
    check_same_grid(file, one.geometry, image.geometry);
    channels.push_back(one.values);
  }
  image.values = at::cat(channels, 0);
  return image;
}

}  // namespace

RawCase read_case(const SourceCase& source) {
  RawCase raw{read_channels(source), read_truth(source)};
  forget_space_of_pictures(source, raw);
  check_same_grid(source.labels, raw.labels.geometry, raw.image.geometry);
  return raw;
}

CaseScan scan_case(const SourceCase& source, std::optional<int64_t> ignore_value) {
  CaseScan scan;
  scan.name = source.name;
  const auto report = [&](const fs::path& path, const std::string& what) {
    scan.problems.push_back({path, without_path(path, what), source.name});
  };
  // Each part by itself, so that one broken file does not hide what is wrong with the other.
  std::optional<Volume> image, labels;
  try {
    image = read_channels(source);
  } catch (const DataError& error) {
    const std::string message = error.what();
    fs::path file = source.images[0];
    for (const fs::path& one : source.images)
      if (message.starts_with(one.string() + ":")) file = one;
    report(file, message);
  }
  try {
    labels = read_truth(source);
    scan.label_voxels = count_labels(source.labels, labels->values);
  } catch (const DataError& error) {
    report(source.labels, error.what());
    labels.reset();
  }

  if (image && !at::isfinite(image->values).all().item<bool>()) {
    const auto broken = at::isfinite(image->values).logical_not().sum().item<int64_t>();
    report(source.images[0],
           "holds NaN or infinite values (" + std::to_string(broken) + " voxels)");
  }
  if (!image || !labels) return scan;
  RawCase raw{*image, *labels};
  forget_space_of_pictures(source, raw);
  try {
    check_same_grid(source.labels, raw.labels.geometry, raw.image.geometry);
  } catch (const DataError& error) {
    report(source.labels, error.what());
  }
  scan.geometry = image->geometry;
  scan.channels = image->values.size(0);
  scan.full_scale = image->full_scale;
  if (!scan.problems.empty()) return scan;
  for (int64_t c = 0; c < scan.channels; ++c)
    scan.intensities.push_back(
        scan_channel(image->values[c], labels->values[0], image->full_scale, ignore_value));
  return scan;
}

}  // namespace vireo
