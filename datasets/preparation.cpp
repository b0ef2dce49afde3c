#include "datasets/preparation.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/Functions.h>
#include <nlohmann/json.hpp>

#include "datasets/prepared_slices.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"
#include "vision/transforms/resample.h"

namespace vireo {
namespace {

using nlohmann::json;
using Kind = ChannelNormalization::Kind;

const std::map<Kind, std::string> kKindNames = {
    {Kind::kCt, "ct"}, {Kind::kZScore, "zscore"}, {Kind::kRgb, "rgb"}, {Kind::kNone, "none"}};
constexpr const char* kAxisNames[] = {"z", "y", "x"};

// Class numbers of label values; the error lists every value that is not declared.
at::Tensor class_numbers(const std::string& name,
                         const at::Tensor& values,
                         const Preparation& preparation) {
  std::map<int64_t, uint8_t> class_of;
  for (size_t i = 0; i < preparation.labels.size(); ++i)
    class_of[preparation.labels[i].value] = static_cast<uint8_t>(i);
  if (preparation.ignore_value) class_of[*preparation.ignore_value] = kIgnoredClass;

  const at::Tensor present = std::get<0>(at::_unique(values, /*sorted=*/true)).to(at::kLong);
  at::Tensor classes = at::zeros(values.sizes(), at::kByte);
  std::string undeclared;
  for (int64_t i = 0; i < present.numel(); ++i) {
    const auto value = present[i].item<int64_t>();
    const auto found = class_of.find(value);
    if (found == class_of.end())
      undeclared += (undeclared.empty() ? "" : ", ") + std::to_string(value);
    else if (found->second != 0)
      classes.masked_fill_(values.eq(value), found->second);
  }
  if (!undeclared.empty())
    throw DataError(name, "the label map holds values that are not declared: " + undeclared);
  return classes;
}

std::string color_text(const std::array<uint8_t, 3>& rgb) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", rgb[0], rgb[1], rgb[2]);
  return text;
}

// Reads fields of a JSON object; errors name the source and the field.
class Fields {
 public:
  Fields(const json& object, std::string source, std::string where)
      : object_(object), source_(std::move(source)), where_(std::move(where)) {
    if (!object_.is_object()) fail("is not an object");
  }
  template <typename T>
  T get(const char* name) const {
    try {
      if constexpr (std::is_same_v<T, int64_t>)
        return whole_numbers(object_.at(name)).get<T>();
      else
        return object_.at(name).get<T>();
    } catch (const json::exception&) {
      throw DataError(source_, "field \"" + where_ + name + "\" is missing or of a wrong type");
    }
  }
  const json& at(const char* name) const {
    const auto found = object_.find(name);
    if (found == object_.end())
      throw DataError(source_, "field \"" + where_ + name + "\" is missing");
    return *found;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(source_, "field \"" + where_ + "\" " + what);
  }

 private:
  const json& object_;
  std::string source_, where_;
};

}  // namespace

std::array<int, 3> prepared_axes(const Preparation& preparation, const Geometry& file) {
  const int first =
      preparation.slice_axis_by_spacing ? file.coarsest_axis() : preparation.slice_axis_zyx;
  std::array<int, 3> order{first, 0, 0};
  for (int axis = 0, next = 1; axis < 3; ++axis)
    if (axis != first) order[next++] = axis;
  return order;
}

double grid_tolerance_mm(const Geometry& geometry) {
  const auto& spacing = geometry.spacing_mm_zyx;
  return *std::min_element(spacing.begin(), spacing.end()) / 20;
}

std::array<uint8_t, 3> default_color(int64_t number) {
  if (number == 0) return {0, 0, 0};
  // Steps of the golden ratio keep the hues of any few neighbours apart; red first.
  const double hue = std::fmod(static_cast<double>(number - 1) * 0.6180339887498949, 1.0) * 6;
  const auto part = [&](double shift) {
    const double x = std::fmod(hue + shift, 6.0);
    const double level = std::clamp(std::abs(x - 3) - 1, 0.0, 1.0);
    return static_cast<uint8_t>(std::lround(255 * (0.15 + 0.85 * level)));
  };
  return {part(0), part(4), part(2)};
}

