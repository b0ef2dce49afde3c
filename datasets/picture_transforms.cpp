#include "datasets/picture_transforms.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <ATen/ATen.h>

namespace vireo {
namespace {

uint8_t byte(double value) {
  return static_cast<uint8_t>(std::clamp(std::lround(value), 0L, 255L));
}

// Every pixel value through a table, per channel.
void look_up(at::Tensor& picture, const std::vector<std::array<uint8_t, 256>>& tables) {
  const int64_t channels = picture.size(2), count = picture.numel();
  uint8_t* values = picture.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < count; i += channels)
    for (int64_t c = 0; c < channels; ++c)
      values[i + c] = tables[static_cast<size_t>(c)][values[i + c]];
}

template <typename Function>
void map_values(at::Tensor& picture, const Function& function) {
  std::array<uint8_t, 256> table;
  for (int v = 0; v < 256; ++v) table[static_cast<size_t>(v)] = function(v);
  look_up(picture, {static_cast<size_t>(picture.size(2)), table});
}

std::array<int64_t, 256> count_values(const at::Tensor& picture, int64_t channel) {
  std::array<int64_t, 256> counts{};
  const int64_t channels = picture.size(2), count = picture.numel();
  const uint8_t* values = picture.const_data_ptr<uint8_t>();
  for (int64_t i = channel; i < count; i += channels) ++counts[values[i]];
  return counts;
}

void auto_contrast(at::Tensor& picture) {
  std::vector<std::array<uint8_t, 256>> tables;
  for (int64_t c = 0; c < picture.size(2); ++c) {
    const auto counts = count_values(picture, c);
    int low = 0, high = 255;
    while (low < 255 && counts[static_cast<size_t>(low)] == 0) ++low;
    while (high > low && counts[static_cast<size_t>(high)] == 0) --high;
    std::array<uint8_t, 256> table;
    for (int v = 0; v < 256; ++v)
      table[static_cast<size_t>(v)] =
          high > low ? byte((v - low) * 255.0 / (high - low)) : static_cast<uint8_t>(v);
    tables.push_back(table);
  }
  look_up(picture, tables);
}

void equalize(at::Tensor& picture) {
  std::vector<std::array<uint8_t, 256>> tables;
  for (int64_t c = 0; c < picture.size(2); ++c) {
    const auto counts = count_values(picture, c);
    int64_t last = 0, total = 0;
    for (const int64_t count : counts) {
      total += count;
      if (count > 0) last = count;
    }
    const int64_t step = (total - last) / 255;
    int64_t below = step / 2;
    std::array<uint8_t, 256> table;
    for (size_t v = 0; v < 256; ++v) {
      table[v] = step > 0 ? byte(static_cast<double>(below / step)) : static_cast<uint8_t>(v);
      below += counts[v];
    }
    tables.push_back(table);
  }
  look_up(picture, tables);
}

double luminance(const uint8_t* pixel, int64_t channels) {
  return channels == 1 ? pixel[0] : 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2];
}

// From the picture without any of a property (factor 0) to itself (1) and beyond.
template <typename Without>
void blend(at::Tensor& picture, double factor, const Without& without) {
  const int64_t channels = picture.size(2), width = picture.size(1);
  const at::Tensor source = picture.clone();
  const uint8_t* from = source.const_data_ptr<uint8_t>();
  uint8_t* to = picture.mutable_data_ptr<uint8_t>();
  for (int64_t y = 0; y < picture.size(0); ++y)
    for (int64_t x = 0; x < width; ++x)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = (y * width + x) * channels + c;
        const double plain = without(from, y, x, c);
        to[i] = byte(plain + factor * (from[i] - plain));
      }
}

void change_contrast(at::Tensor& picture, double factor) {
  const int64_t channels = picture.size(2), pixels = picture.size(0) * picture.size(1);
  const uint8_t* values = picture.const_data_ptr<uint8_t>();
  double sum = 0;
  for (int64_t i = 0; i < pixels; ++i) sum += luminance(values + i * channels, channels);
  const double mean = sum / static_cast<double>(pixels);
  map_values(picture, [&](int v) { return byte(mean + factor * (v - mean)); });
}

