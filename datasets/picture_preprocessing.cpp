#include "datasets/picture_preprocessing.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "vision/core/config_table.h"
#include "vision/core/error.h"
#include "vision/core/json_text.h"

namespace vireo {
namespace {

const std::vector<double> kImageNetMean{0.485, 0.456, 0.406}, kImageNetSd{0.229, 0.224, 0.225};
const std::vector<std::string> kFilters{"nearest", "bilinear", "bicubic"};
const std::vector<std::string> kNormalizations{"data", "imagenet", "picture"};

// For every output position the pixels it takes and their weights.
struct Taps {
  std::vector<int64_t> first;
  std::vector<int64_t> count;
  std::vector<float> weights;  // [out, most]
  int64_t most = 0;
};

Taps taps_of(int64_t size, double begin, double extent, int64_t out, PictureFilter filter) {
  const double scale = extent / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0);
  const double reach = (filter == PictureFilter::kBicubic    ? 2
                        : filter == PictureFilter::kBilinear ? 1
                                                             : 0.5) *
                       stretch;
  Taps taps;
  taps.most = static_cast<int64_t>(std::ceil(2 * reach)) + 1;
  taps.weights.assign(static_cast<size_t>(out * taps.most), 0.f);
  for (int64_t i = 0; i < out; ++i) {
    const double centre = begin + (static_cast<double>(i) + 0.5) * scale;
    if (filter == PictureFilter::kNearest) {
      taps.first.push_back(std::clamp<int64_t>(static_cast<int64_t>(centre), 0, size - 1));
      taps.count.push_back(1);
      taps.weights[static_cast<size_t>(i * taps.most)] = 1;
      continue;
    }
    const int64_t first =
        std::clamp<int64_t>(static_cast<int64_t>(centre - reach + 0.5), 0, size - 1);
    const int64_t last =
        std::clamp<int64_t>(static_cast<int64_t>(centre + reach + 0.5), first + 1, size);
    double sum = 0;
    float* weights = taps.weights.data() + i * taps.most;
    for (int64_t k = first; k < last; ++k)
      sum += picture_filter_weight(filter, (static_cast<double>(k) + 0.5 - centre) / stretch);
    for (int64_t k = first; k < last; ++k)
      weights[k - first] = static_cast<float>(
          sum != 0
              ? picture_filter_weight(filter, (static_cast<double>(k) + 0.5 - centre) / stretch) /
                    sum
              : 1.0 / static_cast<double>(last - first));
    taps.first.push_back(first);
    taps.count.push_back(last - first);
  }
  return taps;
}

// Of every `step`-th of the values, as shares of 255. A spread of less than one level counts as
// one.
std::pair<double, double> mean_and_sd(const uint8_t* values, int64_t count, int64_t step) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double value = values[i * step];
    sum += value;
    squares += value * value;
  }
  const double mean = sum / static_cast<double>(count);
  const double variance = std::max(1.0, squares / static_cast<double>(count) - mean * mean);
  return {mean / 255, std::sqrt(variance) / 255};
}

}  // namespace

double picture_filter_weight(PictureFilter filter, double x) {
  x = std::abs(x);
  switch (filter) {
    case PictureFilter::kNearest:
      return x <= 0.5 ? 1 : 0;
    case PictureFilter::kBilinear:
      return x < 1 ? 1 - x : 0;
    default:  // Keys' cubic with a = -0.5
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  }
}

at::Tensor resized_picture(const at::Tensor& picture,
                           const PictureBox& box,
                           int64_t height,
                           int64_t width,
                           PictureFilter filter) {
  const int64_t from_h = picture.size(0), from_w = picture.size(1), channels = picture.size(2);
  if (box.top == 0 && box.left == 0 && box.height == static_cast<double>(from_h) &&
      box.width == static_cast<double>(from_w) && height == from_h && width == from_w)
    return picture.clone();
  const Taps down = taps_of(from_h, box.top, box.height, height, filter);
  const Taps across = taps_of(from_w, box.left, box.width, width, filter);
  const uint8_t* from = picture.const_data_ptr<uint8_t>();
  at::Tensor result = at::empty({height, width, channels}, at::kByte);
  uint8_t* to = result.mutable_data_ptr<uint8_t>();
  // Rows of the source, each resized across and rounded to 8 bits (as Pillow does), before the
  // columns' weights go over them.
  const int64_t first_row = down.first.front();
  const int64_t last_row = down.first.back() + down.count.back();
  std::vector<float> rows(static_cast<size_t>((last_row - first_row) * width * channels));
  for (int64_t y = first_row; y < last_row; ++y) {
    const uint8_t* row = from + y * from_w * channels;
    float* out = rows.data() + (y - first_row) * width * channels;
    for (int64_t x = 0; x < width; ++x) {
      const auto at = static_cast<size_t>(x);
      const float* weights = across.weights.data() + x * across.most;
      for (int64_t c = 0; c < channels; ++c) {
        float sum = 0;
        const uint8_t* pixel = row + across.first[at] * channels + c;
        for (int64_t k = 0; k < across.count[at]; ++k)
          sum += weights[k] * static_cast<float>(pixel[k * channels]);
        *out++ = std::floor(std::clamp(sum + 0.5f, 0.f, 255.f));
      }
    }
  }
  std::vector<float> line(static_cast<size_t>(width * channels));
  for (int64_t y = 0; y < height; ++y) {
    const auto at = static_cast<size_t>(y);
    std::fill(line.begin(), line.end(), 0.f);
    for (int64_t k = 0; k < down.count[at]; ++k) {
      const float weight = down.weights[static_cast<size_t>(y * down.most + k)];
      const float* row = rows.data() + (down.first[at] + k - first_row) * width * channels;
      for (size_t i = 0; i < line.size(); ++i) line[i] += weight * row[i];
    }
    for (const float value : line)
      *to++ = static_cast<uint8_t>(std::clamp(value + 0.5f, 0.f, 255.f));
  }
  return result;
}

