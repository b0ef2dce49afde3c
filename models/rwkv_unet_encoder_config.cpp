#include <algorithm>

#include "models/rwkv_unet_encoder.h"

namespace vireo {
namespace {

constexpr int64_t kWidest = 1 << 16;

std::array<int64_t, 4> four_integers(ConfigTable& table,
                                     const char* key,
                                     const std::array<int64_t, 4>& fallback,
                                     int64_t max) {
  const auto given = table.integers(key, {fallback.begin(), fallback.end()}, 4);
  std::array<int64_t, 4> values{};
  for (size_t i = 0; i < 4; ++i) {
    values[i] = given[i];
    if (values[i] < 1 || values[i] > max)
      table.fail(key,
                 "holds " + std::to_string(values[i]) + "; every value must be from 1 to " +
                     std::to_string(max));
  }
  return values;
}

void require_odd(ConfigTable& table, const char* key, int64_t kernel) {
  if (kernel % 2 == 0) table.fail(key, "holds " + std::to_string(kernel) + "; kernels must be odd");
}

const std::vector<std::string> kNormNames = {"none", "batch", "layer"};

NormKind norm_from(ConfigTable& table, const std::string& name) {
  for (size_t i = 0; i < kNormNames.size(); ++i)
    if (name == kNormNames[i]) return static_cast<NormKind>(i);
  table.fail("norms", "holds \"" + name + "\"; expected \"none\", \"batch\" or \"layer\"");
}

}  // namespace

RwkvUnetEncoderConfig RwkvUnetEncoderConfig::preset(char size) {
  RwkvUnetEncoderConfig config;
  if (size == 'T') {
    config.depths = {2, 2, 4, 2};
    config.dims = {32, 48, 96, 160};
    config.expansions = {2, 2.5, 3, 3.5};
  } else if (size == 'S') {
    config.depths = {3, 3, 6, 3};
    config.dims = {32, 64, 128, 192};
    config.expansions = {2, 2.5, 3, 4};
  } else {
    config.depths = {3, 3, 6, 3};
    config.dims = {48, 72, 144, 240};
    config.expansions = {2, 2.5, 4, 4};
  }
  return config;
}

RwkvUnetEncoderConfig RwkvUnetEncoderConfig::from_toml(ConfigTable& table,
                                                       const ModelShape& shape,
                                                       const RwkvUnetEncoderConfig& defaults) {
  RwkvUnetEncoderConfig config = defaults;
  config.read(table, shape);
  table.finish();
  return config;
}

void RwkvUnetEncoderConfig::read(ConfigTable& table, const ModelShape& shape) {
  in_channels =
      table.integer("in_channels", std::max<int64_t>(shape.input_channels, 0), 0, kWidest);
  classes = table.integer("classes", std::max<int64_t>(shape.class_count, 0), 0, kWidest);
  if (in_channels < 1) table.fail("in_channels", "must be given, at least 1");
  if (classes < 1) table.fail("classes", "must be given, at least 1");

  stem_width = table.integer("stem_width", stem_width, 1, kWidest);
  for (const char* key : {"depths", "dims", "expansions"})
    if (dims[0] == 0 && !table.has(key))
      table.fail(key, "is missing: a free configuration gives depths, dims and expansions");
  depths = four_integers(table, "depths", depths, 1000);
  dims = four_integers(table, "dims", dims, kWidest);
  const auto given = table.numbers("expansions", {expansions.begin(), expansions.end()}, 4);
  for (const double expansion : given)
    if (!(expansion >= 1 && expansion <= 64))
      table.fail("expansions", "every value must be from 1 to 64");
  std::copy(given.begin(), given.end(), expansions.begin());

  stem_kernel = table.integer("stem_kernel", stem_kernel, 1, 63);
  require_odd(table, "stem_kernel", stem_kernel);
  kernels = four_integers(table, "kernels", kernels, 63);
  for (const int64_t kernel : kernels) require_odd(table, "kernels", kernel);

  std::vector<std::string> norm_names;
  for (const NormKind norm : norms) norm_names.push_back(kNormNames[static_cast<size_t>(norm)]);
  norm_names = table.texts("norms", norm_names);
  if (norm_names.size() != 4) table.fail("norms", "must hold four names, one for each stage");
  for (size_t i = 0; i < 4; ++i) norms[i] = norm_from(table, norm_names[i]);

  std::vector<int64_t> attended;
  for (size_t i = 0; i < 4; ++i)
    if (attention[i]) attended.push_back(static_cast<int64_t>(i) + 1);
  attended = table.integers("attention_stages", attended);
  attention.fill(false);
  for (const int64_t stage : attended) {
    if (stage < 1 || stage > 4) table.fail("attention_stages", "stages are numbered 1 to 4");
    attention[static_cast<size_t>(stage - 1)] = true;
  }

  drop_path = table.number("drop_path", drop_path, 0, 0.99);
  wkv_form = table.choice("wkv_form", "exact", {"exact", "published"}) == "published"
                 ? WkvForm::kPublished
                 : WkvForm::kExact;
}

}  // namespace vireo
