#include "datasets/case_scan.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <string_view>

#include <ATen/Functions.h>

#include "datasets/array_file.h"
#include "datasets/exif_orientation.h"
#include "datasets/mask_file.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"
#include "vision/io/picture_file.h"

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

// A case's file that an error names; the first of `files` where it names none.
fs::path named_file(const std::vector<fs::path>& files, const std::string& message) {
  for (const fs::path& one : files)
    if (message.starts_with(one.string() + ":")) return one;
  return files.at(0);
}

bool is_stack(const SourceCase& source) {
  return source.images.size() > 1 && is_array_file(source.images[0]);
}

// Memory that is not there is an error of the file that asked for it.
template <typename Action>
auto within_memory(const fs::path& path, const Action& action) -> decltype(action()) {
  try {
    return action();
  } catch (const std::bad_alloc&) {
  } catch (const c10::Error& error) {
    if (std::string_view(error.what()).find("DefaultCPUAllocator") == std::string_view::npos) throw;
  }
  throw DataError(path,
                  "does not fit into the memory that is free; take fewer [data] workers, or save "
                  "it in parts");
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

// The values of a case's labels, and of a stack the slices in which they are first.
void scan_labels(const SourceCase& source, const at::Tensor& labels, CaseScan& scan) {
  if (!is_stack(source)) {
    scan.label_voxels = count_labels(source.labels, labels);
    return;
  }
  for (size_t i = 0; i < source.images.size(); ++i)
    for (const auto& [value, count] :
         count_labels(source.images[i], labels.select(1, static_cast<int64_t>(i)))) {
      scan.label_voxels[value] += count;
      scan.first_file.emplace(value, source.images[i]);
    }
}

// Reports the first file with values that are no numbers.
template <typename Report>
void check_finite(const SourceCase& source, const at::Tensor& image, const Report& report) {
  if (at::isfinite(image).all().item<bool>()) return;
  const auto text = [](const at::Tensor& values) {
    return "holds NaN or infinite values (" +
           std::to_string(at::isfinite(values).logical_not().sum().item<int64_t>()) + " voxels)";
  };
  if (!is_stack(source)) {
    report(source.images[0], text(image));
    return;
  }
  const at::Tensor broken = at::isfinite(image[0]).flatten(1).all(1).logical_not().nonzero();
  const auto first = broken[0][0].item<int64_t>();
  std::string what = text(image.select(1, first));
  if (broken.size(0) > 1)
    what += ", as do " + std::to_string(broken.size(0) - 1) + " more slices of its case";
  report(source.images[static_cast<size_t>(first)], what);
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

// A photograph whose masks were drawn on it as viewers show it, which the sizes tell, is turned as
// its EXIF orientation says.
void turn_as_masks(const SourceCase& source, const Volume& labels, Volume& image) {
  const auto &from = image.geometry.size_zyx, &to = labels.geometry.size_zyx;
  const bool turned = from[1] != from[2] && from[1] == to[2] && from[2] == to[1];
  if (turned && source.images.size() == 1 && exif_orientation(source.images[0]) >= 5)
    image = io::to_image(io::read_upright_picture(source.images[0]));
}

// An EXIF orientation that the sizes do not tell whether the masks follow; 1 where there is none.
int undecided_orientation(const SourceCase& source, const Volume& image) {
  if (source.images.size() != 1 || !is_picture(source.images[0])) return 1;
  const int orientation = exif_orientation(source.images[0]);
  const auto& size = image.geometry.size_zyx;
  return orientation < 5 || size[1] == size[2] ? orientation : 1;
}

// One volume of the slices that array files hold, each a volume of one.
Volume read_stack(const SourceCase& source, Volume (*read)(const fs::path&)) {
  const auto read_one = [&](const fs::path& file) {
    return within_memory(file, [&] { return read(file); });
  };
  Volume whole = read_one(source.images[0]);
  if (source.images.size() == 1) return whole;
  std::vector<at::Tensor> slices;
  for (const fs::path& file : source.images) {
    const Volume one = slices.empty() ? whole : read_one(file);
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
  return within_memory(source.images[0], [&] {
    RawCase raw{read_channels(source), read_truth(source)};
    turn_as_masks(source, raw.labels, raw.image);
    forget_space_of_pictures(source, raw);
    check_same_grid(source.labels, raw.labels.geometry, raw.image.geometry);
    return raw;
  });
}

CaseScan scan_case(const SourceCase& source, std::optional<int64_t> ignore_value) {
  CaseScan scan;
  scan.name = source.name;
  const auto report = [&](const fs::path& path, const std::string& what) {
    const std::string reason = without_path(path, what);
    // A file that holds image and labels has some of its problems twice.
    for (const Problem& known : scan.problems)
      if (known.path == path && known.reason == reason) return;
    scan.problems.push_back({path, reason, source.name});
  };
  // Each part by itself, so that one broken file does not hide what is wrong with the other.
  const auto attempt = [&](const std::vector<fs::path>& files, const auto& action) {
    try {
      within_memory(files.at(0), action);
      return true;
    } catch (const DataError& error) {
      report(named_file(files, error.what()), error.what());
      return false;
    }
  };
  const auto truth_files = is_stack(source) ? source.images : source.mask_files();
  Volume image, labels;
  const bool has_image = attempt(source.images, [&] { image = read_channels(source); });
  const bool has_labels = attempt(truth_files, [&] {
    labels = read_truth(source);
    scan_labels(source, labels.values, scan);
  });
  if (!has_labels) {
    scan.label_voxels.clear();
    scan.first_file.clear();
  }
  if (has_image && has_labels)
    attempt(source.images, [&] { turn_as_masks(source, labels, image); });
  if (has_image) attempt(source.images, [&] { check_finite(source, image.values, report); });
  if (!has_image || !has_labels) return scan;
  RawCase raw{image, labels};
  forget_space_of_pictures(source, raw);
  attempt({source.labels},
          [&] { check_same_grid(source.labels, raw.labels.geometry, raw.image.geometry); });
  scan.exif_orientation = undecided_orientation(source, image);
  scan.geometry = image.geometry;
  scan.channels = image.values.size(0);
  scan.full_scale = image.full_scale;
  if (!scan.problems.empty()) return scan;
  attempt(source.images, [&] {
    for (int64_t c = 0; c < scan.channels; ++c)
      scan.intensities.push_back(
          scan_channel(image.values[c], labels.values[0], image.full_scale, ignore_value));
  });
  return scan;
}

}  // namespace vireo
