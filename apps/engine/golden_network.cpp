#include <map>
#include <set>

#include <ATen/core/grad_mode.h>
#include <nlohmann/json.hpp>

#include "apps/engine/golden_files.h"
#include "models/inference.h"
#include "models/vision_rwkv.h"
#include "models/weights/state_dict.h"
#include "vision/blocks/observe.h"
#include "vision/core/error.h"

namespace vireo {
namespace {

struct Tolerances {
  double values, gradients, zero_gradients;
};

Tolerances tolerances_of(Precision precision) {
  // float64: the references are rounded to float32.
  return precision == Precision::kFloat32 ? Tolerances{2e-5, 3e-4, 1e-3}
                                          : Tolerances{1e-6, 1e-6, 1e-10};
}

bool starts_with(const std::string& text, const std::string& prefix, std::string* rest) {
  if (!text.starts_with(prefix)) return false;
  *rest = text.substr(prefix.size());
  return true;
}

/// The published class behind a golden file, under Vireo's name for it.
std::string model_name(const nlohmann::json& config) {
  static const std::map<std::string, std::string> names = {
      {"RWKV_UNet_T", "rwkv_unet_t"},
      {"RWKV_UNet_S", "rwkv_unet_s"},
      {"RWKV_UNet_B", "rwkv_unet_b"},
      {"RWKV_UNet", "rwkv_unet_b"},
      {"RWKV_UNet_encoder_T", "rwkv_unet_encoder_t"},
      {"RWKV_UNet_encoder_S", "rwkv_unet_encoder_s"},
      {"RWKV_UNet_encoder_B", "rwkv_unet_encoder_b"},
      {"VRWKV", "vision_rwkv"},
      {"VRWKV6", "vision_rwkv6"}};
  const std::string published = config.at("class").get<std::string>();
  // "VRWKV + GlobalAveragePooling + LinearClsHead(fc)": the backbone's class comes first.
  const auto found = names.find(published.substr(0, published.find(' ')));
  if (found == names.end()) throw UsageError("unknown model " + published);
  return found->second;
}

/// Stochastic depth is off: golden files are made without it, in training mode too.
std::string rwkv_unet_settings(const std::string& name) {
  return name.starts_with("rwkv_unet_encoder") ? "drop_path = 0\n"
                                               : "drop_path = 0\nccm_drop_path = 0\n";
}

/// Constructor arguments of VRWKV and VRWKV6; an unknown one is refused, since it may change the
/// network. Whether keys are normed shows in the names where it is not said.
std::string vision_rwkv_settings(const nlohmann::json& golden) {
  static const std::map<std::string, std::string> keys = {{"img_size", "image_size"},
                                                          {"patch_size", "patch_size"},
                                                          {"embed_dims", "channels"},
                                                          {"depth", "depth"},
                                                          {"num_heads", "heads"},
                                                          {"hidden_rate", "hidden_rate"},
                                                          {"key_norm", "key_norm"},
                                                          {"post_norm", "post_norm"},
                                                          {"init_values", "layer_scale"},
                                                          {"init_mode", "start"},
                                                          {"channel_gamma", "shift_gamma"},
                                                          {"shift_pixel", "shift_pixels"},
                                                          {"interpolate_mode", "interpolation"}};
  static const std::set<std::string> elsewhere = {
      "class", "in_channels", "num_classes", "input_shape", "resized_input", "drop_path"};
  // Arguments that Vireo's network knows by this value alone.
  static const std::map<std::string, bool> fixed = {{"with_cls_token", false},
                                                    {"output_cls_token", false},
                                                    {"final_norm", true},
                                                    {"with_cp", false}};
  std::string settings = "drop_path = 0\n";
  const auto& config = golden.at("config");
  for (const auto& [argument, value] : config.items()) {
    if (elsewhere.contains(argument) || value.is_null()) continue;
    if (fixed.contains(argument) && value == fixed.at(argument)) continue;
    const auto key = keys.find(argument);
    if (key == keys.end())
      throw Error("the network has an argument Vireo does not know: " + argument + " = " +
                  value.dump());
    settings += key->second + " = " + value.dump() + "\n";
  }
  if (!config.contains("key_norm"))
    for (const auto& name : golden.value("state_dict_names", nlohmann::json::array()))
      if (name.get<std::string>().ends_with("layers.0.att.key_norm.weight"))
        settings += "key_norm = true\n";
  return settings;
}

std::shared_ptr<Model> build_model(const nlohmann::json& golden) {
  const auto& config = golden.at("config");
  const auto shape = config.at("input_shape").get<std::vector<int64_t>>();
  if (shape.size() != 4) throw Error("input_shape must have four numbers");
  const std::string name = model_name(config);
  auto table =
      ConfigTable::from_text("name = \"" + name + "\"\n" +
                                 (name.starts_with("vision_rwkv") ? vision_rwkv_settings(golden)
                                                                  : rwkv_unet_settings(name)),
                             "golden");
  return create_model(table, {.input_channels = shape[1], .class_count = config.at("num_classes")});
}

/// param/<n> as stored, or param_q8/<n> · param_scale/<n>; in float64, which holds all of them
/// exactly.
std::map<std::string, at::Tensor> read_parameters(const SafetensorsFile& file) {
  std::map<std::string, at::Tensor> state;
  std::string name;
  for (const auto& key : file.names()) {
    if (starts_with(key, "param/", &name)) {
      const at::Tensor stored = file.tensor(key);
      state[name] = stored.is_floating_point() ? stored.to(at::kDouble) : stored;
    } else if (starts_with(key, "param_q8/", &name)) {
      const at::Tensor levels = file.tensor(key).to(at::kDouble);
      at::Tensor scale = file.tensor("param_scale/" + name).to(at::kDouble);
      if (scale.dim() == 1 && scale.numel() > 1 && levels.dim() > 1) {  // one per output channel
        std::vector<int64_t> shape(static_cast<size_t>(levels.dim()), 1);
        shape[0] = scale.numel();
        scale = scale.view(shape);
      }
      state[name] = (levels * scale).reshape(levels.sizes());
    }
  }
  return state;
}

/// The weights' type; counters stay whole numbers.
void convert(Model& model, at::ScalarType type) {
  for (auto& parameter : model.parameters()) parameter.set_data(parameter.to(type));
  for (auto& buffer : model.buffers())
    if (buffer.is_floating_point()) buffer.set_data(buffer.to(type));
}

/// Keeps the outputs of the modules that a golden file holds as act/<module>[.<index>].
class ActivationKeeper : public ModuleObserver {
 public:
  ActivationKeeper(const Model& model, const SafetensorsFile& file) {
    for (const auto& item : model.named_modules("", /*include_self=*/false))
      names_[item.value().get()] = item.key();
    std::string name;
    for (const auto& key : file.names())
      if (starts_with(key, "act/", &name)) wanted_.insert(name);
  }

