#include "datasets/augmentation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>
#include <utility>

#include "datasets/intensity.h"

namespace vireo {
namespace {

constexpr uint8_t kBeyond = 255;

std::optional<double> draw(const RandomRange& range, Random& random) {
  // Both numbers are always taken, so that switching one change off does not reshuffle the rest.
  const bool applies = random.chance(range.probability);
  const double value = random.uniform(range.low, range.high);
  return applies ? std::optional(value) : std::nullopt;
}

// A smooth random displacement: normal control points, cubic B-splines between them.
class Displacement {
 public:
  Displacement(int64_t height, int64_t width, double spacing, double sd, Random& random)
      : spacing_(spacing),
        columns_(static_cast<int64_t>(std::ceil(static_cast<double>(width) / spacing)) + 4) {
    const auto rows = static_cast<int64_t>(std::ceil(static_cast<double>(height) / spacing)) + 4;
    for (auto& points : points_) {
      points.resize(static_cast<size_t>(rows * columns_));
      for (float& point : points) point = static_cast<float>(sd * random.normal());
    }
    for (int64_t x = 0; x < width; ++x) across_.push_back(tap(x));
  }

  // Displacement along y (0) or x (1) of the pixels of row y.
  void row(int axis, int64_t y, std::vector<float>& out) const {
    const Tap down = tap(y);
    std::vector<float> line(static_cast<size_t>(columns_), 0.f);
    for (int k = 0; k < 4; ++k) {
      const float* points = points_[static_cast<size_t>(axis)].data() + (down.first + k) * columns_;
      for (size_t c = 0; c < line.size(); ++c)
        line[c] += down.weights[static_cast<size_t>(k)] * points[c];
    }
    for (size_t x = 0; x < across_.size(); ++x) {
      const float* from = line.data() + across_[x].first;
      const auto& w = across_[x].weights;
      out[x] = w[0] * from[0] + w[1] * from[1] + w[2] * from[2] + w[3] * from[3];
    }
  }

 private:
  struct Tap {
    int64_t first;
    std::array<float, 4> weights;
  };

  Tap tap(int64_t pixel) const {
    const double at = static_cast<double>(pixel) / spacing_;
    const auto first = static_cast<int64_t>(at);
    const auto t = static_cast<float>(at - static_cast<double>(first)), u = 1 - t;
    return {first,
            {u * u * u / 6,
             (3 * t * t * t - 6 * t * t + 4) / 6,
             (3 * u * u * u - 6 * u * u + 4) / 6,
             t * t * t / 6}};
  }

