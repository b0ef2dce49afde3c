#include <iostream>
#include <memory>
#include <set>

#include <CLI/CLI.hpp>

#include "apps/verbs.h"
#include "models/registry.h"
#include "models/weights/pickle_import.h"
#include "models/weights/state_dict.h"
#include "vision/core/error.h"
#include "vision/core/safetensors.h"

namespace vireo {
namespace {

struct ImportOptions {
  std::string input, output, entry, model;
  int64_t channels = 0, classes = 0;
};

std::shared_ptr<Model> build(const std::string& name, const ModelShape& shape) {
  auto table = ConfigTable::from_text("name = \"" + name + "\"\n", "--model");
  return create_model(table, shape);
}

/// Names of the models that can be built by name alone, so that `backbone.` is removed only where
/// it leads to one of them.
class KnownNames {
 public:
  explicit KnownNames(std::string only) : only_(std::move(only)) {}

  bool contains(const std::string& name) {
    if (models_.empty()) build_models();
    if (names_.contains(name)) return true;
    for (const auto& model : models_)
      if (model->is_known_unused(name)) return true;
    return false;
  }

 private:
  /// Takes seconds for the largest, and few files ask.
  void build_models() {
    for (const auto& entry : known_models()) {
      if (!only_.empty() && entry.name != only_) continue;
      try {
        models_.push_back(build(entry.name, {.input_channels = 3, .class_count = 2}));
      } catch (const ConfigError&) {
        continue;  // a family that needs a configuration of its own
      }
      for (const auto& [name, tensor] : state_of(*models_.back())) names_.insert(name);
    }
  }

  std::string only_;
  std::vector<std::shared_ptr<Model>> models_;
  std::set<std::string> names_;
};

/// An extent of the first of these tensors that the file has, else 0.
int64_t extent(const ImportedWeights& weights,
               const std::vector<std::string>& names,
               int64_t axis) {
  for (const auto& name : names) {
    const auto found = weights.tensors.find(name);
    if (found != weights.tensors.end() && axis < found->second.dim())
      return found->second.size(axis);
  }
  return 0;
}

void check_against_model(const ImportOptions& options, const ImportedWeights& weights) {
  ModelShape shape{.input_channels = options.channels, .class_count = options.classes};
  if (shape.input_channels == 0)
    shape.input_channels = extent(weights,
                                  {"encoder.stage0.0.conv.conv.weight",
                                   "stage0.0.conv.conv.weight",
                                   "backbone.patch_embed.projection.weight"},
                                  1);
  if (shape.class_count == 0)
    shape.class_count = extent(weights, {"final_conv.weight", "head.weight", "head.fc.weight"}, 0);
  if (shape.input_channels == 0) shape.input_channels = 3;
  if (shape.class_count == 0) shape.class_count = 1;
  const auto model = build(options.model, shape);
  const auto report = load_state(*model, weights.tensors, options.input);
  std::cout << "loads as " << options.model << " with " << shape.input_channels
            << " input channels and " << shape.class_count << " classes";
  if (!report.accepted_unused.empty())
    std::cout << "; " << report.accepted_unused.size() << " tensors are known to be unused";
  std::cout << "\n";
}

void import_weights(const ImportOptions& options) {
  ImportedWeights weights = read_pickled_weights(options.input, options.entry);
  KnownNames known(options.model);
  strip_wrapper_prefixes(weights, [&](const std::string& name) { return known.contains(name); });
  for (const auto& note : weights.notes) std::cout << note << "\n";
  std::map<std::string, std::string> metadata = {
      {"format", "pt"},
      {"imported_from", std::filesystem::path(options.input).filename().string()}};
  if (!options.model.empty()) {
    check_against_model(options, weights);
    metadata["model"] = options.model;
  }
  write_safetensors(options.output, weights.tensors, metadata);

  int64_t numbers = 0;
  for (const auto& [name, tensor] : weights.tensors) numbers += tensor.numel();
  std::cout << options.output << ": " << weights.tensors.size() << " tensors, " << numbers
            << " numbers\n";
}

}  // namespace

void add_import(CLI::App& app) {
  auto* verb = app.add_subcommand("import",
                                  "Turn a PyTorch weight file (.pth, .pt) into a safetensors file");
  const auto options = std::make_shared<ImportOptions>();
  verb->add_option("IN", options->input, "File of torch.save, PyTorch 1.6 or later")
      ->required()
      ->type_name("");
  verb->add_option("OUT", options->output, "File to write (.safetensors)")
      ->required()
      ->type_name("");
  verb->add_option("--entry",
                   options->entry,
                   "Entry that holds the weights, \"a.b\" for one inside another; by default "
                   "the file itself or state_dict, model_state_dict, model, net, network, weights")
      ->type_name("NAME");
  verb->add_option("--model", options->model, "Refuse unless the weights fit this model")
      ->type_name("NAME");
  verb->add_option("--channels", options->channels, "Input channels for --model, if not the stem's")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->add_option("--classes", options->classes, "Classes for --model, if not the last layer's")
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  verb->footer(
      "Only tensors are taken, and nothing of the file is executed; a pickled Python object in\n"
      "place of the weights is refused.\n\n"
      "Names lose what wrappers put there: \"_orig_mod.\" (torch.compile) anywhere, \"module.\"\n"
      "(DataParallel) in front of all names, and \"backbone.\" in front of all names where what "
      "is\n"
      "left are names of a model of Vireo's (of --model, if given) and the full names are not.\n\n"
      "Example:\n  vireo import --model rwkv_unet_t net_T.pth rwkv_unet_t.safetensors");
  verb->callback([options] { import_weights(*options); });
}

}  // namespace vireo
