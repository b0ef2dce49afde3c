#include "datasets/mask_file.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include <ATen/Functions.h>

#include "vision/core/error.h"
#include "vision/io/image_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

// JPEG puts colours into grey pixels, but not as many.
constexpr double kMostTint = 48;
constexpr size_t kListedColors = 6;

bool is_jpeg(const fs::path& path) {
  const std::string extension = image_extension(path);
  return extension == ".jpg" || extension == ".jpeg";
}

std::string number_text(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

std::string color_code(int64_t rgb) {
  char text[8];
  std::snprintf(text, sizeof text, "#%06x", static_cast<unsigned>(rgb));
  return text;
}

// Foreground and background as the rule numbers them.
Volume two_classes(const at::Tensor& foreground, const Volume& like, const MaskRule& rule) {
  const at::Tensor values = at::where(foreground,
                                      at::scalar_tensor(rule.values[1], at::kInt),
                                      at::scalar_tensor(rule.values[0], at::kInt));
  return {values.unsqueeze(0).contiguous(), like.geometry, like.full_scale};
}

bool is_in_color(const fs::path& path, const Volume& image) {
  const auto darkest = std::get<0>(image.values.min(0));
  const auto brightest = std::get<0>(image.values.max(0));
  const double tint = (brightest - darkest).max().item<double>();
  return tint > (is_jpeg(path) ? kMostTint * image.full_scale / 255 : 0);
}

// Masks of 0 and 1, or 255, as indices of a PNG's palette, whatever its colours; else nothing.
std::optional<Volume> read_two_indices(const fs::path& path) {
  if (image_extension(path) != ".png") return std::nullopt;
  try {
    Volume labels = read_labels(path);
    const at::Tensor& values = labels.values;
    const auto highest = values.max().item<int32_t>();
    const bool two = (highest <= 1 || highest == 255) &&
                     values.eq(0).logical_or(values.eq(highest)).all().item<bool>();
    if (two) return labels;
  } catch (const DataError&) {  // colours without a palette
  }
  return std::nullopt;
}

Volume read_binary(const fs::path& path, const MaskRule& rule) {
  const Volume image = read_image(path);
  if (is_in_color(path, image)) {
    if (const auto indices = read_two_indices(path))
      return two_classes(indices->values[0].ne(0), *indices, rule);
    throw DataError(path,
                    "is in colour, where masks = \"binary\" takes what is brighter than half. Give "
                    "the classes' colours: masks = \"colors\" with label_colors");
  }
  const at::Tensor grey = image.values.mean(0);
  const double highest = grey.max().item<double>();
  const bool ones =
      !is_jpeg(path) && highest <= 1 && grey.eq(0).logical_or(grey.eq(1)).all().item<bool>();
  if (ones) return two_classes(grey.eq(1), image, rule);
  const double half = (image.full_scale > 0 ? image.full_scale : 255) / 2;
  // An empty mask may come out of JPEG not quite black.
  if (highest <= half && highest > (is_jpeg(path) ? half / 4 : 0))
    throw DataError(path,
                    "its brightest value is " + number_text(highest) + ", below half of " +
                        number_text(2 * half) +
                        ", which masks = \"binary\" needs for foreground. Is it a mask? If its "
                        "values are classes: masks = \"values\" with label_values");
  return two_classes(grey.gt(half), image, rule);
}

void refuse_jpeg(const fs::path& path, const char* what) {
  if (is_jpeg(path))
    throw DataError(path,
                    std::string("is a JPEG, which does not keep ") + what +
                        " as they were; save the masks as PNG, or set masks = \"binary\" if there "
                        "is one class beside the background");
}

Volume read_instances(const fs::path& path, const MaskRule& rule) {
  refuse_jpeg(path, "numbers");
  const Volume image = read_image(path);
  if (image.values.size(0) == 1) return two_classes(image.values[0].ne(0), image, rule);
  try {  // a palette's indices
    const Volume labels = read_labels(path);
    return two_classes(labels.values[0].ne(0), labels, rule);
  } catch (const DataError&) {
    return two_classes(image.values.ne(0).any(0), image, rule);
  }
}

Volume read_colors(const fs::path& path, const MaskRule& rule) {
  refuse_jpeg(path, "colours");
  const Volume image = read_image(path);
  const int64_t channels = image.values.size(0);
  if (image.full_scale != 255 || (channels != 1 && channels != 3))
    throw DataError(path, "is no 8-bit picture, as masks with colours are");
  std::map<int64_t, int32_t> value_of;
  for (size_t k = 0; k < rule.colors.size(); ++k) {
    const auto& rgb = rule.colors[k];
    value_of[rgb[0] << 16 | rgb[1] << 8 | rgb[2]] = static_cast<int32_t>(rule.values[k]);
  }
  at::Tensor labels = at::empty(image.values[0].sizes(), at::kInt);
  int32_t* out = labels.mutable_data_ptr<int32_t>();
  const float* red = image.values.const_data_ptr<float>();
  const int64_t pixels = labels.numel(), step = channels == 3 ? pixels : 0;
  std::map<int64_t, int64_t> unknown;
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t rgb = static_cast<int64_t>(red[i]) << 16 |
                        static_cast<int64_t>(red[i + step]) << 8 |
                        static_cast<int64_t>(red[i + 2 * step]);
    const auto found = value_of.find(rgb);
    if (found == value_of.end())
      ++unknown[rgb];
    else
      out[i] = found->second;
  }
  if (unknown.empty()) return {labels.unsqueeze(0), image.geometry, image.full_scale};
  std::string text;
  size_t listed = 0;
  for (const auto& [rgb, count] : unknown) {
    if (++listed > kListedColors) break;
    text += (listed > 1 ? ", " : "") + color_code(rgb) + " (" + std::to_string(count) + " pixels)";
  }
  if (unknown.size() > kListedColors)
    text += " and " + std::to_string(unknown.size() - kListedColors) + " more";
  throw DataError(path, "holds colours that label_colors does not give: " + text);
}

Volume read_mask(const fs::path& path, const MaskRule& rule) {
  switch (rule.kind) {
    case MaskRule::Kind::kBinary:
      return read_binary(path, rule);
    case MaskRule::Kind::kInstances:
      return read_instances(path, rule);
    case MaskRule::Kind::kColors:
      return read_colors(path, rule);
    default:
      return read_labels(path);
  }
}

}  // namespace

std::string MaskRule::text() const {
  std::string text = "masks " + std::to_string(static_cast<int>(kind));
  for (const int64_t value : values) text += " " + std::to_string(value);
  if (kind == Kind::kColors)
    for (const auto& rgb : colors) text += " " + color_code(rgb[0] << 16 | rgb[1] << 8 | rgb[2]);
  return text;
}

Volume read_masks(const std::vector<fs::path>& files, const MaskRule& rule) {
  Volume whole = read_mask(files.at(0), rule);
  for (size_t i = 1; i < files.size(); ++i) {
    const Volume part = read_mask(files[i], rule);
    if (part.values.sizes() != whole.values.sizes())
      throw DataError(files[i],
                      "has the size " + c10::str(part.values.sizes()) + "; " +
                          files[0].filename().string() + ", of the same picture, has " +
                          c10::str(whole.values.sizes()));
    whole.values =
        at::where(whole.values.eq(rule.values[0]), part.values, whole.values).contiguous();
  }
  return whole;
}

}  // namespace vireo
