#include <algorithm>
#include <map>
#include <sstream>

#include <ATen/ATen.h>

#include "apps/engine/description.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"
#include "vision/core/safetensors.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/dicom/dicom_scan.h"
#include "vision/io/image_file.h"
#include "vision/io/nifti_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// Metadata is text; where it is JSON, its content is shown.
Description metadata_value(const std::string& text) {
  if (!text.empty() && (text[0] == '{' || text[0] == '[')) {
    try {
      return parse_ordered_json(text, "");
    } catch (const DataError&) {
    }
  }
  return text;
}

std::string shape_text(at::IntArrayRef sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? "" : " x ") + std::to_string(size);
  return text.empty() ? "scalar" : text;
}

std::string form_code(int code) {
  const char* names[] = {"unknown", "scanner", "aligned", "Talairach", "MNI 152"};
  const std::string name = code >= 0 && code < 5 ? names[code] : "other";
  return std::to_string(code) + " (" + name + ")";
}

std::string nifti_type(int datatype) {
  const std::map<int, const char*> names = {{2, "uint8"},
                                            {4, "int16"},
                                            {8, "int32"},
                                            {16, "float32"},
                                            {64, "float64"},
                                            {128, "rgb24"},
                                            {256, "int8"},
                                            {512, "uint16"},
                                            {768, "uint32"},
                                            {1024, "int64"},
                                            {1280, "uint64"},
                                            {2304, "rgba32"}};
  const auto at = names.find(datatype);
  return at == names.end() ? "type " + std::to_string(datatype) : at->second;
}

int64_t count_images(const fs::path& folder, std::map<std::string, int64_t>* kinds = nullptr) {
  int64_t count = 0;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string extension = image_extension(entry.path());
    if (extension.empty() || entry.path().filename().string().starts_with(".")) continue;
    ++count;
    if (kinds) ++(*kinds)[extension];
  }
  return count;
}

int64_t count_lines(const fs::path& path) {
  std::istringstream in(read_text(path));
  int64_t count = 0;
  for (std::string line; std::getline(in, line);)
    if (line.find_first_not_of(" \t\r") != std::string::npos && line[0] != '#') ++count;
  return count;
}

Description read_json(const fs::path& path) {
  return parse_ordered_json(read_text(path), path);
}

void add_field(Description& to, const Description& from, const char* name) {
  if (from.contains(name)) to[name] = from[name];
}

// A folder with dataset.json: nnU-Net's or the Decathlon's.
Description describe_dataset(const fs::path& path) {
  const Description json = read_json(path / "dataset.json");
  Description result;
  const bool decathlon = json.contains("training") && json.contains("modality");
  result["kind"] =
      decathlon ? "data set, Medical Segmentation Decathlon layout" : "data set, nnU-Net layout";
  add_field(result, json, "name");
  add_field(result, json, "modality");
  add_field(result, json, "channel_names");
  add_field(result, json, "labels");
  add_field(result, json, "file_ending");
  for (const char* part : {"imagesTr", "labelsTr", "imagesTs", "labelsTs"})
    if (fs::is_directory(path / part)) result[part] = count_images(path / part);
  return result;
}

void add_lists(const fs::path& path, Description& result) {
  for (const char* list : {"train.txt", "val.txt", "test.txt"})
    if (fs::is_regular_file(path / list)) result[list] = count_lines(path / list);
  if (fs::is_regular_file(path / "splits_final.json")) {
    const Description splits = read_json(path / "splits_final.json");
    result["folds in splits_final.json"] = splits.size();
  }
}

}  // namespace

