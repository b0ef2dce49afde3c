#include "apps/engine/trained_model.h"

#include <nlohmann/json.hpp>

#include "apps/engine/checkpoint.h"
#include "models/weights/state_dict.h"
#include "vision/core/config_table.h"
#include "vision/core/error.h"

namespace vireo {

TrainedModel load_trained_model(const std::filesystem::path& path) {
  const Checkpoint checkpoint = read_checkpoint(path);
  const auto text = [&](const std::string& key) -> const std::string& {
    const auto found = checkpoint.metadata.find(key);
    if (found == checkpoint.metadata.end())
      throw DataError(path, "has no \"" + key + "\" in its metadata, which prediction needs");
    return found->second;
  };

  TrainedModel trained;
  try {
    const auto json = [&](const std::string& key) { return nlohmann::json::parse(text(key)); };
    trained.preparation = Preparation::from_json(json("preparation"), path.string());
    trained.window_yx = json("window_yx").get<std::array<int64_t, 2>>();
    trained.neighbours = json("neighbours").get<int64_t>();
    trained.mirrored_yx = json("mirrored_yx").get<std::array<bool, 2>>();
    trained.config_toml = text("config");
    const auto shape = json("model_shape");
    ConfigTable table = ConfigTable::from_text(text("model"), path.string() + " (model)");
    trained.model = create_model(
        table, {shape.at("input_channels").get<int64_t>(), shape.at("class_count").get<int64_t>()});
  } catch (const nlohmann::json::exception& error) {
    throw DataError(path, std::string("has broken metadata: ") + error.what());
  }
  load_state(*trained.model,
             checkpoint.average.empty() ? checkpoint.model : checkpoint.average,
             path.string());
  trained.model->eval();
  return trained;
}

}  // namespace vireo