void change_sharpness(at::Tensor& picture, double factor) {
  const int64_t channels = picture.size(2), width = picture.size(1), height = picture.size(0);
  blend(picture, factor, [&](const uint8_t* from, int64_t y, int64_t x, int64_t c) {
    const uint8_t* at = from + (y * width + x) * channels + c;
    // The frame keeps its values, as Pillow's filter does.
    if (y == 0 || x == 0 || y + 1 == height || x + 1 == width) return static_cast<double>(*at);
    double sum = 4.0 * *at;
    for (int64_t dy = -1; dy <= 1; ++dy)
      for (int64_t dx = -1; dx <= 1; ++dx) sum += at[(dy * width + dx) * channels];
    return sum / 13;
  });
}

// Pixel (y, x) of the result shows the picture at centre + linear * ((y, x) - centre) + shift.
void warp(at::Tensor& picture,
          const std::array<double, 4>& linear,
          double shift_y,
          double shift_x,
          const std::array<uint8_t, 3>& fill,
          PictureFilter filter) {
  const int64_t height = picture.size(0), width = picture.size(1), channels = picture.size(2);
  const at::Tensor source = picture.clone();
  const uint8_t* from = source.const_data_ptr<uint8_t>();
  uint8_t* to = picture.mutable_data_ptr<uint8_t>();
  const double cy = static_cast<double>(height - 1) / 2, cx = static_cast<double>(width - 1) / 2;
  const int64_t reach = filter == PictureFilter::kBicubic ? 2 : 1;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x, to += channels) {
      const double v = static_cast<double>(y) - cy, u = static_cast<double>(x) - cx;
      const double sy = cy + linear[0] * v + linear[1] * u + shift_y;
      const double sx = cx + linear[2] * v + linear[3] * u + shift_x;
      const auto iy =
          static_cast<int64_t>(std::floor(filter == PictureFilter::kNearest ? sy + 0.5 : sy));
      const auto ix =
          static_cast<int64_t>(std::floor(filter == PictureFilter::kNearest ? sx + 0.5 : sx));
      std::array<double, 4> wy{}, wx{};
      for (int64_t k = 0; k < 2 * reach && filter != PictureFilter::kNearest; ++k) {
        wy[static_cast<size_t>(k)] =
            picture_filter_weight(filter, sy - static_cast<double>(iy - reach + 1 + k));
        wx[static_cast<size_t>(k)] =
            picture_filter_weight(filter, sx - static_cast<double>(ix - reach + 1 + k));
      }
      const bool outside =
          iy < -reach || ix < -reach || iy >= height + reach || ix >= width + reach;
      for (int64_t c = 0; c < channels; ++c) {
        const uint8_t beyond = fill[static_cast<size_t>(c)];
        const auto at = [&](int64_t py, int64_t px) {
          return py >= 0 && px >= 0 && py < height && px < width
                     ? from[(py * width + px) * channels + c]
                     : beyond;
        };
        if (outside) {
          to[c] = beyond;
        } else if (filter == PictureFilter::kNearest) {
          to[c] = at(iy, ix);
        } else {
          double sum = 0;
          for (int64_t j = 0; j < 2 * reach; ++j)
            for (int64_t k = 0; k < 2 * reach; ++k)
              sum += wy[static_cast<size_t>(j)] * wx[static_cast<size_t>(k)] *
                     at(iy - reach + 1 + j, ix - reach + 1 + k);
          to[c] = byte(sum);
        }
      }
    }
}

