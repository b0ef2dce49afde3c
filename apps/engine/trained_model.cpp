#include "apps/engine/trained_model.h"

#include <nlohmann/json.hpp>

#include "models/weights/state_dict.h"
#include "vision/core/config_table.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"

namespace vireo {
namespace {

const std::string& metadata_entry(const Checkpoint& checkpoint,
                                  const std::string& key,
                                  const std::filesystem::path& path) {
  const auto found = checkpoint.metadata.find(key);
  if (found == checkpoint.metadata.end())
    throw DataError(path, "has no \"" + key + "\" in its metadata, which prediction needs");
  return found->second;
}

}  // namespace

std::shared_ptr<Model> network_of(const Checkpoint& checkpoint, const std::filesystem::path& path) {
  std::shared_ptr<Model> model;
  try {
    const auto shape = parse_json(metadata_entry(checkpoint, "model_shape", path), path);
    ConfigTable table = ConfigTable::from_text(metadata_entry(checkpoint, "model", path),
                                               path.string() + " (model)");
    model = create_model(table,
                         {whole_numbers(shape.at("input_channels")).get<int64_t>(),
                          whole_numbers(shape.at("class_count")).get<int64_t>()});
  } catch (const nlohmann::json::exception& error) {
    throw DataError(path, std::string("has broken metadata: ") + error.what());
  }
  load_state(
      *model, checkpoint.average.empty() ? checkpoint.model : checkpoint.average, path.string());
  model->eval();
  return model;
}

TrainedModel load_trained_model(const std::filesystem::path& path) {
  const Checkpoint checkpoint = read_checkpoint(path);
  const auto text = [&](const std::string& key) { return metadata_entry(checkpoint, key, path); };
  TrainedModel trained;
  try {
    const auto json = [&](const std::string& key) { return parse_json(text(key), path); };
    trained.preparation = Preparation::from_json(json("preparation"), path.string());
    trained.window_yx = whole_numbers(json("window_yx")).get<std::array<int64_t, 2>>();
    trained.neighbours = whole_numbers(json("neighbours")).get<int64_t>();
    trained.mirrored_yx = json("mirrored_yx").get<std::array<bool, 2>>();
    trained.config_toml = text("config");
  } catch (const nlohmann::json::exception& error) {
    throw DataError(path, std::string("has broken metadata: ") + error.what());
  }
  trained.model = network_of(checkpoint, path);
  return trained;
}

}  // namespace vireo
