#include "datasets/phantom_pictures.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>

#include <ATen/ops/empty.h>

#include "datasets/phantom_random.h"

namespace vireo {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr int64_t kSide = kPhantomPictureSide;
constexpr size_t kPixels = kSide * kSide;
constexpr int64_t kPicturesPerPatient = 2;

enum Label : int64_t { kRegular, kIrregular, kGlobules, kStreaks, kLabels };
// Apart from those of the abdomens.
enum PictureStream : uint64_t { kLesionStream = 5, kSkinStream = 6, kCameraStream = 7 };

using Field = std::vector<double>;  // [kSide, kSide]

template <typename Function>
Field field_of(const Function& value) {
  Field field(kPixels);
  for (int64_t y = 0; y < kSide; ++y)
    for (int64_t x = 0; x < kSide; ++x)
      field[static_cast<size_t>(y * kSide + x)] =
          value(static_cast<double>(x), static_cast<double>(y));
  return field;
}

double smooth_step(double from, double to, double value) {
  const double t = std::clamp((value - from) / (to - from), 0.0, 1.0);
  return t * t * (3 - 2 * t);
}

// Smooth random values, `cell_px` from one independent value to the next.
Field blotches(PhantomRandom& random, double cell_px) {
  const auto nodes = static_cast<int64_t>(static_cast<double>(kSide) / cell_px) + 3;
  Field lattice(static_cast<size_t>(nodes * nodes));
  for (double& value : lattice) value = random.normal();
  const double dx = random.uniform(), dy = random.uniform();
  return field_of([&](double x, double y) {
    const double u = x / cell_px + dx, v = y / cell_px + dy;
    const auto i = static_cast<int64_t>(u), j = static_cast<int64_t>(v);
    const double a = smooth_step(0, 1, u - static_cast<double>(i));
    const double b = smooth_step(0, 1, v - static_cast<double>(j));
    const auto at = [&](int64_t row, int64_t column) {
      return lattice[static_cast<size_t>(row * nodes + column)];
    };
    return (1 - b) * ((1 - a) * at(j, i) + a * at(j, i + 1)) +
           b * ((1 - a) * at(j + 1, i) + a * at(j + 1, i + 1));
  });
}

// The share of `members` with a smaller value, for each of them.
std::vector<double> ranks(const Field& values, const std::vector<size_t>& members) {
  std::vector<size_t> order(members.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return values[members[a]] < values[members[b]];
  });
  std::vector<double> rank(members.size());
  for (size_t i = 0; i < order.size(); ++i)
    rank[order[i]] = (static_cast<double>(i) + 0.5) / static_cast<double>(order.size());
  return rank;
}

// A closed curve around a centre: an ellipse with waves.
struct Border {
  struct Wave {
    double turns, height, phase;
  };
  double x, y, radius_px, flatness, turn;
  std::vector<Wave> waves;

  // Distance from the centre as a share of the border's in that direction, and the direction.
  std::pair<double, double> place(double px, double py) const {
    const double dx = px - x, dy = py - y, c = std::cos(turn), s = std::sin(turn);
    const double u = (c * dx + s * dy) * std::sqrt(flatness);
    const double v = (c * dy - s * dx) / std::sqrt(flatness);
    const double angle = std::atan2(v, u);
    double reach = 1;
    for (const Wave& wave : waves) reach += wave.height * std::cos(wave.turns * angle + wave.phase);
    return {std::hypot(u, v) / (radius_px * std::max(reach, 0.2)), angle};
  }
};

Border random_border(PhantomRandom& random, Label label) {
  Border border{};
  border.radius_px = random.between(13, 21);
  const double room = 0.5 * kSide - border.radius_px;
  border.x = 0.5 * (kSide - 1) + room * random.between(-0.5, 0.5);
  border.y = 0.5 * (kSide - 1) + room * random.between(-0.5, 0.5);
  border.flatness = random.between(0.72, 1);
  border.turn = random.between(0, kPi);
  const bool ragged = label == kIrregular;
  const int last = ragged ? 8 : 3;
  double squares = 0;
  for (int turns = 2; turns <= last; ++turns) {
    border.waves.push_back(
        {static_cast<double>(turns), random.between(0.4, 1), random.between(0, 2 * kPi)});
    squares += border.waves.back().height * border.waves.back().height;
  }
  const double height = ragged ? random.between(0.22, 0.32) : random.between(0.02, 0.06);
  for (Border::Wave& wave : border.waves) wave.height *= height / std::sqrt(squares);
  return border;
}