  void on_output(const torch::nn::Module& module, size_t index, const at::Tensor& output) override {
    const auto name = names_.find(&module);
    if (name == names_.end()) return;
    const std::string indexed = name->second + "." + std::to_string(index);
    for (const auto& key : {name->second, indexed})
      if (wanted_.contains(key)) kept_.emplace(key, output.detach().clone());
  }

  const std::set<std::string>& wanted() const { return wanted_; }
  at::Tensor kept(const std::string& name) const {
    const auto found = kept_.find(name);
    return found == kept_.end() ? at::Tensor() : found->second;
  }

 private:
  std::map<const torch::nn::Module*, std::string> names_;
  std::set<std::string> wanted_;
  std::map<std::string, at::Tensor> kept_;
};

/// Holds one gradient against whichever form of it the file has.
void compare_gradient(const SafetensorsFile& file,
                      const std::string& name,
                      const at::Tensor& found,
                      bool is_zero,
                      const Tolerances& tolerances,
                      std::vector<Comparison>& comparisons) {
  const std::string full = "grad/" + name, sample = "grad_sample/" + name;
  const std::string statistics = "grad_stat/" + name;
  if (is_zero && file.contains(full)) {
    comparisons.push_back(compare_absolute(
        "zero gradients", name, found, file.tensor(full), tolerances.zero_gradients));
    return;
  }
  if (file.contains(full))
    comparisons.push_back(
        compare("gradients", name, found, file.tensor(full), tolerances.gradients));
  if (!found.defined() || (!file.contains(sample) && !file.contains(statistics))) {
    if (!file.contains(full))
      comparisons.push_back({.group = "gradients", .name = name, .problem = "was not computed"});
    return;
  }

  // [sum, sum |.|, L2 norm, largest |.|] and every step-th number.
  const at::Tensor numbers = found.detach().to(at::kDouble).contiguous().flatten();
  const at::Tensor expected = file.tensor(statistics).to(at::kDouble);
  const auto entry = [&](int64_t i) { return expected[i].item<double>(); };
  const auto relative_to = [&](Comparison comparison, double scale) {
    comparison.relative = scale > 0 ? comparison.absolute / scale : comparison.absolute;
    if (is_zero) {
      comparison.group = "zero gradients";
      comparison.tolerance = tolerances.zero_gradients;
      comparison.is_absolute = true;
    }
    comparisons.push_back(comparison);
  };
  if (file.contains(sample)) {
    const int64_t step = std::max<int64_t>(1, numbers.numel() / 512);
    relative_to(compare("gradients",
                        name + " (sample)",
                        numbers.slice(0, 0, c10::nullopt, step).slice(0, 0, 512),
                        file.tensor(sample),
                        tolerances.gradients),
                entry(3));
  }
  const std::array<std::pair<const char*, double>, 4> measured = {
      {{" (sum)", numbers.sum().item<double>()},
       {" (absolute sum)", numbers.abs().sum().item<double>()},
       {" (norm)", numbers.norm().item<double>()},
       {" (largest)", numbers.abs().max().item<double>()}}};
  for (int64_t i = 0; i < 4; ++i) {
    const auto& [what, value] = measured[static_cast<size_t>(i)];
    relative_to(compare_number("gradients", name + what, value, entry(i), tolerances.gradients),
                i == 0 ? entry(1) : entry(i));
  }
}

/// Vision-RWKV on an image of another size, with its position embedding resized.
void compare_resized(const SafetensorsFile& file,
                     VisionRwkv& model,
                     at::ScalarType type,
                     const Tolerances& tolerances,
                     std::vector<Comparison>& comparisons) {
  for (auto& parameter : model.parameters()) parameter.mutable_grad().reset();
  const at::Tensor image = file.tensor("resized/input").to(type);
  const auto check = [&](const std::string& name, const at::Tensor& found, double tolerance) {
    if (file.contains("resized/" + name))
      comparisons.push_back(compare(
          "resized input", "resized/" + name, found, file.tensor("resized/" + name), tolerance));
  };
  const int64_t patch = model.config().patch_size;
  check("pos_embed",
        model.backbone()->positions(image.size(2) / patch, image.size(3) / patch),
        tolerances.values);
  const at::Tensor output = model.forward(image);
  check("output", output, tolerances.values);
  if (!file.contains("resized/output_weight")) return;
  (output * file.tensor("resized/output_weight").to(type)).sum().backward();
  check("grad_pos_embed", model.backbone()->pos_embed.grad(), tolerances.gradients);
}

std::vector<Comparison> run_network(const SafetensorsFile& file,
                                    const nlohmann::json& golden,
                                    Precision precision,
                                    std::vector<std::string>& notes) {
  const auto tolerances = tolerances_of(precision);
  const auto type = precision == Precision::kFloat32 ? at::kFloat : at::kDouble;
  const bool training = golden.at("mode").get<std::string>() == "train";
  const auto model = build_model(golden);
  convert(*model, type);
  const auto report = load_state(*model, read_parameters(file), file.path().string());
  if (!report.accepted_unused.empty())
    notes.push_back(std::to_string(report.accepted_unused.size()) +
                    " stored tensors are known to be unused");
  std::vector<Comparison> comparisons;
  model->train(training);

  const at::Tensor expected_output = file.tensor("output");
  if (!training) {
    const at::NoGradGuard no_grad;  // the way that predictions go
    comparisons.push_back(compare("output",
                                  "output (without gradients)",
                                  model->forward(file.tensor("input").to(type)),
                                  expected_output,
                                  tolerances.values));
  }
  if (!training && type == at::kFloat) {
    const at::NoGradGuard no_grad;
    comparisons.push_back(compare("output",
                                  "output (inference form)",
                                  prepare_for_inference(model)->forward(file.tensor("input")),
                                  expected_output,
                                  tolerances.values));
  }
  const at::Tensor input = file.tensor("input").to(type).clone().requires_grad_();
  ActivationKeeper activations(*model, file);
  at::Tensor output;
  {
    const ObserverScope scope(activations);
    output = model->forward(input);
  }
  comparisons.push_back(compare("output", "output", output, expected_output, tolerances.values));
  for (const auto& name : activations.wanted())
    comparisons.push_back(compare("activations",
                                  name,
                                  activations.kept(name),
                                  file.tensor("act/" + name),
                                  tolerances.values));
  const auto state = state_of(*model);
  std::string name;
  for (const auto& key : file.names())
    if (starts_with(key, "after/", &name))
      comparisons.push_back(compare("running statistics",
                                    name,
                                    state.contains(name) ? state.at(name) : at::Tensor(),
                                    file.tensor(key),
                                    tolerances.values));

  if (!file.contains("output_weight")) {
    notes.emplace_back("the file holds no output_weight: no gradient was compared");
    return comparisons;
  }
  (output * file.tensor("output_weight").to(type)).sum().backward();
  if (file.contains("grad_input"))
    comparisons.push_back(compare(
        "gradients", "grad_input", input.grad(), file.tensor("grad_input"), tolerances.gradients));
  std::set<std::string> zero, with_gradient;
  for (const auto& zero_name : golden.value("analytically_zero_grads", nlohmann::json::array()))
    zero.insert(zero_name.get<std::string>());
  for (const auto& key : file.names())
    for (const char* prefix : {"grad/", "grad_sample/", "grad_stat/"})
      if (starts_with(key, prefix, &name)) with_gradient.insert(name);
  std::map<std::string, at::Tensor> gradients;
  for (const auto& item : model->named_parameters()) gradients[item.key()] = item.value().grad();
  for (const auto& parameter : with_gradient)
    compare_gradient(file,
                     parameter,
                     gradients.contains(parameter) ? gradients.at(parameter) : at::Tensor(),
                     zero.contains(parameter),
                     tolerances,
                     comparisons);
  if (auto* vision_rwkv = dynamic_cast<VisionRwkv*>(model.get());
      vision_rwkv && file.contains("resized/input"))
    compare_resized(file, *vision_rwkv, type, tolerances, comparisons);
  const size_t left = gradients.size() - with_gradient.size();
  if (left > 0 && golden.value("grads", "full") != "none")
    notes.push_back("the file holds no gradient for " + std::to_string(left) + " parameters");
  return comparisons;
}

bool only_gradients_fail(const std::vector<Comparison>& comparisons) {
  bool any = false;
  for (const auto& comparison : comparisons) {
    if (comparison.passed()) continue;
    if (comparison.group.find("gradients") == std::string::npos) return false;
    any = true;
  }
  return any;
}

void note_what_is_left(const SafetensorsFile& file, std::vector<std::string>& notes) {
  static const std::set<std::string> understood = {"param",
                                                   "param_q8",
                                                   "param_scale",
                                                   "act",
                                                   "after",
                                                   "grad",
                                                   "grad_sample",
                                                   "grad_stat",
                                                   "input",
                                                   "output",
                                                   "output_f32",
                                                   "output_weight",
                                                   "grad_input",
                                                   "resized"};
  for (const auto& key : file.names())
    if (!understood.contains(key.substr(0, key.find('/'))))
      notes.push_back("not compared: " + key + ", which this network has no use for");
}

}  // namespace

GoldenReport verify_network(const SafetensorsFile& file,
                            const nlohmann::json& golden,
                            Precision precision) {
  GoldenReport report;
  const auto subject = [&](Precision used) {
    return model_name(golden.at("config")) + ", " + golden.at("mode").get<std::string>() +
           (used == Precision::kFloat32 ? ", float32" : ", float64");
  };
  report.subject = subject(precision);
  note_what_is_left(file, report.notes);
  report.comparisons = run_network(file, golden, precision, report.notes);
  if (precision == Precision::kFloat32 && only_gradients_fail(report.comparisons)) {
    for (const auto& comparison : report.comparisons)
      if (!comparison.passed())
        report.notes.push_back("beyond the tolerance in float32: gradient of " + comparison.name);
    report.notes.emplace_back(
        "repeated in float64, which decides: a ReLU whose input is within rounding of zero may "
        "switch sides in float32");
    report.subject = subject(Precision::kFloat64);
    std::vector<std::string> known;
    report.comparisons = run_network(file, golden, Precision::kFloat64, known);
  }
  return report;
}

}  // namespace vireo
