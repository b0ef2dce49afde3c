#include <algorithm>
#include <map>

#include "datasets/dataset_json.h"
#include "datasets/source.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;

std::string channel_suffix(size_t channel) {
  const std::string digits = std::to_string(channel);
  return "_" + std::string(4 - std::min<size_t>(4, digits.size()), '0') + digits;
}

// "CASE_0001" -> ("CASE", 1); nothing when it does not end in four digits.
std::optional<std::pair<std::string, size_t>> case_and_channel(const std::string& stem) {
  if (stem.size() < 6 || stem[stem.size() - 5] != '_') return std::nullopt;
  size_t channel = 0;
  for (size_t i = stem.size() - 4; i < stem.size(); ++i) {
    if (stem[i] < '0' || stem[i] > '9') return std::nullopt;
    channel = channel * 10 + static_cast<size_t>(stem[i] - '0');
  }
  return std::pair{stem.substr(0, stem.size() - 5), channel};
}

// Cases that dataset.json lists itself: {"CASE": {"images": [...], "label": "..."}}.
void cases_from_json(const DatasetJson& description, DatasetSource& source) {
  const auto& object = description.json()["dataset"];
  if (!object.is_object()) description.fail("dataset", "is not an object of cases");
  for (const auto& [name, content] : object.items()) {
    const std::string field = "dataset." + name;
    SourceCase one{name, {}, {}};
    try {
      const auto listed = [&](const auto& file, const std::string& where) {
        return inside(source.folder,
                      file.template get<std::string>(),
                      description.path(),
                      "field \"" + field + "." + where + "\"");
      };
      for (const auto& image : content.at("images"))
        one.images.push_back(listed(image, "images[" + std::to_string(one.images.size()) + "]"));
      one.labels = listed(content.at("label"), "label");
    } catch (const nlohmann::json::exception&) {
      description.fail(field, "must hold \"images\" (a list of files) and \"label\" (a file)");
    }
    if (one.images.size() != source.channel_names.size() &&
        !(one.images.size() == 1 && is_picture(one.images[0])))
      description.fail(field,
                       "lists " + std::to_string(one.images.size()) + " images for " +
                           std::to_string(source.channel_names.size()) + " channels");
    if (name.empty() || name.find('/') != std::string::npos)
      description.fail(field, "is not a case name");
    for (const auto& file : one.images)
      if (!fs::exists(file)) source.problems.push_back({file, "does not exist", name});
    if (!fs::exists(one.labels)) source.problems.push_back({one.labels, "does not exist", name});
    source.cases.push_back(std::move(one));
  }
}

void cases_from_folders(const std::string& ending, DatasetSource& source) {
  const fs::path images = source.folder / "imagesTr", labels = source.folder / "labelsTr";
  for (const fs::path& folder : {images, labels})
    if (!fs::is_directory(folder)) throw DataError(folder, "does not exist");

  const size_t channels = source.channel_names.size();
  std::map<std::string, std::map<size_t, fs::path>> found;
  for (const fs::path& file : image_files(images)) {
    const std::string name = file.filename().string();
    if (!name.ends_with(ending)) {
      source.problems.push_back(
          {file, "does not end in \"" + ending + "\", dataset.json's file_ending", {}});
      continue;
    }
    const auto parts = case_and_channel(name.substr(0, name.size() - ending.size()));
    if (!parts)
      source.problems.push_back(
          {file, "has no channel number in its name; expected CASE_0000" + ending, {}});
    else if (parts->second >= channels)
      source.problems.push_back({file,
                                 "is channel " + std::to_string(parts->second) +
                                     ", but dataset.json's channel_names has " +
                                     std::to_string(channels),
                                 parts->first});
    else
      found[parts->first][parts->second] = file;
  }
  for (const auto& [name, files] : found) {
    SourceCase one{name, {}, labels / (name + ending)};
    bool complete = true;
    // A colour picture is one file, CASE_0000.png, whose channels are all of them.
    const bool one_picture = is_picture("case" + ending) && files.size() == 1 && files.contains(0);
    for (size_t c = 0; c < (one_picture ? 1 : channels); ++c) {
      one.images.push_back(images / (name + channel_suffix(c) + ending));
      if (files.contains(c)) continue;
      source.problems.push_back(
          {one.images.back(), "is missing (channel " + source.channel_names[c] + ")", name});
      complete = false;
    }
    if (!fs::exists(one.labels)) {
      source.problems.push_back({one.labels, "is missing; the case has images", name});
      complete = false;
    }
    if (complete) source.cases.push_back(std::move(one));
  }
  for (const fs::path& file : image_files(labels)) {
    const std::string name = file.filename().string();
    const std::string case_name = image_stem(file);
    if (name.ends_with(ending) && !found.contains(case_name))
      source.problems.push_back({file, "has no images in imagesTr", case_name});
  }
}

}  // namespace

void read_nnunet(const DataConfig& config, DatasetSource& source) {
  source.format = "nnunet";
  const DatasetJson description(source.folder / "dataset.json");
  source.descriptions.push_back(description.path());
  if (!config.label_names.empty())
    throw DataError(description.path(), "names the classes; remove [data] labels");
  source.name = description.text("name", "");
  source.channel_names =
      description.numbered_names(description.has("channel_names") ? "channel_names" : "modality");
  description.read_labels(source);
  const std::string ending = description.text("file_ending", ".nii.gz");
  if (image_extension("case" + ending) != ending)
    description.fail("file_ending", "is \"" + ending + "\", which is not read");

  if (description.has("dataset"))
    cases_from_json(description, source);
  else
    cases_from_folders(ending, source);

  if (!description.has("numTraining")) return;
  const auto& number = description.json()["numTraining"];
  if (!number.is_number_integer()) description.fail("numTraining", "is not a whole number");
  if (source.problems.empty() && number.get<int64_t>() != static_cast<int64_t>(source.cases.size()))
    source.problems.push_back({description.path(),
                               "field \"numTraining\" is " + number.dump() + ", but " +
                                   std::to_string(source.cases.size()) + " cases were found",
                               {}});
}

}  // namespace vireo::source