Description describe_safetensors(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  Description metadata = Description::object();
  for (const auto& [key, value] : file.metadata()) metadata[key] = metadata_value(value);
  const bool checkpoint = metadata.contains("format") && metadata["format"] == "vireo-checkpoint";
  // A long history is told by its last entry; metrics.jsonl holds the whole.
  if (checkpoint && metadata.contains("training_state")) {
    Description& state = metadata["training_state"];
    if (state.is_object() && state.contains("history") && !state["history"].empty()) {
      const Description last = state["history"].back();
      state["history"] = {{"epochs", state["history"].size()}, {"last", last}};
    }
  }
  std::map<std::string, int64_t> types;
  int64_t numbers = 0;
  Description tensors = Description::array();
  for (const std::string& name : file.names()) {
    const at::Tensor tensor = file.tensor(name);
    numbers += tensor.numel();
    ++types[at::toString(tensor.scalar_type())];
    tensors.push_back({{"name", name},
                       {"type", at::toString(tensor.scalar_type())},
                       {"shape", shape_text(tensor.sizes())}});
  }
  return {{"file", path.filename().string()},
          {"kind", checkpoint ? "checkpoint" : "safetensors"},
          {"bytes", static_cast<int64_t>(fs::file_size(path))},
          {"metadata", metadata},
          {"tensor count", tensors.size()},
          {"numbers", numbers},
          {"types", types},
          {"tensors", tensors}};
}

Description describe_image(const fs::path& path) {
  const Volume image = read_image(path);
  const Geometry& geometry = image.geometry;
  const auto& size = geometry.size_zyx;
  const auto& spacing = geometry.spacing_mm_zyx;
  Description direction = Description::array();
  for (const auto& row : geometry.direction_lps_from_zyx)
    direction.push_back({row[2], row[1], row[0]});
  Description result = {{"file", path.filename().string()},
                        {"kind", is_picture(path) ? "picture" : "volume"},
                        {"channels", image.values.size(0)},
                        {"size_xyz", {size[2], size[1], size[0]}},
                        {"spacing_mm_xyz", {spacing[2], spacing[1], spacing[0]}},
                        {"extent_mm_xyz",
                         {static_cast<double>(size[2]) * spacing[2],
                          static_cast<double>(size[1]) * spacing[1],
                          static_cast<double>(size[0]) * spacing[0]}},
                        {"orientation_xyz", geometry.orientation_xyz()},
                        {"origin_lps_mm", geometry.origin_lps_mm},
                        {"direction_lps_from_xyz", direction},
                        {"coarsest axis", std::string(1, "zyx"[geometry.coarsest_axis()])}};
  if (is_nifti(path)) {
    const io::NiftiHeader header = io::read_nifti_header(path);
    result["stored as"] = nifti_type(header.datatype);
    result["header"] = {{"version", header.version},
                        {"sform_code", form_code(header.sform_code)},
                        {"qform_code", form_code(header.qform_code)},
                        {"scl_slope", header.scl_slope},
                        {"scl_inter", header.scl_inter},
                        {"xyzt_units", header.xyzt_units}};
  }
  const at::Tensor finite = at::isfinite(image.values);
  const int64_t broken = image.values.numel() - finite.sum().item<int64_t>();
  result["not finite"] = broken;
  const at::Tensor values = broken > 0 ? image.values.masked_select(finite) : image.values;
  if (values.numel() > 0) {
    result["smallest"] = values.min().item<double>();
    result["largest"] = values.max().item<double>();
    result["mean"] = values.mean().item<double>();
  }
  // Few distinct whole numbers are a label map, most likely: their voxels are counted.
  if (broken == 0 && image.values.size(0) == 1 && at::equal(values, values.round()) &&
      result["smallest"].get<double>() >= 0 && result["largest"].get<double>() < 65536) {
    const at::Tensor counts = at::bincount(values.flatten().to(at::kInt));
    const at::Tensor present = counts.nonzero().flatten();
    if (present.numel() <= 64) {
      Description voxels = Description::object();
      for (int64_t i = 0; i < present.numel(); ++i) {
        const auto value = present[i].item<int64_t>();
        voxels[std::to_string(value)] = counts[value].item<int64_t>();
      }
      result["voxels per value"] = voxels;
    }
  }
  return result;
}

