#include "datasets/intensity.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace vireo {
namespace {

struct Moments {
  double mean = 0, sd = 0;
  float low = 0, high = 0;
};

Moments moments_of(const Planes& image) {
  double sum = 0, squares = 0;
  float low = image.planes[0][0], high = low;
  for (const float* plane : image.planes) {
    for (int64_t i = 0; i < image.pixels(); ++i) {
      const float x = plane[i];
      sum += x;
      squares += static_cast<double>(x) * x;
      low = std::min(low, x);
      high = std::max(high, x);
    }
  }
  const double count =
      static_cast<double>(image.pixels()) * static_cast<double>(image.planes.size());
  const double mean = sum / count;
  return {mean, std::sqrt(std::max(0.0, squares / count - mean * mean)), low, high};
}

}  // namespace

void add_noise(const Planes& image, double sd, Random& random) {
  constexpr float kTurn = 2 * std::numbers::pi_v<float>;
  for (float* plane : image.planes) {
    for (int64_t i = 0; i < image.pixels(); i += 2) {
      const auto u = static_cast<float>(1 - random.uniform());
      const float angle = kTurn * static_cast<float>(random.uniform());
      const float radius = static_cast<float>(sd) * std::sqrt(-2 * std::log(u));
      plane[i] += radius * std::cos(angle);
      if (i + 1 < image.pixels()) plane[i + 1] += radius * std::sin(angle);
    }
  }
}

void blur(const Planes& image, double sigma_pixels) {
  const auto reach = static_cast<int64_t>(std::ceil(3 * sigma_pixels));
  if (sigma_pixels <= 0 || reach < 1) return;
  std::vector<float> weights(static_cast<size_t>(2 * reach + 1));
  float sum = 0;
  for (int64_t k = -reach; k <= reach; ++k) {
    const double z = static_cast<double>(k) / sigma_pixels;
    sum += weights[static_cast<size_t>(k + reach)] = static_cast<float>(std::exp(-z * z / 2));
  }
  for (float& weight : weights) weight /= sum;

  const int64_t height = image.height, width = image.width;
  std::vector<float> padded(static_cast<size_t>(width + 2 * reach));
  std::vector<float> across(static_cast<size_t>(height * width));
  for (float* plane : image.planes) {
    for (int64_t y = 0; y < height; ++y) {
      float* row = plane + y * width;
      std::fill_n(padded.begin(), reach, row[0]);
      std::copy_n(row, width, padded.begin() + reach);
      std::fill_n(padded.begin() + reach + width, reach, row[width - 1]);
      float* out = across.data() + y * width;
      std::fill_n(out, width, 0.f);
      for (int64_t k = 0; k <= 2 * reach; ++k)
        for (int64_t x = 0; x < width; ++x)
          out[x] += weights[static_cast<size_t>(k)] * padded[static_cast<size_t>(x + k)];
    }
    for (int64_t y = 0; y < height; ++y) {
      float* out = plane + y * width;
      std::fill_n(out, width, 0.f);
      for (int64_t k = -reach; k <= reach; ++k) {
        const float* row = across.data() + std::clamp<int64_t>(y + k, 0, height - 1) * width;
        for (int64_t x = 0; x < width; ++x)
          out[x] += weights[static_cast<size_t>(k + reach)] * row[x];
      }
    }
  }
}

void scale_brightness(const Planes& image, double factor) {
  for (float* plane : image.planes)
    for (int64_t i = 0; i < image.pixels(); ++i) plane[i] *= static_cast<float>(factor);
}

void scale_contrast(const Planes& image, double factor) {
  const Moments before = moments_of(image);
  const auto f = static_cast<float>(factor), mean = static_cast<float>(before.mean);
  for (float* plane : image.planes)
    for (int64_t i = 0; i < image.pixels(); ++i)
      plane[i] = std::clamp((plane[i] - mean) * f + mean, before.low, before.high);
}

void lower_resolution(const Planes& image, double share) {
  const auto small_size = [&](int64_t size) {
    return std::max<int64_t>(1, std::llround(static_cast<double>(size) * share));
  };
  const int64_t height = small_size(image.height), width = small_size(image.width);
  if (height == image.height && width == image.width) return;

  // The small image's pixel i covers [i, i + 1) * size / small size of the large one.
  struct Tap {
    int64_t first, second;
    float weight;
  };
  const auto taps = [](int64_t size, int64_t small) {
    std::vector<Tap> result;
    for (int64_t i = 0; i < size; ++i) {
      const double at =
          (static_cast<double>(i) + 0.5) * static_cast<double>(small) / static_cast<double>(size) -
          0.5;
      const double inside = std::clamp(at, 0.0, static_cast<double>(small - 1));
      const auto first = static_cast<int64_t>(inside);
      result.push_back({first,
                        std::min(first + 1, small - 1),
                        static_cast<float>(inside - static_cast<double>(first))});
    }
    return result;
  };
  const auto source = [](int64_t i, int64_t small, int64_t size) {
    return std::min(size - 1, (2 * i + 1) * size / (2 * small));
  };
  const std::vector<Tap> rows = taps(image.height, height), columns = taps(image.width, width);
  std::vector<float> reduced(static_cast<size_t>(height * width));
  for (float* plane : image.planes) {
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        reduced[static_cast<size_t>(y * width + x)] =
            plane[source(y, height, image.height) * image.width + source(x, width, image.width)];
    for (int64_t y = 0; y < image.height; ++y) {
      const Tap& row = rows[static_cast<size_t>(y)];
      const float* a = reduced.data() + row.first * width;
      const float* b = reduced.data() + row.second * width;
      for (int64_t x = 0; x < image.width; ++x) {
        const Tap& column = columns[static_cast<size_t>(x)];
        const float upper = a[column.first] + column.weight * (a[column.second] - a[column.first]);
        const float lower = b[column.first] + column.weight * (b[column.second] - b[column.first]);
        plane[y * image.width + x] = upper + row.weight * (lower - upper);
      }
    }
  }
}

void apply_gamma(const Planes& image, double exponent) {
  const Moments before = moments_of(image);
  const float range = before.high - before.low;
  if (!(range > 1e-7f)) return;
  const auto power = static_cast<float>(exponent);
  for (float* plane : image.planes)
    for (int64_t i = 0; i < image.pixels(); ++i)
      plane[i] = std::pow((plane[i] - before.low) / range, power);
  const Moments after = moments_of(image);
  const double gain = before.sd / std::max(after.sd, 1e-7);
  for (float* plane : image.planes)
    for (int64_t i = 0; i < image.pixels(); ++i)
      plane[i] = static_cast<float>((plane[i] - after.mean) * gain + before.mean);
}

}  // namespace vireo
