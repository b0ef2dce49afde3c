#include "datasets/fingerprint.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <nlohmann/json.hpp>

#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/image/orientation.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

using Kind = ChannelNormalization::Kind;

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// Linear interpolation between order statistics, as NumPy's percentile.
double percentile(const std::vector<float>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double position = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = position - static_cast<double>(below);
  return sorted[below] * (1 - part) + sorted[above] * part;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

// The names of cases that train in at least one fold; all where there are no folds yet.
std::set<std::string> training_names(const DatasetSource& source) {
  std::set<std::string> names;
  for (const Fold& fold : source.folds) names.insert(fold.train.begin(), fold.train.end());
  if (source.folds.empty())
    for (const auto& one : source.cases) names.insert(one.name);
  return names;
}

// Masks of exactly two values 0 and 255 are two classes.
void settle_label_values(const std::vector<CaseScan>& scans, DatasetSource& source) {
  if (!source.values_assumed || source.labels.size() != 2) return;
  bool white = false;
  for (const CaseScan& scan : scans)
    for (const auto& [value, count] : scan.label_voxels) {
      if (value != 0 && value != 255) return;
      white = white || value == 255;
    }
  if (white) source.labels[1].value = 255;
}

// Names the channels that the folder does not name; returns how few a case may have: grey pictures
// among colour ones are read as colour.
int64_t settle_channels(const std::vector<CaseScan>& scans, DatasetSource& source) {
  bool pictures = true;
  int64_t most = 0;
  for (const CaseScan& scan : scans) {
    if (scan.channels == 0) continue;
    pictures = pictures && scan.full_scale > 0;
    most = std::max(most, scan.channels);
  }
  auto& names = source.channel_names;
  if (names.empty()) {
    if (pictures && most == 3)
      names = {"red", "green", "blue"};
    else
      for (int64_t c = 0; c < most; ++c)
        names.push_back(most == 1 && pictures ? "grey" : "channel_" + std::to_string(c));
  }
  return pictures && names.size() == 3 ? 1 : static_cast<int64_t>(names.size());
}

// What was found instead of the declared values, and what to do.
std::string undeclared_text(const std::map<int64_t, int64_t>& found,
                            const SourceCase& files,
                            const DatasetSource& source) {
  constexpr size_t kListedValues = 8;
  std::string text, known;
  size_t listed = 0;
  for (const auto& [value, count] : found) {
    if (++listed > kListedValues) break;
    text += (text.empty() ? "" : ", ") + std::to_string(value) + " (" + std::to_string(count) +
            " voxels)";
  }
  if (found.size() > kListedValues)
    text += " and " + std::to_string(found.size() - kListedValues) + " more up to " +
            std::to_string(found.rbegin()->first);
  for (const Label& label : source.labels)
    known += (known.empty() ? "" : ", ") + std::to_string(label.value) + " " + label.name;
  text = "holds label values that are not declared: " + text + "; declared are " + known;
  if (source.labels.size() != 2 || !is_picture(files.labels)) return text;
  const std::string& name = source.labels[1].name;
  return text + ". Set [data] masks = \"binary\" where what is brighter than half is " + name +
         " (JPEG and smoothed masks), \"instances\" where every number above 0 is " + name +
         ", or label_values";
}

void check_case(const CaseScan& scan,
                const SourceCase& files,
                int64_t fewest_channels,
                bool allow_empty,
                DatasetSource& source) {
  const auto report = [&](const std::filesystem::path& path, const std::string& what) {
    source.problems.push_back({path, what, scan.name});
  };
  const auto wanted = static_cast<int64_t>(source.channel_names.size());
  if (scan.channels > 0 && scan.channels != wanted && scan.channels != fewest_channels)
    report(files.images[0],
           "channels: " + std::to_string(scan.channels) + " found, " + std::to_string(wanted) +
               " expected");

  std::map<int64_t, int64_t> undeclared;
  int64_t foreground = 0;
  for (const auto& [value, count] : scan.label_voxels) {
    const bool declared =
        value == source.ignore_value ||
        std::any_of(source.labels.begin(), source.labels.end(), [&, value = value](const Label& l) {
          return l.value == value;
        });
    if (!declared) undeclared[value] = count;
    if (value != source.labels[0].value && value != source.ignore_value) foreground += count;
  }
  // Of slices, by the file in which each value is first.
  std::map<std::filesystem::path, std::map<int64_t, int64_t>> by_file;
  for (const auto& [value, count] : undeclared) {
    const auto first = scan.first_file.find(value);
    by_file[first == scan.first_file.end() ? files.labels : first->second][value] = count;
  }
  for (const auto& [file, values] : by_file)
    report(file,
           undeclared_text(values, files, source) +
               (scan.first_file.empty() ? "" : " (voxels of the whole case)"));
  if (foreground == 0 && !scan.label_voxels.empty() && !allow_empty)
    report(files.labels,
           std::string("is empty") +
               (scan.first_file.empty() ? "" : ", as is every slice of its case") +
               ": background alone. If that is right, set [data] allow_empty_labels = true");
}

// Pictures that viewers turn, and of whose masks the sizes do not tell whether they were drawn so.
void warn_of_orientations(const std::vector<CaseScan>& scans, const DatasetSource& source) {
  int64_t count = 0;
  std::string first;
  for (size_t i = 0; i < scans.size(); ++i) {
    if (scans[i].exif_orientation == 1 || ++count > 1) continue;
    first = source.cases[i].images[0].filename().string() + ": " +
            std::to_string(scans[i].exif_orientation);
  }
  if (count > 0)
    log_warning(source.folder.string() + ": " + std::to_string(count) +
                (count == 1 ? " picture has" : " pictures have") + " an EXIF orientation (" +
                first +
                ") and masks whose size does not tell whether they follow it; both are taken as "
                "stored. If masks were drawn on the pictures as viewers show them, turn the "
                "pictures first: mogrify -auto-orient");
}

// What most of the volumes have; pictures and array files do not tell.
std::string usual_orientation(const DatasetSource& source, const std::vector<CaseScan>& scans) {
  std::map<std::string, size_t> counts;
  for (const CaseScan& scan : scans) {
    if (scan.full_scale > 0 || source.format == "arrays") return "";
    ++counts[scan.geometry.orientation_xyz()];
  }
  std::string usual;
  for (const auto& [code, count] : counts)
    if (usual.empty() || count > counts[usual]) usual = code;
  return usual;
}

}  // namespace