// A share of the area with a ratio of the sides, somewhere inside; whole pixels.
PictureBox random_crop(const PictureAugmentation& a,
                       int64_t height,
                       int64_t width,
                       Random& random) {
  const auto area = static_cast<double>(height * width);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * random.uniform(a.crop_scale[0], a.crop_scale[1]);
    const double ratio =
        std::exp(random.uniform(std::log(a.crop_ratio[0]), std::log(a.crop_ratio[1])));
    const int64_t w = std::lround(std::sqrt(target * ratio));
    const int64_t h = std::lround(std::sqrt(target / ratio));
    if (w < 1 || h < 1 || w > width || h > height) continue;
    return {static_cast<double>(random.below(height - h + 1)),
            static_cast<double>(random.below(width - w + 1)),
            static_cast<double>(h),
            static_cast<double>(w)};
  }
  // No such part fits: the middle, as near to the wanted ratio as the picture allows.
  const auto h = static_cast<double>(height), w = static_cast<double>(width);
  const double ratio = std::clamp(w / h, a.crop_ratio[0], a.crop_ratio[1]);
  const double cut_w = std::min(w, h * ratio), cut_h = std::min(h, w / ratio);
  return {(h - cut_h) / 2, (w - cut_w) / 2, cut_h, cut_w};
}

void erase(const PictureAugmentation& a,
           const std::array<int64_t, 2>& size_yx,
           int64_t channels,
           Random& random,
           float* image) {
  const auto [height, width] = size_yx;
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area =
        static_cast<double>(height * width) * random.uniform(a.erase_area[0], a.erase_area[1]);
    const double log_ratio = std::log(a.erase_ratio);
    const double ratio = std::exp(random.uniform(log_ratio, -log_ratio));
    const int64_t h = std::lround(std::sqrt(area * ratio)),
                  w = std::lround(std::sqrt(area / ratio));
    if (h < 1 || w < 1 || h >= height || w >= width) continue;
    const int64_t top = random.below(height - h + 1), left = random.below(width - w + 1);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = top; y < top + h; ++y)
        for (int64_t x = left; x < left + w; ++x)
          image[(c * height + y) * width + x] = static_cast<float>(random.normal());
    return;
  }
}

std::array<uint8_t, 3> fill_of(const PicturePreprocessing& preprocessing) {
  std::array<uint8_t, 3> fill{128, 128, 128};
  for (size_t c = 0; c < preprocessing.mean.size() && c < 3; ++c)
    fill[c] = byte(255 * preprocessing.mean[c]);
  return fill;
}

std::array<double, 2> range(ConfigTable& table,
                            const char* key,
                            const std::array<double, 2>& fallback,
                            double min,
                            double max) {
  const auto ends = table.numbers(key, {fallback[0], fallback[1]}, 2);
  if (!(min <= ends[0] && ends[0] <= ends[1] && ends[1] <= max))
    table.fail(key,
               "expected two numbers, the smaller first, between " + std::to_string(min) + " and " +
                   std::to_string(max));
  return {ends[0], ends[1]};
}

}  // namespace

const std::vector<std::string>& picture_change_names() {
  static const std::vector<std::string> names{"autocontrast",
                                              "equalize",
                                              "invert",
                                              "rotate",
                                              "posterize",
                                              "solarize",
                                              "solarize_add",
                                              "color",
                                              "contrast",
                                              "brightness",
                                              "sharpness",
                                              "shear_x",
                                              "shear_y",
                                              "translate_x",
                                              "translate_y"};
  return names;
}

