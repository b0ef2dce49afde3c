#include "apps/engine/benchmark.h"

#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "apps/engine/checkpoint.h"
#include "apps/engine/flat_parameters.h"
#include "apps/engine/trained_model.h"
#include "apps/engine/training_pass.h"
#include "kernels/bench/bench.h"
#include "models/cost.h"
#include "models/inference.h"
#include "vision/core/config_table.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/json_text.h"
#include "vision/losses/cross_entropy_dice.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kUsualChannels = 3, kUsualClasses = 9, kUsualClassifierClasses = 1000;

// Two numbers of a checkpoint's or a configuration's image size, where they are two.
void take_size(const std::vector<int64_t>& size, BenchNetwork& network) {
  if (size.size() == 2 && size[0] > 0 && size[1] > 0) network.size_yx = {size[0], size[1]};
}

std::shared_ptr<Model> model_of(const std::function<ConfigTable()>& table,
                                int64_t channels,
                                int64_t classes) {
  ConfigTable first = table();
  const ModelShape shape{channels > 0 ? channels : kUsualChannels,
                         classes > 0 ? classes : kUsualClasses};
  const auto model = create_model(first, shape);
  if (!model->classifies() || classes > 0) return model;
  ConfigTable second = table();
  return create_model(second, {shape.input_channels, kUsualClassifierClasses});
}

BenchNetwork open_checkpoint(const fs::path& path) {
  const Checkpoint checkpoint = read_checkpoint(path);
  BenchNetwork network{path.string(), network_of(checkpoint, path)};
  const auto window = checkpoint.metadata.find("window_yx");
  const auto picture = checkpoint.metadata.find("picture");
  if (window != checkpoint.metadata.end())
    take_size(parse_json(window->second, path), network);
  else if (picture != checkpoint.metadata.end())
    take_size(parse_json(picture->second, path).value("size_yx", std::vector<int64_t>{}), network);
  return network;
}

BenchNetwork open_config(const fs::path& path, int64_t channels, int64_t classes) {
  ConfigTable config = ConfigTable::from_file(path);
  BenchNetwork network{
      path.string(),
      model_of([&] { return ConfigTable::from_file(path).table("model"); }, channels, classes)};
  take_size(config.table("batches").integers("window", {}), network);
  take_size(config.table("picture").integers("size", {}), network);
  return network;
}

}  // namespace

BenchNetwork open_bench_network(const std::string& what, int64_t channels, int64_t classes) {
  std::string known;
  for (const ModelEntry& entry : known_models()) {
    if (entry.name == what) {
      const auto table = [&] {
        return ConfigTable::from_text("name = \"" + what + "\"", "the command line");
      };
      return {what, model_of(table, channels, classes)};
    }
    known += (known.empty() ? "" : ", ") + entry.name;
  }
  const fs::path path = what;
  if (path.extension() == ".safetensors") {
    if (channels > 0 || classes > 0)
      throw UsageError(what + ": a checkpoint's channels and classes are fixed; leave out " +
                       (channels > 0 ? "--channels" : "--classes"));
    return open_checkpoint(path);
  }
  if (path.extension() == ".toml") return open_config(path, channels, classes);
  throw UsageError(what +
                   ": expected a known model, a configuration (.toml) or a checkpoint "
                   "(.safetensors); known models are " +
                   known);
}

struct NetworkPasses::State {
  std::shared_ptr<Model> model;
  at::Device device = at::kCPU;
  std::map<std::string, std::shared_ptr<Model>> forms;  // for inference, by precision
  std::unique_ptr<FlatParameters> parameters;           // when it trains
  std::unique_ptr<AdamW> optimizer;
};

NetworkPasses::NetworkPasses(const BenchNetwork& network, at::Device device)
    : state_(std::make_shared<State>(State{network.model, device, {}, nullptr, nullptr})) {
  network.model->to(device);
}

NetworkPasses::~NetworkPasses() = default;

std::function<void()> NetworkPasses::pass(const BenchSetting& setting) const {
  at::manual_seed(1);
  const auto [height, width] = setting.size_yx;
  const at::Tensor images =
      at::randn({setting.batch, state_->model->input_channels(), height, width}).to(state_->device);
  return setting.trains ? training_step(setting, images) : inference(setting, images);
}

std::function<void()> NetworkPasses::inference(const BenchSetting& setting,
                                               const at::Tensor& images) const {
  std::shared_ptr<Model>& form = state_->forms[setting.precision];
  if (!form) {
    state_->model->eval();
    form = prepare_for_inference(state_->model, precision_named(setting.precision));
  }
  // Not InferenceMode, under which nothing could take the place of an operator.
  return [images, form = form] {
    const at::NoGradGuard no_grad;
    form->forward(images);
  };
}