void check_dataset(const DataConfig& config,
                   const std::vector<CaseScan>& scans,
                   DatasetSource& source) {
  settle_label_values(scans, source);
  const int64_t fewest_channels = settle_channels(scans, source);
  const size_t kinds = config.normalization.size();
  if (kinds != 1 && kinds != source.channel_names.size())
    source.problems.push_back({"[data] normalization",
                               "has " + std::to_string(kinds) + " entries for " +
                                   std::to_string(source.channel_names.size()) + " channels",
                               {}});
  for (size_t i = 0; i < scans.size(); ++i) {
    for (const Problem& problem : scans[i].problems) source.problems.push_back(problem);
    check_case(scans[i], source.cases[i], fewest_channels, config.allow_empty_labels, source);
  }
  warn_of_orientations(scans, source);
}

void throw_problems(const DatasetSource& source) {
  if (source.problems.empty()) return;
  const size_t count = source.problems.size();
  std::string text = count == 1 ? "1 problem:" : std::to_string(count) + " problems:";
  for (const Problem& problem : source.problems) {
    // Within the set, the path relative to its folder.
    const auto relative = problem.path.lexically_relative(source.folder);
    const bool within = !relative.empty() && *relative.begin() != "..";
    text += "\n  " + (within ? relative : problem.path).string() + ": " + problem.reason;
  }
  throw DataError(source.folder, text);
}

Fingerprint take_fingerprint(const DatasetSource& source, const std::vector<CaseScan>& scans) {
  Fingerprint result;
  const auto training = training_names(source);
  const size_t channels = source.channel_names.size();
  result.pictures = std::all_of(
      scans.begin(), scans.end(), [](const CaseScan& scan) { return scan.full_scale > 0; });

  for (size_t c = 0; c < channels; ++c) {
    std::vector<float> foreground;
    double sum = 0, squares = 0, voxels = 0;
    for (const CaseScan& scan : scans) {
      if (!training.contains(scan.name)) continue;
      const ChannelScan& channel = scan.intensities[scan.channels == 1 ? 0 : c];
      foreground.insert(foreground.end(), channel.foreground.begin(), channel.foreground.end());
      sum += channel.sum;
      squares += channel.sum_of_squares;
      voxels += static_cast<double>(scan.geometry.voxel_count());
    }
    std::sort(foreground.begin(), foreground.end());
    Fingerprint::Channel channel;
    channel.name = source.channel_names[c];
    if (!foreground.empty()) {
      channel.lower = percentile(foreground, 0.5);
      channel.median = percentile(foreground, 50);
      channel.upper = percentile(foreground, 99.5);
      channel.min = foreground.front();
      channel.max = foreground.back();
      const auto n = static_cast<double>(foreground.size());
      double mean = 0, variance = 0;
      for (const float value : foreground) mean += value / n;
      for (const float value : foreground) variance += (value - mean) * (value - mean) / n;
      channel.mean = mean;
      channel.sd = std::max(std::sqrt(variance), 1e-8);
    }
    if (voxels > 0) {
      channel.overall_mean = sum / voxels;
      const double variance = squares / voxels - channel.overall_mean * channel.overall_mean;
      channel.overall_sd = std::max(std::sqrt(std::max(variance, 0.0)), 1e-8);
    }
    result.channels.push_back(channel);
  }

  for (const Label& label : source.labels) {
    int64_t voxels = 0, cases = 0;
    for (const CaseScan& scan : scans) {
      const auto found = scan.label_voxels.find(label.value);
      if (found == scan.label_voxels.end()) continue;
      voxels += found->second;
      ++cases;
    }
    result.class_voxels.push_back(voxels);
    result.class_cases.push_back(cases);
  }
  return result;
}

