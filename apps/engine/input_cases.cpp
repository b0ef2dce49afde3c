#include "apps/engine/input_cases.h"

#include <algorithm>
#include <map>
#include <optional>

#include <ATen/ATen.h>

#include "datasets/picture_pairs.h"
#include "vision/core/error.h"
#include "vision/core/log.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/dicom/dicom_scan.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

struct ChannelName {
  std::string case_name;
  int64_t channel;
};

// "CASE_0003" as (CASE, 3).
std::optional<ChannelName> channel_name(const std::string& stem) {
  if (stem.size() < 6 || stem[stem.size() - 5] != '_') return std::nullopt;
  const std::string digits = stem.substr(stem.size() - 4);
  if (digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  return ChannelName{stem.substr(0, stem.size() - 5), std::stoll(digits)};
}

std::vector<fs::path> image_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_regular_file() || entry.path().filename().string().starts_with(".")) continue;
    const std::string extension = image_extension(entry.path());
    // A pair's header stands for both. DICOM files may end in anything.
    if (!extension.empty() && extension != ".img" && extension != ".img.gz" &&
        !is_dicom(entry.path()))
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string numbered(const std::string& name, int64_t channel) {
  std::string digits = std::to_string(channel);
  return name + "_" + std::string(4 - std::min<size_t>(digits.size(), 4), '0') + digits;
}

using Groups = std::map<std::string, std::map<int64_t, std::vector<fs::path>>>;

// Every series is a case of its own. What cannot be read is told, but does not stop the others.
void add_series(DicomScan scan, InputCases& found) {
  for (DicomSeries& series : scan.series) {
    InputCase one{series.name, {}, {}};
    for (const DicomFile& file : series.files) one.files.push_back(file.path);
    one.series = std::move(series);
    found.cases.push_back(std::move(one));
  }
  for (const std::string& line : scan.left_out) log_warning("left out: " + line);
}

// Forms the cases of files that are named as nnU-Net names channels.
void add_channel_groups(const Groups& groups, int64_t channel_count, InputCases& found) {
  for (const auto& [name, channels] : groups) {
    // A picture holds its colours itself.
    if (channel_count == 3 && channels.size() == 1 && channels.begin()->first == 0 &&
        channels.begin()->second.size() == 1 && is_picture(channels.begin()->second[0])) {
      found.cases.push_back({name, channels.begin()->second, {}});
      continue;
    }
    if (channel_count == 1 && !channels.contains(0)) {
      for (const auto& [channel, files] : channels)
        for (const fs::path& file : files) found.cases.push_back({image_stem(file), {file}, {}});
      continue;
    }
    InputCase one{name, {}, {}};
    std::string problem;
    for (int64_t channel = 0; channel < channel_count && problem.empty(); ++channel) {
      const auto at = channels.find(channel);
      if (at == channels.end())
        problem = "channel " + numbered(name, channel) + " is missing; the model takes " +
                  std::to_string(channel_count) + " channel(s)";
      else if (at->second.size() > 1)
        problem = "two files hold " + numbered(name, channel) + ": " +
                  at->second[0].filename().string() + " and " + at->second[1].filename().string();
      else
        one.files.push_back(at->second[0]);
    }
    const int64_t last = channels.rbegin()->first;
    if (problem.empty() && last >= channel_count)
      problem = "channel " + numbered(name, last) + " is one too many; the model takes " +
                std::to_string(channel_count) +
                " channel(s). If every file is a case of its own, add --plain-names";
    if (problem.empty())
      found.cases.push_back(std::move(one));
    else
      found.problems.push_back(name + ": " + problem);
  }
}