// Dark dots on a shaken hexagonal grid.
Field dots(PhantomRandom& random) {
  const double spacing = random.between(5.2, 7), radius = spacing * random.between(0.24, 0.31);
  std::vector<std::array<double, 2>> centers;
  const double dx = random.uniform() * spacing, dy = random.uniform() * spacing;
  int row = 0;
  for (double y = -dy; y < kSide + spacing; y += spacing * 0.866, ++row)
    for (double x = -dx - (row % 2) * spacing / 2; x < kSide + spacing; x += spacing)
      centers.push_back(
          {x + spacing * random.between(-0.16, 0.16), y + spacing * random.between(-0.16, 0.16)});
  return field_of([&](double x, double y) {
    double nearest = spacing * spacing;
    for (const auto& [cx, cy] : centers)
      nearest = std::min(nearest, (x - cx) * (x - cx) + (y - cy) * (y - cy));
    return std::exp(-nearest / (2 * radius * radius));
  });
}

struct Lesion {
  Field cover;    // 0..1, how much of a pixel is lesion
  Field pigment;  // 0..1 within the lesion, spread evenly
};

Lesion draw_lesion(PhantomRandom& random, Label label) {
  const Border border = random_border(random, label);
  const double area = kPi * border.radius_px * border.radius_px / static_cast<double>(kPixels);
  const double softness = random.between(0.012, 0.03);  // of the picture's area
  const Field large = blotches(random, random.between(7, 11)),
              small = blotches(random, random.between(3, 4));
  const double rays = std::round(2 * kPi * border.radius_px * 0.8 / random.between(5, 6.5));
  const double ray_phase = random.between(0, 2 * kPi);
  const Field globules = label == kGlobules ? dots(random) : Field();

  Field distance(kPixels), texture(kPixels);
  for (size_t i = 0; i < kPixels; ++i) {
    auto [reach, angle] =
        border.place(static_cast<double>(i % kSide), static_cast<double>(i / kSide));
    const double mottled = large[i] + 0.35 * small[i];
    texture[i] = mottled;
    if (label == kGlobules) texture[i] = 3.5 * globules[i] + 0.35 * mottled;
    if (label == kStreaks) {
      const double ray = std::cos(rays * angle + ray_phase + 0.25 * large[i]);
      const double outer = smooth_step(0.25, 0.55, reach);
      texture[i] = outer * (1.8 * ray + 0.35 * mottled) + (1 - outer) * mottled;
      reach -= 0.1 * outer * ray;
    }
    distance[i] = reach;
  }
  // By rank, so that no class has more lesion or darker pixels than another.
  std::vector<size_t> all(kPixels), inside;
  std::iota(all.begin(), all.end(), size_t{0});
  const std::vector<double> rank = ranks(distance, all);
  Lesion lesion{Field(kPixels), Field(kPixels, 0.5)};
  for (size_t i = 0; i < kPixels; ++i) {
    lesion.cover[i] = 1 / (1 + std::exp((rank[i] - area) / (0.3 * softness)));
    if (rank[i] < area + softness) inside.push_back(i);
  }
  const std::vector<double> shade = ranks(texture, inside);
  for (size_t i = 0; i < inside.size(); ++i) lesion.pigment[inside[i]] = shade[i];
  return lesion;
}

// Thin dark arcs, as darkness to add.
Field draw_hairs(PhantomRandom& random) {
  struct Hair {
    double x, y, radius, width, strength;
  };
  std::vector<Hair> hairs;
  if (random.chance(0.3))
    for (int64_t left = 1 + static_cast<int64_t>(random.next() % 3); left > 0; --left) {
      const double radius = random.between(40, 160), angle = random.between(0, 2 * kPi);
      const double away = radius + random.between(-24, 24);
      hairs.push_back({0.5 * kSide + away * std::cos(angle),
                       0.5 * kSide + away * std::sin(angle),
                       radius,
                       random.between(0.4, 0.7),
                       random.between(0.5, 1)});
    }
  return field_of([&](double x, double y) {
    double darkness = 0;
    for (const Hair& hair : hairs) {
      const double off = (std::hypot(x - hair.x, y - hair.y) - hair.radius) / hair.width;
      darkness += hair.strength * std::exp(-off * off / 2);
    }
    return darkness;
  });
}

