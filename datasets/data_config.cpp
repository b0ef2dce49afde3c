#include "datasets/data_config.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include <nlohmann/json.hpp>

namespace vireo {
namespace {

using Kind = ChannelNormalization::Kind;

void read_labels(ConfigTable& table, DataConfig& config) {
  config.label_names = table.texts("labels", {});
  config.label_values = table.integers("label_values", {});
  const auto colors = table.texts("label_colors", {});
  const size_t count = config.label_names.size();
  if (count == 1) table.fail("labels", "names one class; background and at least one more exist");
  if (std::set<std::string>(config.label_names.begin(), config.label_names.end()).size() != count)
    table.fail("labels", "names a class twice");
  if (!config.label_values.empty()) {
    if (config.label_values.size() != count)
      table.fail("label_values",
                 "has " + std::to_string(config.label_values.size()) + " values for " +
                     std::to_string(count) + " labels");
    const std::set<int64_t> distinct(config.label_values.begin(), config.label_values.end());
    if (distinct.size() != count) table.fail("label_values", "holds a value twice");
  }
  for (const std::string& color : colors) {
    unsigned rgb[3];
    char rest = 0;
    if (color.size() != 7 ||
        std::sscanf(color.c_str(), "#%2x%2x%2x%c", &rgb[0], &rgb[1], &rgb[2], &rest) != 3)
      table.fail("label_colors", "\"" + color + "\" is no colour; write them as \"#rrggbb\"");
    config.label_colors.push_back(
        {static_cast<uint8_t>(rgb[0]), static_cast<uint8_t>(rgb[1]), static_cast<uint8_t>(rgb[2])});
  }
  if (table.has("ignore_value")) config.ignore_value = table.integer("ignore_value");
  config.allow_empty_labels = table.boolean("allow_empty_labels", false);
}

void read_masks(ConfigTable& table, DataConfig& config) {
  // In the order of Masks.
  const std::vector<std::string> kinds = {"auto", "values", "binary", "instances", "colors"};
  const std::string kind = table.choice("masks", "auto", kinds);
  config.masks =
      static_cast<DataConfig::Masks>(std::find(kinds.begin(), kinds.end(), kind) - kinds.begin());
  const size_t classes = config.label_names.size();
  if ((kind == "binary" || kind == "instances") && classes != 0 && classes != 2)
    table.fail("masks",
               "is \"" + kind + "\", which tells foreground from background; labels names " +
                   std::to_string(classes) + " classes");
  if (kind == "colors" && (classes == 0 || config.label_colors.size() != classes))
    table.fail("masks",
               "is \"colors\", which needs labels and for each of them its colour in label_colors");
  if (kind == "colors" &&
      std::set(config.label_colors.begin(), config.label_colors.end()).size() != classes)
    table.fail("label_colors", "gives two classes the same colour");
  config.mask_name = table.text("mask_name", "");
  if (!config.mask_name.empty() && config.mask_name.find("{}") == std::string::npos)
    table.fail("mask_name", "has no \"{}\", which stands for the picture's name");
  config.image_folder = table.path("image_folder", "");
  config.mask_folder = table.path("mask_folder", "");
  config.allow_links = table.boolean("allow_links", false);
}

void read_channels(ConfigTable& table, DataConfig& config) {
  config.channel_names = table.texts("channels", {});
  for (const std::string& kind : table.texts("normalization", {"auto"})) {
    if (kind == "auto")
      config.normalization.push_back(std::nullopt);
    else if (kind == "ct")
      config.normalization.push_back(Kind::kCt);
    else if (kind == "zscore")
      config.normalization.push_back(Kind::kZScore);
    else if (kind == "rgb")
      config.normalization.push_back(Kind::kRgb);
    else if (kind == "none")
      config.normalization.push_back(Kind::kNone);
    else
      table.fail("normalization", "\"" + kind + "\" is none of: auto, ct, zscore, rgb, none");
  }
  if (config.normalization.empty()) table.fail("normalization", "is empty; [\"auto\"] chooses");
}

void read_grid(ConfigTable& table, DataConfig& config) {
  const std::vector<std::string> axes = {"z", "y", "x"};
  const std::string axis = table.choice("slice_axis", "auto", {"auto", "z", "y", "x"});
  config.slice_axis_by_spacing = axis == "auto";
  if (axis != "auto")
    config.slice_axis_zyx =
        static_cast<int>(std::find(axes.begin(), axes.end(), axis) - axes.begin());

  if (table.is_list("spacing_mm")) {
    config.spacing = DataConfig::Spacing::kFixed;
    const auto values = table.numbers("spacing_mm", {}, 3);
    for (size_t i = 0; i < 3; ++i) {
      if (!(values[i] >= 0 && values[i] <= 1000))
        table.fail("spacing_mm", "must lie between 0 (as stored) and 1000 mm");
      config.spacing_mm[i] = values[i];
    }
  } else if (table.choice("spacing_mm", "none", {"none", "median"}) == "median") {
    config.spacing = DataConfig::Spacing::kMedian;
  }
  if (const auto size = table.integers("slice_size", {}); !size.empty()) {
    if (size.size() != 2 || *std::min_element(size.begin(), size.end()) < 1 ||
        *std::max_element(size.begin(), size.end()) > 16384)
      table.fail("slice_size", "must be height and width, from 1 to 16384, for example [256, 256]");
    if (config.spacing != DataConfig::Spacing::kStored)
      table.fail("slice_size", "and spacing_mm both say how large slices become; keep one");
    config.slice_size = {size[0], size[1]};
  }
}

}  // namespace

const std::vector<std::string>& DataConfig::format_names() {
  static const std::vector<std::string> names = {
      "auto", "nnunet", "msd", "pairs", "arrays", "acdc", "isic", "kvasir", "cvc", "busi", "glas"};
  return names;
}

DataConfig DataConfig::from_table(ConfigTable table, const std::filesystem::path& run_folder) {
  DataConfig config;
  config.folder = table.path("folder");
  const std::vector<std::string>& formats = format_names();
  const std::string format = table.choice("format", "auto", formats);
  config.format =
      static_cast<Format>(std::find(formats.begin(), formats.end(), format) - formats.begin());
  config.name = table.text("name", "");
  read_labels(table, config);
  read_masks(table, config);
  read_channels(table, config);
  read_grid(table, config);
  config.folds = table.integer("folds", 5, 2, 1000);
  config.split_seed = table.integer("split_seed", 12345, 0, 0xffffffff);
  config.train_list = table.path("train_list", "");
  config.val_list = table.path("val_list", "");
  if (config.train_list.empty() && !config.val_list.empty())
    table.fail("val_list", "is given without train_list");
  config.cache = table.path("cache", (run_folder / "prepared").string());
  config.workers = table.integer("workers", 0, 0, 1024);
  table.finish();
  return config;
}

std::string DataConfig::recipe() const {
  nlohmann::json kinds = nlohmann::json::array();
  for (const auto& kind : normalization) kinds.push_back(kind ? static_cast<int>(*kind) : -1);
  nlohmann::json json = {{"format", static_cast<int>(format)},
                         {"name", name},
                         {"labels", label_names},
                         {"label_values", label_values},
                         {"label_colors", label_colors},
                         {"allow_empty_labels", allow_empty_labels},
                         {"channels", channel_names},
                         {"normalization", kinds},
                         {"slice_axis", slice_axis_by_spacing ? -1 : slice_axis_zyx},
                         {"spacing", static_cast<int>(spacing)},
                         {"spacing_mm", spacing_mm},
                         {"folds", folds},
                         {"split_seed", split_seed},
                         {"train_list", train_list.string()},
                         {"val_list", val_list.string()}};
  if (ignore_value) json["ignore_value"] = *ignore_value;
  if (masks != Masks::kAuto) json["masks"] = static_cast<int>(masks);
  if (!mask_name.empty()) json["mask_name"] = mask_name;
  if (!image_folder.empty()) json["image_folder"] = image_folder.string();
  if (!mask_folder.empty()) json["mask_folder"] = mask_folder.string();
  if (slice_size) json["slice_size"] = *slice_size;
  return json.dump();
}

}  // namespace vireo