void change_picture(at::Tensor& picture,
                    PictureChange change,
                    double level,
                    bool negative,
                    const std::array<uint8_t, 3>& fill,
                    PictureFilter filter) {
  const double sign = negative ? -1 : 1, factor = 1 + sign * 0.9 * level;
  const auto height = static_cast<double>(picture.size(0));
  const auto width = static_cast<double>(picture.size(1));
  const int64_t channels = picture.size(2);
  switch (change) {
    case PictureChange::kAutoContrast:
      return auto_contrast(picture);
    case PictureChange::kEqualize:
      return equalize(picture);
    case PictureChange::kInvert:
      return map_values(picture, [](int v) { return static_cast<uint8_t>(255 - v); });
    case PictureChange::kRotate: {
      const double angle = sign * level * 30 * std::numbers::pi / 180;
      const double c = std::cos(angle), s = std::sin(angle);
      return warp(picture, {c, s, -s, c}, 0, 0, fill, filter);
    }
    case PictureChange::kPosterize: {
      const int bits = 4 - static_cast<int>(4 * level);
      const int mask = bits <= 0 ? 0 : 0xff & ~((1 << (8 - bits)) - 1);
      return map_values(picture, [&](int v) { return static_cast<uint8_t>(v & mask); });
    }
    case PictureChange::kSolarize: {
      const int threshold = 256 - static_cast<int>(256 * level);
      return map_values(picture,
                        [&](int v) { return static_cast<uint8_t>(v < threshold ? v : 255 - v); });
    }
    case PictureChange::kSolarizeAdd: {
      const int added = static_cast<int>(110 * level);
      return map_values(picture, [&](int v) {
        return static_cast<uint8_t>(v < 128 ? std::min(255, v + added) : v);
      });
    }
    case PictureChange::kColor:
      return blend(picture, factor, [&](const uint8_t* from, int64_t y, int64_t x, int64_t) {
        return luminance(from + (y * static_cast<int64_t>(width) + x) * channels, channels);
      });
    case PictureChange::kContrast:
      return change_contrast(picture, factor);
    case PictureChange::kBrightness:
      return map_values(picture, [&](int v) { return byte(factor * v); });
    case PictureChange::kSharpness:
      return change_sharpness(picture, factor);
    case PictureChange::kShearX:
      return warp(picture, {1, 0, sign * level * 0.3, 1}, 0, 0, fill, filter);
    case PictureChange::kShearY:
      return warp(picture, {1, sign * level * 0.3, 0, 1}, 0, 0, fill, filter);
    case PictureChange::kTranslateX:
      return warp(picture, {1, 0, 0, 1}, 0, sign * level * 0.45 * width, fill, filter);
    case PictureChange::kTranslateY:
      return warp(picture, {1, 0, 0, 1}, sign * level * 0.45 * height, 0, fill, filter);
  }
}

PictureAugmentation PictureAugmentation::from_config(ConfigTable table) {
  PictureAugmentation a;
  a.crop = table.has("random_resized_crop");
  ConfigTable crop = table.table("random_resized_crop");
  a.crop_scale = range(crop, "scale", a.crop ? std::array{0.08, 1.0} : a.crop_scale, 0.001, 1);
  a.crop_ratio = range(crop, "ratio", a.crop ? std::array{0.75, 4.0 / 3} : a.crop_ratio, 0.01, 100);
  a.mirror_x = table.number("mirror_x", 0, 0, 1);
  a.mirror_y = table.number("mirror_y", 0, 0, 1);
  a.transpose = table.number("transpose", 0, 0, 1);
  ConfigTable changes = table.table("rand_augment");
  a.changes_per_picture = changes.integer("changes_per_picture", 0, 0, 100);
  a.change_probability = changes.number("probability", a.change_probability, 0, 1);
  a.magnitude = changes.number("magnitude", a.magnitude, 0, 10);
  a.magnitude_sd = changes.number("magnitude_sd", a.magnitude_sd, 0, 10);
  const auto& known = picture_change_names();
  for (const std::string& name : changes.texts("changes", known)) {
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) {
      std::string list;
      for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
      changes.fail("changes", "\"" + name + "\" is none of: " + list);
    }
    a.changes.push_back(static_cast<PictureChange>(found - known.begin()));
  }
  if (a.changes.empty()) changes.fail("changes", "is empty; changes_per_picture = 0 makes none");
  ConfigTable erasing = table.table("random_erasing");
  a.erase = erasing.number("probability", 0, 0, 1);
  a.erase_area = range(erasing, "area", a.erase_area, 0.001, 1);
  a.erase_ratio = erasing.number("ratio", a.erase_ratio, 0.01, 1);
  ConfigTable mixup = table.table("mixup");
  a.mixup_probability = mixup.number("probability", 0, 0, 1);
  a.mixup_alpha = mixup.number("alpha", a.mixup_alpha, 0.01, 4);
  ConfigTable cutmix = table.table("cutmix");
  a.cutmix_probability = cutmix.number("probability", 0, 0, 1);
  a.cutmix_alpha = cutmix.number("alpha", a.cutmix_alpha, 0.01, 4);
  if (a.mixup_probability + a.cutmix_probability > 1)
    table.fail("", "a batch has mixup or cutmix: their probabilities may sum up to 1 at most");
  return a;
}