void refuse_equal_names(InputCases& found) {
  std::sort(found.cases.begin(), found.cases.end(), [](const InputCase& a, const InputCase& b) {
    return a.name != b.name ? a.name < b.name : a.files < b.files;
  });
  for (size_t i = 1; i < found.cases.size();) {
    const InputCase &kept = found.cases[i - 1], &next = found.cases[i];
    if (kept.name != next.name) {
      ++i;
      continue;
    }
    found.problems.push_back(next.name + ": " + next.files[0].string() + " and " +
                             kept.files[0].string() +
                             " are two cases of one name; rename a file, or its folder");
    found.cases.erase(found.cases.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

InputCases cases_of_file(const fs::path& input, int64_t channel_count, bool plain_names) {
  InputCases found;
  Groups groups;
  if (const bool dicom = is_dicom(input); dicom || image_extension(input).empty()) {
    DicomScan scan;
    if (dicom) scan = scan_dicom(input);
    refuse_without_series(input, scan);
    if (scan.series.empty())
      throw DataError(input,
                      "not an image that Vireo reads (.nii .nii.gz .hdr .nrrd .nhdr .mha .mhd .png "
                      ".jpg .tif .bmp, DICOM)");
    add_series(std::move(scan), found);
    return found;
  }
  const auto channel = plain_names ? std::nullopt : channel_name(image_stem(input));
  if (channel && channel->channel == 0 && channel_count > 1) {
    for (const fs::path& file : image_files(fs::absolute(input).parent_path())) {
      const auto other = channel_name(image_stem(file));
      if (other && other->case_name == channel->case_name)
        groups[other->case_name][other->channel].push_back(file);
    }
  } else if (channel && channel->channel == 0) {
    groups[channel->case_name][0].push_back(input);
  } else {
    found.cases.push_back({image_stem(input), {input}, {}});
  }
  add_channel_groups(groups, channel_count, found);
  return found;
}

// Data sets keep masks beside their pictures.
void leave_out_masks(std::vector<fs::path>& files) {
  source::FilesByName pictures;
  for (const fs::path& file : files)
    if (is_picture(file)) pictures.emplace(image_stem(file), file);
  const source::FilesByName masks = source::take_masks(pictures, source::MaskNames());
  if (masks.empty()) return;
  std::erase_if(files, [&](const fs::path& file) {
    const auto mask = masks.find(image_stem(file));
    return mask != masks.end() && mask->second == file;
  });
  const size_t others = masks.size() - 1;
  log_warning("left out: " + masks.begin()->second.string() +
              (others > 0 ? " and " + std::to_string(others) + " more" : "") +
              ": named as masks of pictures beside them; to segment one, give its path");
}

InputCases cases_of_folder(const fs::path& input, int64_t channel_count, bool plain_names) {
  InputCases found;
  std::vector<fs::path> files = image_files(input);
  DicomScan scan = scan_dicom(input);
  if (files.empty() && scan.series.empty()) {
    refuse_without_series(input, scan);
    std::string hint;
    for (const char* below : {"imagesTs", "imagesTr", "images"})
      if (fs::is_directory(input / below)) hint = std::string("; did you mean its ") + below + "?";
    throw DataError(input, "the folder holds no image files" + hint);
  }
  // Pictures beside scans are logos, screenshots and documents.
  if (!scan.series.empty())
    std::erase_if(files, [](const fs::path& file) {
      if (!is_picture(file)) return false;
      log_warning("left out: " + file.string() +
                  ": a picture beside DICOM images; to segment it, give its path");
      return true;
    });
  leave_out_masks(files);
  Groups groups;
  for (const fs::path& file : files) {
    const auto channel = plain_names ? std::nullopt : channel_name(image_stem(file));
    if (channel)
      groups[channel->case_name][channel->channel].push_back(file);
    else
      found.cases.push_back({image_stem(file), {file}, {}});
  }
  add_channel_groups(groups, channel_count, found);
  add_series(std::move(scan), found);
  return found;
}

}  // namespace

InputCases find_cases(const fs::path& input, int64_t channel_count, bool plain_names) {
  if (!fs::exists(input)) throw DataError(input, "no such file or folder");
  InputCases found = fs::is_directory(input) ? cases_of_folder(input, channel_count, plain_names)
                                             : cases_of_file(input, channel_count, plain_names);
  refuse_equal_names(found);
  return found;
}

Volume read_case(const InputCase& input, const DicomAllowances& allowed) {
  if (input.series) return read_dicom_series(*input.series, allowed, /*compact=*/true);
  Volume whole = read_compact_image(input.files.at(0));
  if (input.files.size() == 1) return whole;
  std::vector<at::Tensor> values{whole.values};
  for (size_t i = 1; i < input.files.size(); ++i) {
    const Volume next = read_compact_image(input.files[i]);
    if (const std::string what = difference(whole.geometry, next.geometry); !what.empty())
      throw DataError(
          input.files[i],
          "its grid is not that of " + input.files[0].filename().string() + ": " + what);
    values.push_back(next.values);
  }
  whole.values = at::cat(values);
  return whole;
}

ImageHeader read_case_header(const InputCase& input, const DicomAllowances& allowed) {
  if (input.series) return read_series_header(*input.series, allowed);
  ImageHeader whole = read_image_header(input.files.at(0));
  if (input.files.size() == 1) return whole;
  // The files' channels are put together, as float32 if one of them is.
  int64_t apart = whole.memory.held, reading = whole.memory.reading;
  for (size_t i = 1; i < input.files.size(); ++i) {
    const ImageHeader next = read_image_header(input.files[i]);
    whole.channels += next.channels;
    apart += next.memory.held;
    reading = std::max(reading, next.memory.reading);
  }
  whole.memory.held = 4 * whole.geometry.voxel_count() * whole.channels;
  whole.memory.reading = apart + reading;
  return whole;
}

}  // namespace vireo
