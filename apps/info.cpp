#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "apps/engine/description.h"
#include "apps/verbs.h"
#include "models/registry.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"
#include "vision/core/log.h"
#include "vision/io/dicom/dicom_folder.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kInfoFooter = R"(Examples
  vireo info                                         versions, devices, known models
  vireo info rwkv_unet_t --size 512 512 --classes 9  parameters, FLOPs, memory
  vireo info scan.nii.gz                             size, spacing, orientation, range
  vireo info checkpoint_best.safetensors --json      what a checkpoint holds
  vireo info ../data/msd_hippocampus                 what a folder is
  vireo info study/                                  the DICOM series below it)";

struct InfoArguments {
  std::string what;
  std::vector<int64_t> size{224, 224};
  int64_t channels = 0, classes = 2;
  bool json = false;
};

bool is_model(const std::string& name) {
  for (const ModelEntry& entry : known_models())
    if (entry.name == name) return true;
  return false;
}

Description describe(const InfoArguments& arguments) {
  const fs::path path = arguments.what;
  if (arguments.what.empty()) return describe_program(VIREO_VERSION);
  if (!fs::exists(path) && is_model(arguments.what))
    return describe_model({arguments.what,
                           arguments.size[0],
                           arguments.size[1],
                           arguments.channels,
                           arguments.classes});
  if (!fs::exists(path)) {
    std::string known;
    for (const ModelEntry& entry : known_models())
      known += (known.empty() ? "" : ", ") + entry.name;
    throw Error(arguments.what + ": no such file, folder or model; known models are " + known);
  }
  if (fs::is_directory(path)) return describe_folder(path);
  if (path.extension() == ".safetensors") return describe_safetensors(path);
  if (is_dicom(path)) return describe_dicom(path);
  if (!image_extension(path).empty()) return describe_image(path);
  throw DataError(
      path,
      "is neither an image (.nii .nii.gz .hdr .nrrd .mha .png .jpg .tif .bmp, DICOM) nor a "
      ".safetensors file");
}

}  // namespace

void add_info(CLI::App& app) {
  auto arguments = std::make_shared<InfoArguments>();
  CLI::App* verb = app.add_subcommand(
      "info", "Tell about this program, a model, an image, a checkpoint, a folder");
  verb->add_option(
      "WHAT", arguments->what, "A file, a folder or a model's name; nothing: the program");
  verb->add_option("--size", arguments->size, "Of a model's input: height and width")
      ->expected(2)
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--channels", arguments->channels, "Of a model's input (default 1)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--classes", arguments->classes, "Of a model's output, background included")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_flag("--json", arguments->json, "Print JSON");
  verb->footer(kInfoFooter);
  verb->callback([arguments] {
    const Description description = describe(*arguments);
    std::cout << (arguments->json ? json_document(description) : text_of(description));
  });
}

}  // namespace vireo