Description describe_dicom(const fs::path& path) {
  const DicomScan scan = scan_dicom(path);
  Description result = {{fs::is_directory(path) ? "folder" : "file", path.string()},
                        {"kind", "DICOM"},
                        {"series", scan.series.size()}};
  for (const DicomSeries& series : scan.series) {
    const DicomFile& file = series.first_file();
    const auto& size = series.geometry.size_zyx;
    const auto& spacing = series.geometry.spacing_mm_zyx;
    Description one = {{"modality", file.modality},
                       {"description", file.series_description},
                       {"image type", file.image_type},
                       {"files", series.files.size()},
                       {"size_xyz", {size[2], size[1], size[0]}},
                       {"spacing_mm_xyz", {spacing[2], spacing[1], spacing[0]}},
                       {"orientation_xyz", series.geometry.orientation_xyz()},
                       {"origin_lps_mm", series.geometry.origin_lps_mm},
                       {"channels", file.channels()},
                       {"stored as",
                        std::to_string(file.bits_stored) + " bits, " + file.photometric +
                            ", transfer syntax " + file.transfer_syntax_uid}};
    const std::string& kind = file.frames[series.slices[0].frame].kind;
    if (!kind.empty()) one["told apart by"] = kind;
    for (const DicomSeries::Problem& problem : series.problems)
      one["problems"].push_back(problem.text);
    // A folder may be called as a field is.
    std::string name = series.name;
    while (result.contains(name)) name = "series " + name;
    result[name] = one;
  }
  if (!scan.left_out.empty()) result["left out"] = scan.left_out;
  if (scan.series.empty() && scan.left_out.empty()) throw DataError(path, "holds no DICOM images");
  return result;
}

Description describe_folder(const fs::path& path) {
  Description result;
  const auto has = [&](const char* name) { return fs::exists(path / name); };
  if (has("cache.json")) {
    const Description cache = read_json(path / "cache.json");
    result["kind"] = "prepared cache";
    if (cache.contains("cases")) result["cases"] = cache["cases"].size();
    add_field(result, cache, "preparation");
  } else if (has("dataset.json")) {
    result = describe_dataset(path);
  } else if (has("checkpoint_latest.safetensors") || has("checkpoint_best.safetensors")) {
    result["kind"] = "training run";
    for (const char* name : {"checkpoint_best.safetensors", "checkpoint_latest.safetensors"})
      if (has(name)) result[name] = static_cast<int64_t>(fs::file_size(path / name));
    if (has("metrics.jsonl"))
      result["epochs in metrics.jsonl"] = count_lines(path / "metrics.jsonl");
    if (has("validation/summary.json"))
      add_field(result, read_json(path / "validation/summary.json"), "foreground_mean");
  } else if (has("manifest.json") && has("statistics.json")) {
    const Description manifest = read_json(path / "manifest.json");
    result["kind"] = "predictions";
    for (const char* name : {"version", "written", "device", "models", "problems"})
      add_field(result, manifest, name);
    if (manifest.contains("cases")) result["cases"] = manifest["cases"].size();
  } else if (fs::is_directory(path / "images") &&
             (fs::is_directory(path / "masks") || fs::is_directory(path / "labels"))) {
    result["kind"] = "data set, image and label folders";
    for (const char* part : {"images", "masks", "labels"})
      if (fs::is_directory(path / part)) result[part] = count_images(path / part);
  } else {
    std::map<std::string, int64_t> kinds;
    count_images(path, &kinds);
    const bool dicom = !dicom_files(path).empty();
    if (dicom) result = describe_dicom(path);
    if (kinds.empty() && !dicom)
      throw DataError(path,
                      "is no folder that Vireo knows: no dataset.json, cache.json, checkpoint, "
                      "images or DICOM in it");
    if (!dicom) result["kind"] = "images";
    for (const auto& [extension, count] : kinds) result[extension] = count;
  }
  add_lists(path, result);
  Description named = {{"folder", path.string()}};
  named.update(result);
  return named;
}

}  // namespace vireo