Field blurred(const Field& field, double sigma_px) {
  if (sigma_px < 0.2) return field;
  std::array<double, 7> weights{};
  for (int k = -3; k <= 3; ++k)
    weights[static_cast<size_t>(k + 3)] = std::exp(-k * k / (2 * sigma_px * sigma_px));
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  Field from = field, to(kPixels);
  for (const bool across : {true, false}) {
    for (int64_t y = 0; y < kSide; ++y)
      for (int64_t x = 0; x < kSide; ++x) {
        double value = 0;
        for (int64_t k = -3; k <= 3; ++k) {
          const int64_t at = std::clamp<int64_t>((across ? x : y) + k, 0, kSide - 1);
          value += weights[static_cast<size_t>(k + 3)] *
                   from[static_cast<size_t>(across ? y * kSide + at : at * kSide + x)];
        }
        to[static_cast<size_t>(y * kSide + x)] = value / sum;
      }
    std::swap(from, to);
  }
  return from;
}

}  // namespace

const std::vector<std::string>& phantom_picture_classes() {
  static const std::vector<std::string> names{"regular", "irregular", "globules", "streaks"};
  return names;
}

PhantomPicture make_phantom_picture(int64_t index, uint64_t seed) {
  PhantomPicture made;
  made.patient = index / kPicturesPerPatient;
  const int64_t of_ten = made.patient % 10;
  made.part = of_ten < 7 ? Part::kTrain : of_ten == 7 ? Part::kVal : Part::kTest;
  const auto stream = [](int64_t number, PictureStream which) {
    return static_cast<uint64_t>(number) * 8 + which;
  };
  PhantomRandom lesion_random(seed, stream(index, kLesionStream));
  PhantomRandom skin_random(seed, stream(made.patient, kSkinStream));
  PhantomRandom camera(seed, stream(index, kCameraStream));
  made.label = static_cast<int64_t>(lesion_random.next() % kLabels);
  const Lesion lesion = draw_lesion(lesion_random, static_cast<Label>(made.label));

  const double tan = skin_random.uniform();
  const std::array<double, 3> skin{238 - 55 * tan, 205 - 68 * tan, 186 - 78 * tan};
  const double dark = camera.between(0.45, 0.85), contrast = camera.between(0.45, 0.75);
  const std::array<double, 3> absorption{
      camera.between(0.65, 0.85), camera.between(0.95, 1.1), camera.between(1.05, 1.25)};
  const Field pores = blotches(camera, 2.5), hairs = draw_hairs(camera);
  const double light = camera.between(0.78, 1.06), slope = camera.between(0, 0.16),
               slope_angle = camera.between(0, 2 * kPi);
  const double blur = camera.between(0, 0.7), noise = camera.between(1.5, 6);
  const std::array<double, 3> tint{
      camera.between(0.96, 1.04), camera.between(0.96, 1.04), camera.between(0.96, 1.04)};

  made.pixels = at::empty({kSide, kSide, 3}, at::kByte);
  auto* pixels = made.pixels.mutable_data_ptr<uint8_t>();
  for (size_t c = 0; c < 3; ++c) {
    const Field plane = blurred(
        [&] {
          Field values(kPixels);
          for (size_t i = 0; i < kPixels; ++i) {
            const double pigment = dark * (1 + contrast * (2 * lesion.pigment[i] - 1));
            const double darkness = lesion.cover[i] * pigment + 0.025 * pores[i] + 0.6 * hairs[i];
            values[i] = skin[c] * std::exp(-absorption[c] * darkness);
          }
          return values;
        }(),
        blur);
    for (size_t i = 0; i < kPixels; ++i) {
      const double x = static_cast<double>(i % kSide) / kSide - 0.5,
                   y = static_cast<double>(i / kSide) / kSide - 0.5;
      const double lit =
          light * tint[c] * (1 + slope * (x * std::cos(slope_angle) + y * std::sin(slope_angle)));
      const double value = plane[i] * lit + noise * camera.normal();
      pixels[3 * i + c] = static_cast<uint8_t>(std::clamp(std::lround(value), 0L, 255L));
    }
  }
  return made;
}

}  // namespace vireo
