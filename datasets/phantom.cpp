#include "datasets/phantom.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/empty.h>
#include <nlohmann/json.hpp>

#include "datasets/phantom_anatomy.h"

namespace vireo {
namespace {

constexpr std::array<int64_t, 3> kSamplesZyx{3, 2, 2};  // per voxel, for partial volume
constexpr double kTrunkShare = 0.9;                     // of the picture's width
constexpr double kCoverageMm = 152;                     // from the lungs' bases to the kidneys

constexpr size_t kOutermost = 4;  // of the samples
constexpr double kUniformHu = 25;
constexpr double kMinHu = -1024, kMaxHu = 3071;

enum Stream : uint64_t { kAnatomyStream = 1, kGridStream = 2, kNoiseStream = 3 };

uint64_t stream_of(int64_t index, Stream stream) {
  return static_cast<uint64_t>(index) * 8 + stream;
}

Matrix3 product(const Matrix3& a, const Matrix3& b) {
  Matrix3 c{};
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j)
      for (size_t k = 0; k < 3; ++k) c[i][j] += a[i][k] * b[k][j];
  return c;
}

Matrix3 rotation(size_t axis, double degrees) {
  const double angle = degrees * std::numbers::pi / 180;
  const size_t u = (axis + 1) % 3, v = (axis + 2) % 3;
  Matrix3 turn{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
  turn[u][u] = turn[v][v] = std::cos(angle);
  turn[u][v] = -std::sin(angle);
  turn[v][u] = std::sin(angle);
  return turn;
}

Geometry random_grid(PhantomRandom& random, const PhantomOptions& options, double half_width_mm) {
  Geometry grid;
  grid.size_zyx = options.size_zyx;
  if (grid.size_zyx[0] > 8) grid.size_zyx[0] += static_cast<int64_t>(random.next() % 5) - 2;
  const double field_mm = 2 * half_width_mm / kTrunkShare * random.between(0.97, 1.06);
  const auto shorter = static_cast<double>(std::min(grid.size_zyx[1], grid.size_zyx[2]));
  // Scanners state spacings with few digits.
  const auto tidy = [](double mm) { return std::max(0.01, std::round(mm * 100) / 100); };
  grid.spacing_mm_zyx = {
      tidy(kCoverageMm * random.between(0.94, 1.1) / static_cast<double>(grid.size_zyx[0])),
      tidy(field_mm / shorter),
      tidy(field_mm / shorter)};
  if (options.spacing_mm_zyx) grid.spacing_mm_zyx = *options.spacing_mm_zyx;

  if (random.chance(0.5))
    for (size_t axis = 0; axis < 3; ++axis)
      grid.direction_lps_from_zyx =
          product(rotation(axis, random.between(-6, 6)), grid.direction_lps_from_zyx);
  if (random.chance(1.0 / 3)) {
    const bool feet_first = random.chance(0.5);
    for (size_t column = feet_first ? 0 : 1; column < 3; ++column)
      for (auto& row : grid.direction_lps_from_zyx) row[column] = -row[column];
  }
  // The grid's middle lies near the anatomy's, and the anatomy anywhere in the scanner.
  const Vector3 middle{
      (static_cast<double>(grid.size_zyx[0]) - 1) / 2,
      (static_cast<double>(grid.size_zyx[1]) - 1) / 2,
      (static_cast<double>(grid.size_zyx[2]) - 1) / 2,
  };
  grid.origin_lps_mm = {0, 0, 0};
  const Vector3 offset = grid.lps_from_voxel(middle);
  const Vector3 center{random.between(-6, 6), random.between(-2, 8), random.between(-10, 4)};
  grid.origin_lps_mm = center - offset;
  return grid;
}

// White noise made slightly smooth within slices, as a reconstruction kernel does, at unit
// variance.
std::vector<double> correlated_noise(PhantomRandom random, const Geometry& grid) {
  const auto [depth, height, width] = grid.size_zyx;
  std::vector<double> noise(static_cast<size_t>(grid.voxel_count()));
  for (double& value : noise) value = random.normal();
  const double side = 0.42, gain = 1 / (1 + 2 * side * side);
  const auto smooth = [&](int64_t lines, int64_t length, auto index) {
    std::vector<double> line(static_cast<size_t>(length));
    for (int64_t l = 0; l < lines; ++l) {
      for (int64_t i = 0; i < length; ++i) line[static_cast<size_t>(i)] = noise[index(l, i)];
      for (int64_t i = 0; i < length; ++i) {
        const double before = line[static_cast<size_t>(i == 0 ? i : i - 1)];
        const double after = line[static_cast<size_t>(i + 1 == length ? i : i + 1)];
        noise[index(l, i)] =
            std::sqrt(gain) * (line[static_cast<size_t>(i)] + side * (before + after));
      }
    }
  };
  smooth(depth * height, width, [w = width](int64_t l, int64_t i) {
    return static_cast<size_t>(l * w + i);
  });
  smooth(depth * width, height, [w = width, h = height](int64_t l, int64_t i) {
    return static_cast<size_t>((l / w * h + i) * w + l % w);
  });
  return noise;
}

struct Sampled {
  double hu;
  uint8_t label;
};

// The mean and the commonest label of a voxel's volume. Where its outermost points agree, they
// speak for the rest.
Sampled sample_voxel(const PhantomAnatomy& anatomy,
                     const Vector3& center_lps,
                     const std::vector<Vector3>& offsets) {
  const Vector3 base = center_lps + anatomy.displacement(center_lps);
  const PhantomAnatomy::Texture texture = anatomy.texture(base);
  double sum = 0, low = kMaxHu, high = kMinHu;
  std::array<int, kPhantomLabelNames.size()> votes{};
  size_t count = 0;
  for (const Vector3& offset : offsets) {
    const PhantomAnatomy::Tissue tissue = anatomy.at(base + offset, texture);
    sum += tissue.hu;
    low = std::min(low, tissue.hu);
    high = std::max(high, tissue.hu);
    ++votes[tissue.label];
    ++count;
    const bool agree = votes[tissue.label] == static_cast<int>(count) && high - low < kUniformHu;
    if (count == kOutermost && agree) break;
  }
  const auto winner = std::max_element(votes.begin(), votes.end()) - votes.begin();
  return {sum / static_cast<double>(count), static_cast<uint8_t>(winner)};
}

// Where a voxel is sampled, four far corners first.
std::vector<Vector3> sample_offsets(const Geometry& grid) {
  std::vector<Vector3> corners, others;
  Geometry at_origin = grid;
  at_origin.origin_lps_mm = {0, 0, 0};
  const auto share = [](int64_t i, size_t axis) {
    return (static_cast<double>(i) + 0.5) / static_cast<double>(kSamplesZyx[axis]) - 0.5;
  };
  for (int64_t z = 0; z < kSamplesZyx[0]; ++z)
    for (int64_t y = 0; y < kSamplesZyx[1]; ++y)
      for (int64_t x = 0; x < kSamplesZyx[2]; ++x) {
        const bool corner = z != 1 && (z / 2 + y + x) % 2 == 0;
        (corner ? corners : others)
            .push_back(at_origin.lps_from_voxel({share(z, 0), share(y, 1), share(x, 2)}));
      }
  corners.insert(corners.end(), others.begin(), others.end());
  return corners;
}

}  // namespace

nlohmann::json PhantomOptions::to_json() const {
  nlohmann::json json{{"seed", seed}, {"size_zyx", size_zyx}, {"noise_hu", noise_hu}};
  json["spacing_mm_zyx"] = nullptr;
  if (spacing_mm_zyx) json["spacing_mm_zyx"] = *spacing_mm_zyx;
  return json;
}

std::vector<std::string> phantom_label_names() {
  return {kPhantomLabelNames.begin(), kPhantomLabelNames.end()};
}

PhantomCase make_phantom(int64_t index, const PhantomOptions& options) {
  const PhantomAnatomy anatomy(PhantomRandom(options.seed, stream_of(index, kAnatomyStream)));
  PhantomRandom random(options.seed, stream_of(index, kGridStream));
  const Geometry grid = random_grid(random, options, anatomy.half_width_mm());
  const double noise_sd = options.noise_hu * random.between(0.75, 1.25);
  const std::vector<double> noise =
      correlated_noise(PhantomRandom(options.seed, stream_of(index, kNoiseStream)), grid);

  const auto [depth, height, width] = grid.size_zyx;
  const at::Tensor image = at::empty({1, depth, height, width}, at::kShort);
  const at::Tensor labels = at::empty({1, depth, height, width}, at::kByte);
  auto* hu = image.data_ptr<int16_t>();
  auto* label = labels.data_ptr<uint8_t>();
  const std::vector<Vector3> offsets = sample_offsets(grid);
  for (int64_t z = 0, voxel = 0; z < depth; ++z)
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x, ++voxel) {
        const Vector3 at{static_cast<double>(z), static_cast<double>(y), static_cast<double>(x)};
        const Sampled sampled = sample_voxel(anatomy, grid.lps_from_voxel(at), offsets);
        const double noisy = sampled.hu + noise_sd * noise[static_cast<size_t>(voxel)];
        hu[voxel] = static_cast<int16_t>(std::lround(std::clamp(noisy, kMinHu, kMaxHu)));
        label[voxel] = sampled.label;
      }
  return {{image, grid}, {labels, grid}};
}

}  // namespace vireo