json Preparation::to_json() const {
  json channel_list = json::array(), label_list = json::array();
  for (const auto& channel : channels)
    channel_list.push_back({{"name", channel.channel_name},
                            {"normalization", kKindNames.at(channel.kind)},
                            {"lower", channel.lower},
                            {"upper", channel.upper},
                            {"mean", channel.mean},
                            {"sd", channel.sd}});
  for (const auto& label : labels)
    label_list.push_back(
        {{"name", label.name}, {"value", label.value}, {"color", color_text(label.color_rgb)}});
  json result = {{"dataset_name", dataset_name},
                 {"channels", channel_list},
                 {"labels", label_list},
                 {"ignore_value", nullptr},
                 {"orientation", orientation_xyz},
                 {"slice_axis", slice_axis_by_spacing ? "auto" : kAxisNames[slice_axis_zyx]},
                 {"spacing_mm", nullptr}};
  if (ignore_value) result["ignore_value"] = *ignore_value;
  if (spacing_mm) result["spacing_mm"] = *spacing_mm;
  if (slice_size) result["slice_size"] = *slice_size;
  return result;
}

Preparation Preparation::from_json(const json& text, const std::string& source) {
  Preparation result;
  const Fields all(text, source, "");
  result.dataset_name = all.get<std::string>("dataset_name");

  for (const json& one : all.at("channels")) {
    const Fields fields(one, source, "channels.");
    ChannelNormalization channel;
    channel.channel_name = fields.get<std::string>("name");
    const auto kind = fields.get<std::string>("normalization");
    const auto found = std::find_if(kKindNames.begin(), kKindNames.end(), [&](const auto& entry) {
      return entry.second == kind;
    });
    if (found == kKindNames.end())
      fields.fail("has the unknown normalization \"" + kind + "\"; ct, zscore, rgb and none exist");
    channel.kind = found->first;
    channel.lower = fields.get<double>("lower");
    channel.upper = fields.get<double>("upper");
    channel.mean = fields.get<double>("mean");
    channel.sd = fields.get<double>("sd");
    if (!(channel.sd > 0)) fields.fail("has a standard deviation (sd) that is not positive");
    result.channels.push_back(channel);
  }
  for (const json& one : all.at("labels")) {
    const Fields fields(one, source, "labels.");
    Label label{fields.get<std::string>("name"), fields.get<int64_t>("value"), {}};
    const auto color = fields.get<std::string>("color");
    unsigned rgb[3];
    if (std::sscanf(color.c_str(), "#%2x%2x%2x", &rgb[0], &rgb[1], &rgb[2]) != 3)
      fields.fail("has the color \"" + color + "\"; #rrggbb was expected");
    for (int i = 0; i < 3; ++i) label.color_rgb[i] = static_cast<uint8_t>(rgb[i]);
    result.labels.push_back(label);
  }
  if (result.channels.empty()) throw DataError(source, "field \"channels\" is empty");
  if (result.labels.size() < 2 || result.labels.size() > kIgnoredClass)
    throw DataError(source, "field \"labels\" must hold 2 to 255 classes");

  // Earlier ones do not tell.
  result.orientation_xyz = text.value("orientation", "");
  if (!all.at("ignore_value").is_null()) result.ignore_value = all.get<int64_t>("ignore_value");
  const auto axis = all.get<std::string>("slice_axis");
  const auto known = std::find(std::begin(kAxisNames), std::end(kAxisNames), axis);
  result.slice_axis_by_spacing = axis == "auto";
  if (known == std::end(kAxisNames) && axis != "auto")
    throw DataError(source, "field \"slice_axis\" is \"" + axis + "\"; auto, z, y or x");
  if (axis != "auto") result.slice_axis_zyx = static_cast<int>(known - kAxisNames);
  if (!all.at("spacing_mm").is_null()) result.spacing_mm = all.get<Vector3>("spacing_mm");
  if (text.contains("slice_size")) {
    result.slice_size = all.get<std::array<int64_t, 2>>("slice_size");
    if ((*result.slice_size)[0] < 1 || (*result.slice_size)[1] < 1)
      throw DataError(source, "field \"slice_size\" is not positive");
  }
  return result;
}

PreparedCase prepare_case(const std::string& name,
                          const Volume& image,
                          const std::optional<Volume>& labels,
                          const Preparation& preparation) {
  const PreparedSlices slices(name, image, {}, preparation);
  PreparedCase result;
  result.name = name;
  result.native = image.geometry;
  result.axis_order = slices.axes().order_zyx;
  result.geometry = slices.geometry();
  const auto& size = result.geometry.size_zyx;
  result.image = slices.read(0, size[0]);
  if (!labels) return result;
  const std::string apart =
      difference(image.geometry, labels->geometry, grid_tolerance_mm(image.geometry));
  if (!apart.empty()) throw DataError(name, "image and label map do not match: " + apart);
  const auto& order = result.axis_order;
  result.labels = class_numbers(name, labels->values[0], preparation)
                      .permute({order[0], order[1], order[2]})
                      .contiguous();
  if (preparation.spacing_mm || preparation.slice_size)
    result.labels = resample_labels(result.labels, size);
  return result;
}

}  // namespace vireo