  double spacing_;
  int64_t columns_;
  std::array<std::vector<float>, 2> points_;
  std::vector<Tap> across_;
};

// Slice coordinates of the window's pixels: centre + linear * (pixel - window centre).
struct Sampling {
  double centre_y = 0, centre_x = 0;
  double yy = 1, yx = 0, xy = 0, xx = 1;
  std::optional<Displacement> elastic;
};

Sampling draw_sampling(const Augmentation& augmentation,
                       const SliceView& slice,
                       const SliceWindow& window,
                       Random& random) {
  const double sign_y = random.chance(augmentation.mirror_y) ? -1 : 1;
  const double sign_x = random.chance(augmentation.mirror_x) ? -1 : 1;
  const double angle =
      draw(augmentation.rotation_degrees, random).value_or(0) * std::numbers::pi / 180;
  const double step = 1 / draw(augmentation.scaling, random).value_or(1);
  double cosine = std::cos(angle) * step, sine = std::sin(angle) * step;
  const bool turns = random.chance(augmentation.quarter_turns);
  for (int64_t quarters = random.below(4); turns && quarters > 0; --quarters)
    cosine = -std::exchange(sine, cosine);

  Sampling sampling;
  sampling.yy = cosine * sign_y;
  sampling.yx = -sine * sign_x / slice.pixel_aspect;
  sampling.xy = sine * sign_y * slice.pixel_aspect;
  sampling.xx = cosine * sign_x;
  sampling.centre_y = static_cast<double>(window.top) + static_cast<double>(window.height - 1) / 2 +
                      draw(augmentation.translation_pixels, random).value_or(0);
  sampling.centre_x = static_cast<double>(window.left) + static_cast<double>(window.width - 1) / 2 +
                      draw(augmentation.translation_pixels, random).value_or(0);
  if (const auto sd = draw(augmentation.elastic_pixels, random); sd && *sd > 0)
    sampling.elastic.emplace(
        window.height, window.width, augmentation.elastic_spacing, *sd, random);
  return sampling;
}

// Where one output pixel looks: the upper left of four slice pixels and its distance from it.
struct Look {
  int32_t y, x;
  float down, right;
};

float sample(const float* plane, const Look& look, int64_t height, int64_t width) {
  const auto at = [&](int64_t y, int64_t x) {
    return y >= 0 && y < height && x >= 0 && x < width ? plane[y * width + x] : 0.f;
  };
  const float upper = (1 - look.right) * at(look.y, look.x) + look.right * at(look.y, look.x + 1);
  const float lower =
      (1 - look.right) * at(look.y + 1, look.x) + look.right * at(look.y + 1, look.x + 1);
  return (1 - look.down) * upper + look.down * lower;
}

// Labels of pixels beyond the slice are set afterwards: here the nearest one inside serves.
uint8_t label_at(const uint8_t* labels, int64_t y, int64_t x, int64_t height, int64_t width) {
  return labels[std::clamp<int64_t>(y, 0, height - 1) * width +
                std::clamp<int64_t>(x, 0, width - 1)];
}

uint8_t nearest_label(const uint8_t* labels, const Look& look, int64_t height, int64_t width) {
  return label_at(
      labels, look.y + (look.down >= 0.5f), look.x + (look.right >= 0.5f), height, width);
}

uint8_t heaviest_label(const uint8_t* labels, const Look& look, int64_t height, int64_t width) {
  const auto at = [&](int64_t y, int64_t x) { return label_at(labels, y, x, height, width); };
  const std::array<uint8_t, 4> label{at(look.y, look.x),
                                     at(look.y, look.x + 1),
                                     at(look.y + 1, look.x),
                                     at(look.y + 1, look.x + 1)};
  if (label[0] == label[1] && label[0] == label[2] && label[0] == label[3]) return label[0];
  const std::array<float, 4> weight{(1 - look.down) * (1 - look.right),
                                    (1 - look.down) * look.right,
                                    look.down * (1 - look.right),
                                    look.down * look.right};
  uint8_t best = label[0];
  float best_weight = -1;
  for (size_t i = 0; i < 4; ++i) {
    float sum = 0;
    for (size_t j = 0; j < 4; ++j)
      if (label[j] == label[i]) sum += weight[j];
    if (sum > best_weight) {
      best_weight = sum;
      best = label[i];
    }
  }
  return best;
}

// Fills image and labels; `beyond` tells the window's pixels that lie outside the slice.
void resample(const Sampling& sampling,
              bool smooth_labels,
              const SliceView& slice,
              const SliceWindow& window,
              float* image,
              uint8_t* labels,
              std::vector<int64_t>& beyond) {
  const int64_t height = slice.height, width = slice.width;
  std::vector<Look> looks(static_cast<size_t>(window.width));
  std::vector<float> move_y(looks.size(), 0.f), move_x(looks.size(), 0.f);
  for (int64_t i = 0; i < window.height; ++i) {
    if (sampling.elastic) {
      sampling.elastic->row(0, i, move_y);
      sampling.elastic->row(1, i, move_x);
    }
    const double v = static_cast<double>(i) - static_cast<double>(window.height - 1) / 2;
    for (int64_t j = 0; j < window.width; ++j) {
      const auto p = static_cast<size_t>(j);
      const double u = static_cast<double>(j) - static_cast<double>(window.width - 1) / 2;
      const double y = sampling.centre_y + sampling.yy * v + sampling.yx * u + move_y[p];
      const double x = sampling.centre_x + sampling.xy * v + sampling.xx * u + move_x[p];
      // Half a pixel beyond the outermost centres is still the slice.
      if (y < -0.5 || x < -0.5 || y >= static_cast<double>(height) - 0.5 ||
          x >= static_cast<double>(width) - 0.5)
        beyond.push_back(i * window.width + j);
      const double floor_y = std::floor(y), floor_x = std::floor(x);
      looks[p] = {static_cast<int32_t>(std::clamp(floor_y, -2.0, static_cast<double>(height))),
                  static_cast<int32_t>(std::clamp(floor_x, -2.0, static_cast<double>(width))),
                  static_cast<float>(y - floor_y),
                  static_cast<float>(x - floor_x)};
    }
    for (size_t plane = 0; plane < slice.planes.size(); ++plane) {
      const float* from = slice.planes[plane];
      float* to = image + (static_cast<int64_t>(plane) * window.height + i) * window.width;
      for (int64_t j = 0; j < window.width; ++j) {
        const Look& look = looks[static_cast<size_t>(j)];
        if (look.y >= 0 && look.y + 1 < height && look.x >= 0 && look.x + 1 < width) {
          const float* p = from + look.y * width + look.x;
          const float upper = (1 - look.right) * p[0] + look.right * p[1];
          const float lower = (1 - look.right) * p[width] + look.right * p[width + 1];
          to[j] = (1 - look.down) * upper + look.down * lower;
        } else {
          to[j] = sample(from, look, height, width);
        }
      }
    }
    if (labels == nullptr) continue;
    uint8_t* to = labels + i * window.width;
    for (int64_t j = 0; j < window.width; ++j) {
      const Look& look = looks[static_cast<size_t>(j)];
      to[j] = smooth_labels ? heaviest_label(slice.labels, look, height, width)
                            : nearest_label(slice.labels, look, height, width);
    }
  }
}

void change_intensities(const Augmentation& augmentation, const Planes& image, Random& random) {
  if (const auto sd = draw(augmentation.noise_sd, random)) add_noise(image, *sd, random);
  if (const auto sigma = draw(augmentation.blur_sigma_pixels, random)) blur(image, *sigma);
  if (const auto factor = draw(augmentation.brightness, random)) scale_brightness(image, *factor);
  if (const auto factor = draw(augmentation.contrast, random)) scale_contrast(image, *factor);
  if (const auto share = draw(augmentation.low_resolution, random)) lower_resolution(image, *share);
  if (const auto exponent = draw(augmentation.gamma, random)) apply_gamma(image, *exponent);
}

RandomRange read_range(
    ConfigTable& parent, const std::string& key, double neutral, double min, double max) {
  ConfigTable table = parent.table(key);
  RandomRange range;
  range.probability = table.number("probability", 0, 0, 1);
  const std::vector<double> ends = table.numbers("range", {neutral, neutral}, 2);
  range.low = ends[0];
  range.high = ends[1];
  if (!(min <= range.low && range.low <= range.high && range.high <= max))
    table.fail(
        "range",
        "expected two numbers, the smaller first, within the sensible limits of this change");
  return range;
}

}  // namespace

Augmentation Augmentation::from_config(ConfigTable table) {
  Augmentation a;
  a.mirror_y = table.number("mirror_y", 0, 0, 1);
  a.mirror_x = table.number("mirror_x", 0, 0, 1);
  a.quarter_turns = table.number("quarter_turns", 0, 0, 1);
  a.rotation_degrees = read_range(table, "rotation_degrees", 0, -180, 180);
  a.scaling = read_range(table, "scaling", 1, 0.1, 10);
  a.translation_pixels = read_range(table, "translation_pixels", 0, -4096, 4096);
  a.elastic_pixels = read_range(table, "elastic_pixels", 0, 0, 1000);
  a.elastic_spacing = table.number("elastic_spacing", a.elastic_spacing, 2, 4096);
  a.noise_sd = read_range(table, "noise_sd", 0, 0, 1000);
  a.blur_sigma_pixels = read_range(table, "blur_sigma_pixels", 0, 0, 100);
  a.brightness = read_range(table, "brightness", 1, 0, 100);
  a.contrast = read_range(table, "contrast", 1, 0, 100);
  a.low_resolution = read_range(table, "low_resolution", 1, 0.05, 1);
  a.gamma = read_range(table, "gamma", 1, 0.05, 20);
  a.smooth_labels = table.boolean("smooth_labels", a.smooth_labels);
  return a;
}

void cut_and_augment(const Augmentation& augmentation,
                     const SliceView& slice,
                     const SliceWindow& window,
                     Random& random,
                     float* image,
                     uint8_t* labels) {
  const Sampling sampling = draw_sampling(augmentation, slice, window, random);
  std::vector<int64_t> beyond;
  resample(sampling, augmentation.smooth_labels, slice, window, image, labels, beyond);

  const int64_t pixels = window.height * window.width;
  for (int64_t channel = 0; channel < slice.channels; ++channel) {
    Planes planes{{}, window.height, window.width};
    for (auto p = static_cast<size_t>(channel); p < slice.planes.size();
         p += static_cast<size_t>(slice.channels))
      planes.planes.push_back(image + static_cast<int64_t>(p) * pixels);
    change_intensities(augmentation, planes, random);
    // What lies beyond the slice stays what inference pads with.
    for (float* plane : planes.planes)
      for (const int64_t i : beyond) plane[i] = 0;
  }
  if (labels != nullptr)
    for (const int64_t i : beyond) labels[i] = kBeyond;
}

}  // namespace vireo
