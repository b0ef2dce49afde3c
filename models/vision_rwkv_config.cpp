#include <algorithm>

#include "models/vision_rwkv.h"

namespace vireo {
namespace {

constexpr int64_t kMostChannels = 1 << 16;
constexpr int64_t kHeadChannels = 64;  // published
constexpr int64_t kLargestHead = 128;

const std::vector<std::string> kStarts = {"fancy", "local", "global"};
const std::vector<std::string> kInterpolations = {"bilinear", "bicubic"};

/// A choice whose names stand in the order of the enumeration.
template <class Enum>
Enum choice(ConfigTable& table,
            const char* key,
            Enum fallback,
            const std::vector<std::string>& names) {
  const std::string name = table.choice(key, names[static_cast<size_t>(fallback)], names);
  return static_cast<Enum>(std::find(names.begin(), names.end(), name) - names.begin());
}

}  // namespace

VisionRwkvConfig VisionRwkvConfig::preset(char size) {
  VisionRwkvConfig config;
  config.depth = size == 'L' ? 24 : 12;
  config.channels = size == 'T' ? 192 : size == 'S' ? 384 : size == 'B' ? 768 : 1024;
  if (size == 'L') {
    config.image_size = 384;
    config.key_norm = config.post_norm = true;
    config.layer_scale = 1e-5;
  }
  return config;
}

VisionRwkvConfig VisionRwkvConfig::preset6(char size) {
  VisionRwkvConfig config = preset(size);
  config.heads = config.channels / kHeadChannels;
  return config;
}

VisionRwkvConfig VisionRwkvConfig::from_toml(ConfigTable& table,
                                             const ModelShape& shape,
                                             const VisionRwkvConfig& defaults,
                                             bool six) {
  VisionRwkvConfig config = defaults;
  config.in_channels =
      table.integer("in_channels", std::max<int64_t>(shape.input_channels, 0), 0, kMostChannels);
  config.classes =
      table.integer("classes", std::max<int64_t>(shape.class_count, 0), 0, kMostChannels);
  if (config.in_channels < 1) table.fail("in_channels", "must be given, at least 1");
  if (config.classes < 1) table.fail("classes", "must be given, at least 1");
  config.stem_channels = table.integer("stem_channels", config.in_channels, 1, kMostChannels);
  if (config.in_channels != 1 && config.stem_channels != config.in_channels)
    table.fail("stem_channels", "differs from in_channels; only one channel can be repeated");

  for (const char* key : {"channels", "depth"})
    if (defaults.channels == 0 && !table.has(key))
      table.fail(key, "is missing: a free configuration gives channels and depth");
  config.channels = table.integer("channels", defaults.channels, 1, kMostChannels);
  config.depth = table.integer("depth", defaults.depth, 1, 1000);
  config.patch_size = table.integer("patch_size", defaults.patch_size, 1, 1024);
  config.image_size = table.integer("image_size", defaults.image_size, 1, kMostChannels);
  if (config.image_size % config.patch_size != 0)
    table.fail("image_size",
               "holds " + std::to_string(config.image_size) + ", no multiple of patch_size " +
                   std::to_string(config.patch_size));
  config.hidden_rate = table.integer("hidden_rate", defaults.hidden_rate, 1, 64);
  config.key_norm = table.boolean("key_norm", defaults.key_norm);
  config.post_norm = table.boolean("post_norm", defaults.post_norm);
  config.layer_scale = table.number("layer_scale", defaults.layer_scale, 0, 1000);
  config.shift.pixels = table.integer("shift_pixels", defaults.shift.pixels, 1, 1024);
  config.shift.gamma = table.number("shift_gamma", defaults.shift.gamma, 1e-6, 0.25);
  config.drop_path = table.number("drop_path", defaults.drop_path, 0, 0.99);
  config.interpolation = choice(table, "interpolation", defaults.interpolation, kInterpolations);
  if (six) {
    config.heads = table.integer(
        "heads", std::max<int64_t>(config.channels / kHeadChannels, 1), 1, config.channels);
    if (config.channels % config.heads != 0 || config.channels / config.heads > kLargestHead)
      table.fail("heads",
                 "holds " + std::to_string(config.heads) + "; it must divide the " +
                     std::to_string(config.channels) + " channels into heads of at most " +
                     std::to_string(kLargestHead));
  } else {
    config.start = choice(table, "start", defaults.start, kStarts);
    config.wkv_form = table.choice("wkv_form", "exact", {"exact", "published"}) == "published"
                          ? WkvForm::kPublished
                          : WkvForm::kExact;
  }
  config.checkpointing = table.boolean("checkpointing", defaults.checkpointing);
  table.finish();
  return config;
}

}  // namespace vireo
