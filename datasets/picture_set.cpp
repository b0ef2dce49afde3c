#include "datasets/picture_set.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "datasets/splits.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFormat = "vireo.picture_cache";
constexpr int64_t kVersion = 1;
constexpr int64_t kMostFolds = 1000;  // as data.folds

fs::path manifest_of(const fs::path& folder) {
  return folder / "cache.json";
}

fs::path index_of(const fs::path& folder) {
  return folder / "items.safetensors";
}

[[noreturn]] void broken_pictures(const fs::path& path, const std::string& what) {
  throw DataError(path, what + "; run `vireo prepare` again");
}

template <typename Get>
at::Tensor column(size_t count, const Get& get) {
  at::Tensor values = at::empty({static_cast<int64_t>(count)}, at::kLong);
  auto* data = values.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < count; ++i) data[i] = static_cast<int64_t>(get(i));
  return values;
}

// A column of the index: int64, one per item.
const int64_t* read_column(const SafetensorsFile& file, const std::string& name, int64_t count) {
  if (!file.contains(name)) broken_pictures(file.path(), "has no \"" + name + "\"");
  const at::Tensor values = file.tensor(name);
  if (values.scalar_type() != at::kLong || values.dim() != 1 || values.size(0) != count)
    broken_pictures(file.path(), "\"" + name + "\" is not one number per picture");
  return values.const_data_ptr<int64_t>();
}

std::vector<std::string> read_names(const SafetensorsFile& file) {
  if (!file.contains("names")) broken_pictures(file.path(), "has no \"names\"");
  const at::Tensor bytes = file.tensor("names");
  if (bytes.scalar_type() != at::kByte) broken_pictures(file.path(), "\"names\" is not text");
  std::vector<std::string> names(1);
  const uint8_t* text = bytes.const_data_ptr<uint8_t>();
  for (int64_t i = 0; i < bytes.numel(); ++i)
    if (text[i] == '\n')
      names.emplace_back();
    else
      names.back() += static_cast<char>(text[i]);
  names.pop_back();
  return names;
}

// The manifest, or null where there is no sound one.
json manifest_in(const fs::path& folder) {
  try {
    return parse_json(read_text(manifest_of(folder)), folder);
  } catch (const DataError&) {
    return nullptr;
  }
}

json read_picture_manifest(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(manifest_of(folder), ignored))
    throw DataError(folder,
                    "is not a prepared cache: it has no cache.json, which `vireo prepare` writes "
                    "last. Run it (again)");
  const json manifest = manifest_in(folder);
  if (json_text(manifest, "format") != kFormat)
    broken_pictures(manifest_of(folder), "is not the manifest of a cache of pictures with classes");
  if (const auto version = manifest.find("version");
      version == manifest.end() || *version != kVersion)
    broken_pictures(manifest_of(folder), "has another format version than this program's 1");
  return manifest;
}

// What a decoded cache's `picture` looks at.
struct Shards {
  std::vector<at::Tensor> pixels;
  std::vector<int64_t> shard, offset, height, width, depth;
  int64_t channels;
};

}  // namespace

int64_t PictureSet::fold_count() const {
  int64_t folds = 1;
  for (const PictureItem& item : items) folds = std::max(folds, item.fold + 1);
  return folds;
}

std::vector<int64_t> PictureSet::training_items(int64_t fold) const {
  std::vector<int64_t> list;
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].part == Part::kTrain && items[i].fold != fold)
      list.push_back(static_cast<int64_t>(i));
  return list;
}

std::vector<int64_t> PictureSet::validation_items(int64_t fold) const {
  std::vector<int64_t> list;
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].part == Part::kVal || (items[i].part == Part::kTrain && items[i].fold == fold))
      list.push_back(static_cast<int64_t>(i));
  return list;
}

std::vector<int64_t> PictureSet::test_items() const {
  std::vector<int64_t> list;
  for (size_t i = 0; i < items.size(); ++i)
    if (items[i].part == Part::kTest) list.push_back(static_cast<int64_t>(i));
  return list;
}

void split_by_patient(PictureSet& set, int64_t folds, uint32_t seed) {
  const auto key = [](const PictureItem& item) {
    return item.patient >= 0 ? "patient " + std::to_string(item.patient) : item.name;
  };
  std::set<std::string> names;
  for (const PictureItem& item : set.items)
    if (item.part == Part::kTrain) names.insert(key(item));
  if (names.size() < 2) return;
  const std::vector<Fold> made = make_folds({names.begin(), names.end()}, folds, seed);
  std::map<std::string, int64_t> fold_of;
  for (size_t f = 0; f < made.size(); ++f)
    for (const std::string& name : made[f].val) fold_of[name] = static_cast<int64_t>(f);
  for (PictureItem& item : set.items)
    if (item.part == Part::kTrain) item.fold = fold_of.at(key(item));
}

