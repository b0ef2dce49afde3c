#include "models/registry.h"

#include "models/rwkv_unet.h"
#include "models/vision_rwkv.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

using Maker = std::shared_ptr<Model> (*)(ConfigTable&, const ModelShape&);

template <char size>
std::shared_ptr<Model> make_rwkv_unet(ConfigTable& table, const ModelShape& shape) {
  return std::make_shared<RwkvUnet>(
      RwkvUnetConfig::from_toml(table, shape, RwkvUnetConfig::preset(size)));
}

std::shared_ptr<Model> make_free_rwkv_unet(ConfigTable& table, const ModelShape& shape) {
  return std::make_shared<RwkvUnet>(RwkvUnetConfig::from_toml(table, shape, RwkvUnetConfig{}));
}

template <char size>
std::shared_ptr<Model> make_rwkv_unet_encoder(ConfigTable& table, const ModelShape& shape) {
  return std::make_shared<RwkvUnetEncoder>(
      RwkvUnetEncoderConfig::from_toml(table, shape, RwkvUnetEncoderConfig::preset(size)));
}

std::shared_ptr<Model> make_free_rwkv_unet_encoder(ConfigTable& table, const ModelShape& shape) {
  return std::make_shared<RwkvUnetEncoder>(
      RwkvUnetEncoderConfig::from_toml(table, shape, RwkvUnetEncoderConfig{}));
}

template <char size>
std::shared_ptr<Model> make_vision_rwkv(ConfigTable& table, const ModelShape& shape) {
  const auto preset = VisionRwkvConfig::preset(size);
  return std::make_shared<VisionRwkv>(VisionRwkvConfig::from_toml(table, shape, preset, false));
}

template <char size>
std::shared_ptr<Model> make_vision_rwkv6(ConfigTable& table, const ModelShape& shape) {
  const auto preset = VisionRwkvConfig::preset6(size);
  return std::make_shared<VisionRwkv>(VisionRwkvConfig::from_toml(table, shape, preset, true));
}

template <bool six>
std::shared_ptr<Model> make_free_vision_rwkv(ConfigTable& table, const ModelShape& shape) {
  return std::make_shared<VisionRwkv>(
      VisionRwkvConfig::from_toml(table, shape, VisionRwkvConfig{}, six));
}

struct Row {
  ModelEntry entry;
  Maker make;
};

const std::vector<Row>& table_of_models() {
  static const std::vector<Row> rows = {
      {{"rwkv_unet_t", "RWKV-UNet tiny, 3.1 M parameters"}, make_rwkv_unet<'T'>},
      {{"rwkv_unet_s", "RWKV-UNet small, 9.7 M parameters"}, make_rwkv_unet<'S'>},
      {{"rwkv_unet_b", "RWKV-UNet base, 17.1 M parameters"}, make_rwkv_unet<'B'>},
      {{"rwkv_unet", "RWKV-UNet of your own dims, depths and expansions"}, make_free_rwkv_unet},
      {{"rwkv_unet_encoder_t", "RWKV-UNet's encoder, tiny, a classifier of 3.1 M parameters"},
       make_rwkv_unet_encoder<'T'>},
      {{"rwkv_unet_encoder_s", "RWKV-UNet's encoder, small, a classifier of 9.6 M parameters"},
       make_rwkv_unet_encoder<'S'>},
      {{"rwkv_unet_encoder_b", "RWKV-UNet's encoder, base, a classifier of 16.9 M parameters"},
       make_rwkv_unet_encoder<'B'>},
      {{"rwkv_unet_encoder", "RWKV-UNet's encoder of your own dims, depths and expansions"},
       make_free_rwkv_unet_encoder},
      {{"vision_rwkv_t", "Vision-RWKV tiny, a classifier of 6.2 M parameters"},
       make_vision_rwkv<'T'>},
      {{"vision_rwkv_s", "Vision-RWKV small, a classifier of 23.8 M parameters"},
       make_vision_rwkv<'S'>},
      {{"vision_rwkv_b", "Vision-RWKV base, a classifier of 93.6 M parameters"},
       make_vision_rwkv<'B'>},
      {{"vision_rwkv_l", "Vision-RWKV large, a classifier of 330.1 M parameters, 384 px"},
       make_vision_rwkv<'L'>},
      {{"vision_rwkv", "Vision-RWKV of your own channels, depth and patch size"},
       make_free_vision_rwkv<false>},
      {{"vision_rwkv6_t", "Vision-RWKV 6 tiny, a classifier of 7.6 M parameters"},
       make_vision_rwkv6<'T'>},
      {{"vision_rwkv6_s", "Vision-RWKV 6 small, a classifier of 27.7 M parameters"},
       make_vision_rwkv6<'S'>},
      {{"vision_rwkv6_b", "Vision-RWKV 6 base, a classifier of 104.9 M parameters"},
       make_vision_rwkv6<'B'>},
      {{"vision_rwkv6", "Vision-RWKV 6 of your own channels, heads, depth and patch size"},
       make_free_vision_rwkv<true>},
  };
  return rows;
}

}  // namespace

const std::vector<ModelEntry>& known_models() {
  static const std::vector<ModelEntry> entries = [] {
    std::vector<ModelEntry> list;
    for (const auto& row : table_of_models()) list.push_back(row.entry);
    return list;
  }();
  return entries;
}

std::shared_ptr<Model> create_model(ConfigTable& table, const ModelShape& shape) {
  const std::string name = table.text("name");
  std::string known;
  for (const auto& row : table_of_models()) {
    if (row.entry.name == name) return row.make(table, shape);
    known += (known.empty() ? "" : ", ") + row.entry.name;
  }
  throw UsageError("unknown model " + name + "; known are " + known);
}

}  // namespace vireo