nlohmann::json fingerprint_json(const Fingerprint& fingerprint,
                                const DatasetSource& source,
                                const std::vector<CaseScan>& scans) {
  using nlohmann::json;
  json spacings = json::array(), shapes = json::array(), cases = json::array();
  for (const CaseScan& scan : scans) {
    cases.push_back(scan.name);
    spacings.push_back(scan.geometry.spacing_mm_zyx);
    shapes.push_back(scan.geometry.size_zyx);
  }
  json intensities = json::object();
  for (size_t c = 0; c < fingerprint.channels.size(); ++c) {
    const auto& channel = fingerprint.channels[c];
    intensities[std::to_string(c)] = {{"name", channel.name},
                                      {"max", channel.max},
                                      {"mean", channel.mean},
                                      {"median", channel.median},
                                      {"min", channel.min},
                                      {"percentile_00_5", channel.lower},
                                      {"percentile_99_5", channel.upper},
                                      {"std", channel.sd},
                                      {"all_voxels_mean", channel.overall_mean},
                                      {"all_voxels_std", channel.overall_sd}};
  }
  int64_t total = 0;
  for (const int64_t voxels : fingerprint.class_voxels) total += voxels;
  json classes = json::array();
  for (size_t k = 0; k < source.labels.size(); ++k)
    classes.push_back({{"name", source.labels[k].name},
                       {"value", source.labels[k].value},
                       {"voxels", fingerprint.class_voxels[k]},
                       {"fraction",
                        static_cast<double>(fingerprint.class_voxels[k]) /
                            static_cast<double>(std::max<int64_t>(1, total))},
                       {"cases", fingerprint.class_cases[k]}});
  return {{"dataset", source.name},
          {"format", source.format},
          {"cases", cases},
          {"spacings", spacings},
          {"shapes", shapes},
          {"foreground_intensity_properties_per_channel", intensities},
          {"classes", classes}};
}

Preparation plan_preparation(const DataConfig& config,
                             const DatasetSource& source,
                             const std::vector<CaseScan>& scans,
                             const Fingerprint& fingerprint) {
  Preparation result;
  result.dataset_name = source.name;
  result.labels = source.labels;
  result.ignore_value = source.ignore_value;
  result.slice_axis_by_spacing = config.slice_axis_by_spacing;
  result.slice_axis_zyx = config.slice_axis_zyx;
  result.orientation_xyz = usual_orientation(source, scans);

  for (size_t c = 0; c < fingerprint.channels.size(); ++c) {
    const auto& found = fingerprint.channels[c];
    const auto& asked = config.normalization[config.normalization.size() == 1 ? 0 : c];
    ChannelNormalization channel;
    channel.channel_name = found.name;
    const std::string name = lower_case(found.name);
    if (asked)
      channel.kind = *asked;
    else if (name == "ct")
      channel.kind = Kind::kCt;
    else if (name == "nonorm")
      channel.kind = Kind::kNone;
    else if (fingerprint.pictures)
      channel.kind = Kind::kRgb;
    if (channel.kind == Kind::kCt) {
      channel.lower = found.lower;
      channel.upper = found.upper;
      channel.mean = found.mean;
      channel.sd = found.sd;
    } else if (channel.kind == Kind::kRgb) {
      channel.mean = found.overall_mean;
      channel.sd = found.overall_sd;
    }
    result.channels.push_back(channel);
  }

  result.slice_size = config.slice_size;
  if (config.spacing == DataConfig::Spacing::kFixed) result.spacing_mm = config.spacing_mm;
  if (config.spacing == DataConfig::Spacing::kMedian) {
    Vector3 medians;
    for (int i = 0; i < 3; ++i) {
      std::vector<double> spacings;
      for (const CaseScan& scan : scans) {
        const Geometry grid =
            reoriented(scan.geometry, reorientation(scan.geometry, result.orientation_xyz));
        spacings.push_back(grid.permuted(prepared_axes(result, grid)).spacing_mm_zyx[i]);
      }
      medians[i] = median(spacings);
    }
    result.spacing_mm = medians;
  }
  return result;
}

}  // namespace vireo