fs::path picture_shard(const fs::path& folder, int64_t number) {
  char name[40];
  std::snprintf(name, sizeof name, "pictures_%04ld.safetensors", static_cast<long>(number));
  return folder / name;
}

bool is_picture_cache(const fs::path& folder, const std::string& inputs) {
  const json manifest = manifest_in(folder);
  return json_text(manifest, "format") == kFormat &&
         (inputs.empty() || json_text(manifest, "inputs") == inputs);
}

at::Tensor with_channels(const at::Tensor& picture, int64_t channels) {
  if (picture.size(2) == channels) return picture;
  if (channels == 3) return picture.expand({-1, -1, 3}).contiguous();
  const at::Tensor rgb = picture.to(at::kFloat);
  return (rgb.select(2, 0) * 0.299 + rgb.select(2, 1) * 0.587 + rgb.select(2, 2) * 0.114)
      .round()
      .clamp(0, 255)
      .to(at::kByte)
      .unsqueeze(2)
      .contiguous();
}

void write_picture_cache(const fs::path& folder,
                         const PictureSet& set,
                         const PictureStorage& storage,
                         const std::string& inputs) {
  const size_t count = set.items.size();
  std::string names;
  for (const PictureItem& item : set.items) {
    if (item.name.find('\n') != std::string::npos)
      throw DataError(folder, "a picture's name holds a line break; rename the file");
    names += item.name + "\n";
  }
  at::Tensor text = at::empty({static_cast<int64_t>(names.size())}, at::kByte);
  std::copy(names.begin(), names.end(), text.mutable_data_ptr<uint8_t>());
  std::map<std::string, at::Tensor> index{
      {"names", text},
      {"label", column(count, [&](size_t i) { return set.items[i].label; })},
      {"patient", column(count, [&](size_t i) { return set.items[i].patient; })},
      {"part", column(count, [&](size_t i) { return static_cast<int64_t>(set.items[i].part); })},
      {"fold", column(count, [&](size_t i) { return set.items[i].fold; })}};
  if (set.multi_label) {
    at::Tensor labels = at::empty({static_cast<int64_t>(count), set.class_count()}, at::kByte);
    std::copy(set.labels.begin(), set.labels.end(), labels.mutable_data_ptr<uint8_t>());
    index["labels"] = labels;
  }
  if (storage.decoded) {
    index["shard"] = column(count, [&](size_t i) { return storage.shards[i]; });
    index["offset"] = column(count, [&](size_t i) { return storage.offsets[i]; });
    index["height"] = column(count, [&](size_t i) { return storage.sizes_hwc[i][0]; });
    index["width"] = column(count, [&](size_t i) { return storage.sizes_hwc[i][1]; });
    index["depth"] = column(count, [&](size_t i) { return storage.sizes_hwc[i][2]; });
  } else {
    index["slice"] = column(count, [&](size_t i) { return storage.slices[i]; });
  }
  write_safetensors(index_of(folder), index);

  int64_t shards = 0;
  for (const int64_t shard : storage.shards) shards = std::max(shards, shard + 1);
  const json manifest = {{"format", kFormat},
                         {"version", kVersion},
                         {"inputs", inputs},
                         {"name", set.name},
                         {"classes", set.class_names},
                         {"multi_label", set.multi_label},
                         {"channels", set.channels},
                         {"mean", set.mean},
                         {"sd", set.sd},
                         {"decoded", storage.decoded},
                         {"folder", storage.folder.string()},
                         {"depth", storage.depth},
                         {"shards", shards}};
  write_text_atomically(manifest_of(folder), manifest.dump(1) + "\n");
}