at::Tensor resized_picture(const at::Tensor& picture, int64_t height, int64_t width) {
  return resized_picture(
      picture,
      {0, 0, static_cast<double>(picture.size(0)), static_cast<double>(picture.size(1))},
      height,
      width);
}

PictureBox PicturePreprocessing::box(int64_t height, int64_t width) const {
  const auto h = static_cast<double>(height), w = static_cast<double>(width);
  if (short_side == 0) return {0, 0, h, w};
  const double scale = std::min(h, w) / static_cast<double>(short_side);
  const double cut_h = static_cast<double>(size_yx[0]) * scale;
  const double cut_w = static_cast<double>(size_yx[1]) * scale;
  return {(h - cut_h) / 2, (w - cut_w) / 2, cut_h, cut_w};
}

void PicturePreprocessing::normalise(const at::Tensor& picture, float* out) const {
  const int64_t pixels = size_yx[0] * size_yx[1], channels = this->channels();
  const uint8_t* values = picture.const_data_ptr<uint8_t>();
  for (int64_t c = 0; c < channels; ++c) {
    auto [centre, spread] = std::pair(mean[static_cast<size_t>(c)], sd[static_cast<size_t>(c)]);
    if (normalization == Normalization::kPicture)
      std::tie(centre, spread) = mean_and_sd(values + c, pixels, channels);
    std::array<float, 256> table;
    for (size_t v = 0; v < 256; ++v)
      table[v] = static_cast<float>((static_cast<double>(v) / 255 - centre) / spread);
    for (int64_t i = 0; i < pixels; ++i) out[c * pixels + i] = table[values[i * channels + c]];
  }
}

void PicturePreprocessing::apply(const at::Tensor& picture, float* out) const {
  normalise(resized_picture(
                picture, box(picture.size(0), picture.size(1)), size_yx[0], size_yx[1], filter),
            out);
}

nlohmann::json PicturePreprocessing::to_json() const {
  return {{"size_yx", size_yx},
          {"short_side", short_side},
          {"filter", kFilters[static_cast<size_t>(filter)]},
          {"normalization", kNormalizations[static_cast<size_t>(normalization)]},
          {"mean", mean},
          {"sd", sd}};
}

PicturePreprocessing PicturePreprocessing::from_json(const nlohmann::json& json,
                                                     const std::string& source) {
  PicturePreprocessing p;
  std::string filter, normalization;
  try {
    p.size_yx = whole_numbers(json.at("size_yx")).get<std::array<int64_t, 2>>();
    p.short_side = whole_numbers(json.at("short_side")).get<int64_t>();
    filter = json.at("filter").get<std::string>();
    normalization = json.value("normalization", "data");
    p.mean = json.at("mean").get<std::vector<double>>();
    p.sd = json.at("sd").get<std::vector<double>>();
  } catch (const nlohmann::json::exception& error) {
    throw DataError(source, std::string("has a broken picture preprocessing: ") + error.what());
  }
  const auto found = std::find(kFilters.begin(), kFilters.end(), filter);
  const auto known = std::find(kNormalizations.begin(), kNormalizations.end(), normalization);
  const auto positive = [](int64_t extent) { return extent >= 1 && extent <= 1 << 16; };
  if (found == kFilters.end() || known == kNormalizations.end() ||
      (p.mean.size() != 1 && p.mean.size() != 3) || p.sd.size() != p.mean.size() ||
      !positive(p.size_yx[0]) || !positive(p.size_yx[1]) || p.short_side < 0)
    throw DataError(source, "has an impossible picture preprocessing");
  p.filter = static_cast<PictureFilter>(found - kFilters.begin());
  p.normalization = static_cast<Normalization>(known - kNormalizations.begin());
  return p;
}

PicturePreprocessing PicturePreprocessing::from_config(ConfigTable table) {
  PicturePreprocessing p;
  const auto size = table.integers("size", {p.size_yx[0], p.size_yx[1]}, 2);
  if (size[0] < 1 || size[1] < 1 || size[0] > 1 << 16 || size[1] > 1 << 16)
    table.fail("size", "expected [height, width] of at least 1 pixel");
  p.size_yx = {size[0], size[1]};
  p.short_side = table.integer("short_side", 0, 0, 1 << 16);
  if (p.short_side > 0 && p.short_side < std::max(size[0], size[1]))
    table.fail("short_side", "is smaller than the part of size that is cut from the middle");
  const std::string filter = table.choice("filter", "bicubic", kFilters);
  p.filter = static_cast<PictureFilter>(std::find(kFilters.begin(), kFilters.end(), filter) -
                                        kFilters.begin());
  const std::string normalization = table.choice("normalization", "data", kNormalizations);
  p.normalization = static_cast<Normalization>(
      std::find(kNormalizations.begin(), kNormalizations.end(), normalization) -
      kNormalizations.begin());
  return p;
}

void PicturePreprocessing::take_statistics(const std::vector<double>& data_mean,
                                           const std::vector<double>& data_sd) {
  mean = data_mean;
  sd = data_sd;
  if (normalization != Normalization::kImageNet) return;
  if (data_mean.size() != 3)
    throw Error(
        "picture.normalization = \"imagenet\" needs colour pictures; set data.channels = 3");
  mean = kImageNetMean;
  sd = kImageNetSd;
}

}  // namespace vireo