std::function<void()> NetworkPasses::training_step(const BenchSetting& setting,
                                                   const at::Tensor& images) const {
  if (setting.precision == "int8") throw UsageError("int8 is for inference; train in fp32 or bf16");
  const auto state = state_;
  const int64_t classes = state->model->class_count();
  const auto [height, width] = setting.size_yx;
  state->model->train();
  if (!state->parameters) {
    state->parameters = std::make_unique<FlatParameters>(*state->model);
    state->optimizer = std::make_unique<AdamW>(*state->parameters, AdamW::Settings{});
  }
  const bool classifies = state->model->classifies();
  const at::Tensor truth =
      classifies
          ? at::randint(classes, {setting.batch}, at::kLong).to(state->device)
          : at::randint(std::min<int64_t>(classes, 255), {setting.batch, height, width}, at::kByte)
                .to(state->device);
  const auto pass = std::make_shared<TrainingPass>(
      state->model,
      *state->parameters,
      [classifies](const at::Tensor& output, const Batch& batch) {
        return classifies ? at::cross_entropy_loss(output, batch.target)
                          : cross_entropy_dice(output, batch.target).total;
      },
      setting.precision == "bf16",
      graph_stream_of(state->device));
  return [state, pass, batch = Batch{images.contiguous(at::MemoryFormat::ChannelsLast), truth}] {
    state->parameters->gradients.zero_();
    (*pass)(batch);
    state->optimizer->step(*state->parameters, 1e-4, 1);
  };
}

namespace {

Json setting_json(const BenchSetting& setting, const Timing& timing, int64_t multiply_adds) {
  const Spread seconds = spread_of(timing.seconds);
  const auto images = static_cast<double>(setting.batch);
  Json json = {{"batch", setting.batch},
               {"precision", setting.precision},
               {"seconds", json_of(seconds)},
               {"ms_per_image", seconds.median * 1e3 / images},
               {"images_per_second", images / seconds.median}};
  if (!setting.trains)
    json["multiply_adds_per_second"] = static_cast<double>(multiply_adds) * images / seconds.median;
  json["peak_bytes"] = timing.peak_bytes ? Json(*timing.peak_bytes) : Json();
  return json;
}

}  // namespace

Json bench_networks(const BenchQuestion& question) {
  const InterruptGuard guard;
  Json networks = Json::array();
  std::vector<Contender> contenders;
  std::vector<BenchSetting> settings;  // as many for each network
  for (const BenchNetwork& network : question.networks) {
    const std::array<int64_t, 2> size =
        question.size_yx[0] > 0 ? question.size_yx : network.size_yx;
    const NetworkPasses passes(network, question.device);
    const int64_t channels = network.model->input_channels();
    const ModelCost cost =
        measure_cost(*network.model, {1, channels, size[0], size[1]}, /*training=*/false);
    networks.push_back({{"name", network.name},
                        {"parameters", cost.parameters},
                        {"classes", network.model->class_count()},
                        {"image", {channels, size[0], size[1]}},
                        {"multiply_adds", cost.multiply_adds},
                        {"settings", Json::array()}});
    for (const int64_t batch : question.batches)
      for (const std::string& precision : question.precisions) {
        settings.push_back({batch, size, precision, question.trains});
        contenders.push_back({network.name, passes.pass(settings.back())});
      }
  }
  const std::vector<Timing> timings = time_in_turns(
      contenders, {.seconds = question.seconds, .device = question.device, .between = [] {
                     throw_if_interrupted("nothing was written");
                   }});
  const size_t each = settings.size() / question.networks.size();
  for (size_t i = 0; i < settings.size(); ++i) {
    Json& network = networks[i / each];
    network["settings"].push_back(
        setting_json(settings[i], timings[i], network["multiply_adds"].get<int64_t>()));
  }
  return {{"machine", json_of(this_machine(question.device))},
          {"pass", question.trains ? "training step" : "inference"},
          {"seconds_each", question.seconds},
          {"networks", networks}};
}

std::string measured_on(const Json& report) {
  const std::string program =
      report.contains("version") ? "Vireo " + report["version"].get<std::string>() + " on " : "";
  return program + report.at("machine").at("text").get<std::string>() + "\n";
}

std::string bench_text(const Json& report) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  std::string text = measured_on(report) + report.at("pass").get<std::string>() +
                     ", milliseconds per image, runs in turns; peak: memory beyond program, "
                     "weights and images\n";
  for (const Json& network : report.at("networks")) {
    char line[160];
    std::snprintf(line,
                  sizeof line,
                  "%.3f M parameters, %.3f GMAC per image of %s, %ld classes\n",
                  network.at("parameters").get<double>() / 1e6,
                  network.at("multiply_adds").get<double>() / 1e9,
                  shape_text(network.at("image").get<std::vector<int64_t>>()).c_str(),
                  network.at("classes").get<int64_t>());
    text += "\n" + network.at("name").get<std::string>() + ": " + line;
    for (const char* column : {"batch", "precision", "runs", "min", "quartile", "median"})
      text += text_cell(column, 9);
    for (const char* column : {"quartile", "max", "images/s", "GMAC/s", "peak MiB"})
      text += text_cell(column, 9);
    text += "\n";
    for (const Json& setting : network.at("settings")) {
      const Json& seconds = setting.at("seconds");
      text += number_cell(setting.at("batch"), 9, 0);
      text += text_cell(setting.at("precision"), 9) + number_cell(seconds.at("runs"), 9, 0);
      for (const char* key : {"min", "low_quartile", "median", "high_quartile", "max"})
        text += number_cell(
            seconds.at(key).get<double>() * 1e3 / setting.at("batch").get<double>(), 9, 3);
      text += number_cell(setting.at("images_per_second"), 9, 2);
      text += number_cell(setting.value("multiply_adds_per_second", kNone) / 1e9, 9, 1);
      const Json& peak = setting.at("peak_bytes");
      text += number_cell(peak.is_null() ? kNone : peak.get<double>() / (1 << 20), 9, 1) + "\n";
    }
  }
  return text;
}

}  // namespace vireo