PictureSet open_picture_cache(const fs::path& folder, PictureDecoder decode) {
  const json manifest = read_picture_manifest(folder);
  const SafetensorsFile index = SafetensorsFile::open(index_of(folder));
  PictureSet set;
  bool decoded = true;
  int64_t shards = 0;
  std::string files, depth;
  try {
    set.name = manifest.at("name").get<std::string>();
    set.class_names = manifest.at("classes").get<std::vector<std::string>>();
    set.multi_label = manifest.at("multi_label").get<bool>();
    set.channels = whole_numbers(manifest.at("channels")).get<int64_t>();
    set.mean = manifest.at("mean").get<std::vector<double>>();
    set.sd = manifest.at("sd").get<std::vector<double>>();
    decoded = manifest.at("decoded").get<bool>();
    shards = whole_numbers(manifest.at("shards")).get<int64_t>();
    files = manifest.at("folder").get<std::string>();
    depth = manifest.at("depth").get<std::string>();
  } catch (const json::exception&) {
    broken_pictures(manifest_of(folder), "lacks a part of its description");
  }
  const auto channels = static_cast<size_t>(set.channels);
  if ((set.channels != 1 && set.channels != 3) || set.mean.size() != channels ||
      set.sd.size() != channels || set.class_names.empty() ||
      !std::all_of(set.sd.begin(), set.sd.end(), [](double sd) { return sd > 0; }))
    broken_pictures(manifest_of(folder), "describes impossible pictures or no class");

  const std::vector<std::string> names = read_names(index);
  const auto count = static_cast<int64_t>(names.size());
  const int64_t *label = read_column(index, "label", count),
                *patient = read_column(index, "patient", count),
                *part = read_column(index, "part", count),
                *fold = read_column(index, "fold", count);
  for (int64_t i = 0; i < count; ++i) {
    if (part[i] < 0 || part[i] > 2 || label[i] < 0 || label[i] >= set.class_count() ||
        fold[i] < -1 || fold[i] > kMostFolds)
      broken_pictures(index.path(),
                      "has an impossible class, part or fold for " + names[static_cast<size_t>(i)]);
    const fs::path name = fs::path(names[static_cast<size_t>(i)]).lexically_normal();
    if (name.empty() || name.is_absolute() || *name.begin() == "..")
      broken_pictures(index.path(), "names a picture outside its folder: " + name.string());
    set.items.push_back(
        {names[static_cast<size_t>(i)], label[i], patient[i], static_cast<Part>(part[i]), fold[i]});
  }
  if (set.multi_label) {
    if (!index.contains("labels")) broken_pictures(index.path(), "has no \"labels\"");
    const at::Tensor labels = index.tensor("labels");
    if (labels.scalar_type() != at::kByte || labels.numel() != count * set.class_count())
      broken_pictures(index.path(), "\"labels\" is not a table of pictures and classes");
    const uint8_t* values = labels.const_data_ptr<uint8_t>();
    set.labels.assign(values, values + labels.numel());
  }

  if (!decoded) {
    const int64_t* slice = read_column(index, "slice", count);
    std::vector<int64_t> slices(slice, slice + count);
    if (!decode)
      throw DataError(folder,
                      "keeps its pictures as files, which this program, built without image files, "
                      "cannot decode. Prepare it with data.store = \"decoded\" elsewhere");
    set.picture = [folder = fs::path(files),
                   slices = std::move(slices),
                   names,
                   decode = std::move(decode),
                   depth,
                   channels = set.channels](int64_t i) {
      const auto at = static_cast<size_t>(i);
      return with_channels(decode(folder / names[at], slices[at], depth), channels);
    };
    return set;
  }
  auto held = std::make_shared<Shards>();
  held->channels = set.channels;
  for (int64_t s = 0; s < shards; ++s) {
    const SafetensorsFile file = SafetensorsFile::open(picture_shard(folder, s));
    if (!file.contains("pixels") || file.tensor("pixels").scalar_type() != at::kByte ||
        file.tensor("pixels").dim() != 1)
      broken_pictures(file.path(), "holds no pixels");
    held->pixels.push_back(file.tensor("pixels"));
  }
  for (const auto& [name, into] : {std::pair{"shard", &held->shard},
                                   {"offset", &held->offset},
                                   {"height", &held->height},
                                   {"width", &held->width},
                                   {"depth", &held->depth}}) {
    const int64_t* values = read_column(index, name, count);
    into->assign(values, values + count);
  }
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const int64_t h = held->height[i], w = held->width[i], d = held->depth[i], s = held->shard[i];
    // Sides beyond 2^20 cannot overflow the product and are not pictures either.
    if (s < 0 || s >= shards || h < 1 || w < 1 || h > 1 << 20 || w > 1 << 20 ||
        (d != 1 && d != 3) || held->offset[i] < 0 ||
        held->offset[i] > held->pixels[static_cast<size_t>(s)].numel() - h * w * d)
      broken_pictures(index.path(), "places " + names[i] + " outside the pixels there are");
  }
  set.picture = [held](int64_t item) {
    const auto i = static_cast<size_t>(item);
    const int64_t h = held->height[i], w = held->width[i], d = held->depth[i];
    return with_channels(held->pixels[static_cast<size_t>(held->shard[i])]
                             .narrow(0, held->offset[i], h * w * d)
                             .view({h, w, d}),
                         held->channels);
  };
  return set;
}

}  // namespace vireo