void augment_picture(const PictureAugmentation& a,
                     const PicturePreprocessing& preprocessing,
                     const at::Tensor& picture,
                     Random& random,
                     float* out) {
  const int64_t height = picture.size(0), width = picture.size(1);
  const PictureBox box =
      a.crop ? random_crop(a, height, width, random) : preprocessing.box(height, width);
  at::Tensor cut = resized_picture(
      picture, box, preprocessing.size_yx[0], preprocessing.size_yx[1], preprocessing.filter);
  if (random.chance(a.mirror_x)) cut = cut.flip(1);
  if (random.chance(a.mirror_y)) cut = cut.flip(0);
  if (random.chance(a.transpose) && cut.size(0) == cut.size(1)) cut = cut.transpose(0, 1);
  cut = cut.contiguous();
  const auto fill = fill_of(preprocessing);
  for (int64_t i = 0; i < a.changes_per_picture; ++i) {
    const auto which = static_cast<size_t>(random.below(static_cast<int64_t>(a.changes.size())));
    const double level =
        std::clamp((a.magnitude + a.magnitude_sd * random.normal()) / 10, 0.0, 1.0);
    const bool negative = random.chance(0.5), applies = random.chance(a.change_probability);
    if (applies) change_picture(cut, a.changes[which], level, negative, fill, preprocessing.filter);
  }
  preprocessing.normalise(cut, out);
  if (random.chance(a.erase))
    erase(a, preprocessing.size_yx, preprocessing.channels(), random, out);
}

double symmetric_beta(double alpha, Random& random) {
  while (true) {
    const double x = std::pow(random.uniform(), 1 / alpha);
    const double y = std::pow(random.uniform(), 1 / alpha);
    if (x + y <= 1 && x + y > 0) return x / (x + y);
  }
}

void mix_batch(const PictureAugmentation& a,
               at::Tensor& images,
               at::Tensor& targets,
               Random& random) {
  const double choice = random.uniform();
  if (choice < a.mixup_probability) {
    const double share = symmetric_beta(a.mixup_alpha, random);
    images = images * share + images.flip(0) * (1 - share);
    targets = targets * share + targets.flip(0) * (1 - share);
  } else if (choice < a.mixup_probability + a.cutmix_probability) {
    const double share = symmetric_beta(a.cutmix_alpha, random);
    const int64_t height = images.size(2), width = images.size(3);
    const double side = std::sqrt(1 - share);
    const int64_t h = std::lround(static_cast<double>(height) * side);
    const int64_t w = std::lround(static_cast<double>(width) * side);
    // Around any pixel; what would lie outside is cut off, and the share follows what is left.
    const int64_t cy = random.below(height), cx = random.below(width);
    const int64_t top = std::max<int64_t>(0, cy - h / 2);
    const int64_t bottom = std::min(height, cy - h / 2 + h);
    const int64_t left = std::max<int64_t>(0, cx - w / 2), right = std::min(width, cx - w / 2 + w);
    if (bottom <= top || right <= left) return;
    const at::Tensor others = images.flip(0);
    images.slice(2, top, bottom)
        .slice(3, left, right)
        .copy_(others.slice(2, top, bottom).slice(3, left, right));
    const double kept = 1 - static_cast<double>((bottom - top) * (right - left)) /
                                static_cast<double>(height * width);
    targets = targets * kept + targets.flip(0) * (1 - kept);
  }
}

}  // namespace vireo
