#include <set>

#include "datasets/dataset_json.h"
#include "datasets/source.h"
#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo::source {
namespace {

namespace fs = std::filesystem;

// nnU-Net's first version has the Decathlon's description, but one file per channel.
std::string first_channel_hint(const fs::path& file) {
  const fs::path first = file.parent_path() / (image_stem(file) + "_0000" + image_extension(file));
  if (!fs::exists(first)) return "";
  return "; " + first.filename().string() +
         " does: nnU-Net's first version names its files so. Turn dataset.json into the second's: "
         "\"channel_names\" for \"modality\", \"labels\" as {\"background\": 0, ...}, "
         "\"file_ending\", without \"training\" (nnUNetv2_convert_old_nnUNet_dataset does it)";
}

void cases_from_json(const DatasetJson& description, DatasetSource& source) {
  const auto& list = description.json()["training"];
  if (!list.is_array()) description.fail("training", "is not a list of cases");
  std::set<std::string> seen;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string field = "training[" + std::to_string(i) + "]";
    SourceCase one;
    try {
      const auto listed = [&](const char* name) {
        return inside(source.folder,
                      list[i].at(name).get<std::string>(),
                      description.path(),
                      "field \"" + field + "." + name + "\"");
      };
      one.images = {listed("image")};
      one.labels = listed("label");
    } catch (const nlohmann::json::exception&) {
      description.fail(field, "must hold \"image\" and \"label\", both files");
    }
    one.name = image_stem(one.images[0]);
    if (!seen.insert(one.name).second) description.fail(field, "lists " + one.name + " again");
    bool complete = true;
    for (const fs::path& file : {one.images[0], one.labels}) {
      if (fs::exists(file)) continue;
      source.problems.push_back(
          {file,
           "does not exist, but dataset.json lists it (" + field + ")" + first_channel_hint(file),
           one.name});
      complete = false;
    }
    if (complete) source.cases.push_back(std::move(one));
  }
}

void cases_from_folders(DatasetSource& source) {
  const fs::path images = source.folder / "imagesTr", labels = source.folder / "labelsTr";
  for (const fs::path& folder : {images, labels})
    if (!fs::is_directory(folder)) throw DataError(folder, "does not exist");
  std::set<std::string> seen;
  for (const fs::path& file : image_files(images)) {
    const fs::path label = labels / file.filename();
    seen.insert(file.filename().string());
    if (fs::exists(label))
      source.cases.push_back({image_stem(file), {file}, label});
    else
      source.problems.push_back({label, "is missing; the case has an image", image_stem(file)});
  }
  for (const fs::path& file : image_files(labels))
    if (!seen.contains(file.filename().string()))
      source.problems.push_back({file, "has no image in imagesTr", image_stem(file)});
}

}  // namespace

void read_msd(const DataConfig& config, DatasetSource& source) {
  source.format = "msd";
  if (!fs::exists(source.folder / "dataset.json")) {
    labels_from_config(config, source);
    cases_from_folders(source);
    return;
  }
  const DatasetJson description(source.folder / "dataset.json");
  source.descriptions.push_back(description.path());
  if (!config.label_names.empty())
    throw DataError(description.path(), "names the classes; remove [data] labels");
  source.name = description.text("name", "");
  if (description.has("modality")) source.channel_names = description.numbered_names("modality");
  description.read_labels(source);
  if (description.has("training"))
    cases_from_json(description, source);
  else
    cases_from_folders(source);
}

}  // namespace vireo::source
