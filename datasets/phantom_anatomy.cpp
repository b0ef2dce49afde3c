#include "datasets/phantom_anatomy.h"

namespace vireo {
namespace {

constexpr double kAir = -1000;
constexpr double kRibPeriodMm = 27, kVertebraPeriodMm = 31, kDiscMm = 7;

// A place given as shares of the trunk's half width and half depth, and mm upwards; moved a little.
Vector3 place(PhantomRandom& random,
              double half_width,
              double half_depth,
              const Vector3& at,
              double jitter_mm) {
  return {at[0] * half_width + jitter_mm * random.normal(),
          at[1] * half_depth + 0.7 * jitter_mm * random.normal(),
          at[2] + 1.3 * jitter_mm * random.normal()};
}

Ellipsoid organ(PhantomRandom& random,
                const Vector3& center,
                const Vector3& radii,
                double turn,
                double tilt,
                double roughness_mm) {
  const double size = random.between(0.92, 1.08);
  Ellipsoid shape;
  shape.center = center;
  for (size_t axis = 0; axis < 3; ++axis)
    shape.radii[axis] = radii[axis] * size * random.between(0.93, 1.07);
  shape.turn = turn + 0.1 * random.normal();
  shape.tilt = tilt + 0.07 * random.normal();
  shape.roughness_mm = roughness_mm;
  shape.surface = SmoothField(random, 45, 6);
  return shape;
}

}  // namespace

PhantomAnatomy::PhantomAnatomy(PhantomRandom random) {
  auto& r = random;
  half_width_ = r.between(130, 152);
  half_depth_ = half_width_ * r.between(0.64, 0.74);
  squareness_ = r.between(2.2, 2.6);
  fat_mm_ = r.between(7, 20);
  muscle_mm_ = r.between(8, 12);
  spine_y_ = half_depth_ * r.between(0.38, 0.44);
  contrast_ = r.between(0.1, 1);
  const double w = half_width_, d = half_depth_;
  const double scale = w / 140;

  for (SmoothField& field : bend_) field = SmoothField(r, 150);
  texture_ = SmoothField(r, 22, 7);
  fine_texture_ = SmoothField(r, 9, 7);
  fat_field_ = SmoothField(r, 120);
  bowel_ = SmoothField(r, 44, 8);
  bowel_gas_ = SmoothField(r, 30, 6);
  vessels_a_ = SmoothField(r, 42, 6);
  vessels_b_ = SmoothField(r, 42, 6);

  const auto at = [&](double x, double y, double z, double jitter) {
    return place(r, w, d, {x, y, z * scale}, jitter);
  };
  const auto radii = [scale](double x, double y, double z) {
    return Vector3{x * scale, y * scale, z * scale};
  };
  right_liver_ = organ(r, at(-0.46, -0.02, 18, 4), radii(66, 76, 70), 0, -0.1, 1.5);
  left_liver_ = organ(r, at(0.02, -0.42, 34, 4), radii(64, 30, 34), 0.15, 0.1, 1.5);
  spleen_ = organ(r, at(0.62, 0.30, 26, 4), radii(34, 46, 46), -0.3, 0.1, 1.2);
  spleen_notch_ = organ(r, at(0.36, 0.10, 18, 3), radii(34, 40, 62), -0.3, 0, 1.2);
  gallbladder_ = organ(r, at(-0.28, -0.40, -24, 4), radii(13, 17, 24), 0.3, 0, 0.5);
  heart_ = organ(r, at(0.10, -0.35, 100, 5), radii(56, 44, 38), 0.3, 0, 0.5);
  stomach_body_ = organ(r, at(0.40, -0.20, 34, 5), radii(38, 33, 42), 0.2, 0.1, 1.5);
  stomach_antrum_ = organ(r, at(0.14, -0.44, -6, 5), radii(38, 18, 19), 0.2, -0.2, 1.2);
  lung_domes_ = {organ(r, at(-0.42, -0.02, 26, 4), radii(74, 92, 62), 0, 0, 0.5),
                 organ(r, at(0.44, -0.02, 18, 4), radii(72, 92, 62), 0, 0, 0.5)};
  for (const int side : {0, 1}) {
    const double sign = side == 0 ? -1 : 1;
    Ellipsoid& kidney = kidneys_[side];
    kidney = organ(r,
                   at(sign * 0.43, 0.36, side == 0 ? -34 : -22, 3.5),
                   radii(24, 26, 47),
                   -sign * 0.6,
                   -sign * 0.18,
                   1.0);
    Ellipsoid& sinus = sinuses_[side];
    sinus = kidney;
    sinus.center = kidney.center + Vector3{-sign * 13 * scale, -6 * scale, 0};
    sinus.radii = radii(15, 7, 20);
  }
  lesion_ = organ(
      r,
      right_liver_.center + Vector3{r.between(-30, 25), r.between(-30, 30), r.between(-25, 25)},
      radii(9, 9, 9),
      0,
      0,
      1);
  if (!r.chance(0.3)) lesion_.center = {0, 0, 10 * kFarOutside};

  const double vessel_y = spine_y_ - 31 * scale, aorta_x = r.between(4, 13);
  const double aorta_radius = r.between(8.5, 11.5) * scale;
  const double wander = r.between(-5, 5);
  for (const double z : {-130.0, -60.0, 0.0, 60.0, 130.0}) {
    const double shift = wander * std::sin(z / 45);
    aorta_.nodes.push_back(
        {{aorta_x + shift, vessel_y + z * 0.02, z}, aorta_radius * (1 + z * 0.0009)});
    cava_.nodes.push_back({{-17 * scale + 0.5 * shift, vessel_y + 3 - std::max(0.0, z) * 0.16, z},
                           r.between(7.5, 10.5) * scale});
  }
  pancreas_.nodes = {{at(-0.24, -0.06, -22, 2), 12 * scale},
                     {at(-0.04, -0.14, -8, 2), 9 * scale},
                     {at(0.22, -0.02, 4, 2), 9 * scale},
                     {at(0.46, 0.10, 14, 2), 8 * scale}};
  ascending_colon_.nodes = {{at(-0.60, 0.06, -120, 3), 17 * scale},
                            {at(-0.60, 0.02, -46, 3), 16 * scale}};
  descending_colon_.nodes = {{at(0.66, 0.12, -120, 3), 14 * scale},
                             {at(0.66, 0.10, -26, 3), 13 * scale}};
  for (const int side : {0, 1}) {
    const double sign = side == 0 ? -1 : 1;
    psoas_[side].nodes = {{{sign * 27 * scale, spine_y_ + 2, 10}, 6},
                          {{sign * 34 * scale, spine_y_ + 2, -90}, 17 * scale}};
  }
  rib_offset_ = r.between(0, kRibPeriodMm);
  rib_slope_ = r.between(105, 135);
  disc_offset_ = r.between(0, kVertebraPeriodMm);
  stomach_gas_y_ = stomach_body_.center[1] - stomach_body_.radii[1] * r.between(0.1, 0.9);
  stomach_fluid_hu_ = r.chance(0.2) ? r.between(120, 220) : r.between(5, 40);
  calcified_ = r.chance(0.35);

  liver_hu_ = 56 + 52 * contrast_ + 6 * r.normal();
  spleen_hu_ = 47 + 68 * contrast_ + 5 * r.normal();
  cortex_hu_ = 34 + 130 * contrast_ + 8 * r.normal();
  medulla_hu_ = 30 + 95 * contrast_ + 6 * r.normal();
  aorta_hu_ = 41 + 120 * contrast_ + 6 * r.normal();
  vein_hu_ = 40 + 105 * contrast_ + 6 * r.normal();
  muscle_hu_ = 52 + 10 * contrast_ + 3 * r.normal();
  fat_hu_ = -104 + 4 * r.normal();
}

PhantomAnatomy::Texture PhantomAnatomy::texture(const Vector3& p) const {
  return {texture_(p), fine_texture_(p)};
}

Vector3 PhantomAnatomy::displacement(const Vector3& p) const {
  return {4 * bend_[0](p), 3 * bend_[1](p), 5 * bend_[2](p)};
}

PhantomAnatomy::Depth PhantomAnatomy::depth_below_skin(const Vector3& p) const {
  const double waist = 1 + 0.03 * std::sin((p[2] + 40) / 70);
  const double x = std::abs(p[0]) / (half_width_ * waist), y = p[1] / (half_depth_ * waist);
  // The back is flatter than the front.
  const double power = y > 0 ? squareness_ + 0.5 : squareness_;
  const double reach = std::pow(std::pow(x, power) + std::pow(std::abs(y), power), 1 / power);
  const double radius = std::hypot(p[0], p[1]);
  if (reach < 1e-6) return {half_depth_, 0};
  return {radius * (1 / reach - 1), radius > 0 ? -p[1] / radius : 0};
}

double PhantomAnatomy::wall_thickness(const Vector3& p, const Depth& depth) const {
  // The two straight muscles of the belly meet in a thin middle line.
  const double middle = depth.frontal > 0.8 ? std::exp(-p[0] * p[0] / 50) : 0;
  return muscle_mm_ * (1 - 0.7 * middle);
}

bool PhantomAnatomy::in_lung(const Vector3& p) const {
  if (p[2] < 20 || heart_.level(p) < 4) return false;
  const Ellipsoid& dome = lung_domes_[p[0] < 0 ? 0 : 1];
  const double beside_spine = std::abs(p[0]) - 16 - std::max(0.0, 30 - (p[1] - spine_y_ + 40));
  return dome.level(p) > 3 && beside_spine > 0;
}

bool PhantomAnatomy::bone(
    const Vector3& p, const Texture& t, const Depth& depth, double fat, double& hu) const {
  const double scale = half_width_ / 140;
  const double x = p[0] / scale, y = (p[1] - spine_y_) / scale;
  if (std::abs(x) < 34 && y > -22 && y < 62) {
    const double body = std::hypot(x / 21, y / 17);
    if (body < 1) {
      double phase = std::fmod(p[2] + disc_offset_ + 100 * kVertebraPeriodMm, kVertebraPeriodMm);
      phase = std::abs(phase - kVertebraPeriodMm / 2);
      const double to_end = kVertebraPeriodMm / 2 - kDiscMm / 2 - phase;
      if (to_end < 0)
        hu = 85;
      else
        hu = body > 0.88 || to_end < 1.5 ? 420 : 190 + 25 * t.fine;
      return true;
    }
    const double canal = std::hypot(x / 10, (y - 26) / 8);
    if (canal < 1) {
      hu = 25;
      return true;
    }
    const bool arch = canal < 1.55;
    const bool spinous = std::abs(x) < 3.5 && y > 32 && y < 56;
    const bool transverse = std::abs(y - 24 - 0.12 * std::abs(x)) < 3.6 && std::abs(x) < 33;
    const double level =
        std::fmod(p[2] + disc_offset_ + 100 * kVertebraPeriodMm, kVertebraPeriodMm);
    if (arch || (spinous && level > 7) || (transverse && level > 10 && level < 21)) {
      hu = 360 + 40 * t.fine;
      return true;
    }
  }
  return rib(p, depth, fat, hu);
}

bool PhantomAnatomy::rib(const Vector3& p, const Depth& depth, double fat, double& hu) const {
  const double across = depth.mm - fat - muscle_mm_ * 0.5;
  if (std::abs(across) > 4.5 || depth.frontal > 0.75) return false;
  // Ribs fall from the back to the front; the lowest stay behind.
  if (p[2] < -70 + 62 * (depth.frontal + 1)) return false;
  const double height = p[2] + rib_slope_ * (depth.frontal + 1) / 2 + rib_offset_;
  double along = std::fmod(height + 100 * kRibPeriodMm, kRibPeriodMm);
  along = std::abs(along - kRibPeriodMm / 2);
  const double level = std::hypot(along / 5.2, across / 4.2);
  if (level > 1) return false;
  hu = level > 0.65 ? 480 : 230;
  return true;
}

PhantomAnatomy::Tissue PhantomAnatomy::outside(const Vector3& p) const {
  // The table: a shallow trough under the back.
  const double table = p[1] - half_depth_ - 9 + p[0] * p[0] / 900;
  if (std::abs(p[0]) < 125 && table > 0 && table < 12)
    return {table < 2.5 || table > 9.5 ? -250.0 : -880.0, kPhantomBackground};
  return {kAir, kPhantomBackground};
}

PhantomAnatomy::Tissue PhantomAnatomy::stomach(const Vector3& p,
                                               const Texture& t,
                                               double level) const {
  if (level > -3.5) return {42 + 30 * contrast_ + 4 * t.coarse, kPhantomStomach};
  if (p[1] < stomach_gas_y_) return {-870, kPhantomStomach};
  return {stomach_fluid_hu_ + 14 * t.fine, kPhantomStomach};
}

PhantomAnatomy::Tissue PhantomAnatomy::kidney(const Texture& t, double level, double sinus) const {
  if (sinus < 0) return {sinus < -4 ? 15 + 40 * contrast_ : -75.0, kPhantomBackground};
  const double cortex = 6.5 + 2.5 * t.fine;
  return {(level > -cortex ? cortex_hu_ : medulla_hu_) + 4 * t.coarse, kPhantomKidney};
}

PhantomAnatomy::Tissue PhantomAnatomy::liver(const Vector3& p, const Texture& t) const {
  if (lesion_.level(p) < 0) return {liver_hu_ - 38, kPhantomLiver};
  // Vessels lie where two smooth fields are both near zero.
  const double a = vessels_a_(p), b = vessels_b_(p);
  const double vessel = std::exp(-(a * a + b * b) / 0.03);
  return {liver_hu_ + vessel * (vein_hu_ - liver_hu_) + 4 * t.coarse + 3 * t.fine, kPhantomLiver};
}

double PhantomAnatomy::filler(const Vector3& p, const Texture& t) const {
  // Loops of bowel in front and below, fat elsewhere.
  const double there = std::min((0.22 * half_depth_ - p[1]) / 12, (8 - p[2]) / 12);
  if (there > 0) {
    const double loop = bowel_(p);
    if (loop > 0.05) {
      if (loop > 0.95 && bowel_gas_(p) > 0.9) return -650;
      return loop < 0.4 ? 48 + 28 * contrast_ : 22 + 16 * t.coarse;
    }
  }
  const double strand = std::abs(bowel_gas_(p));
  return strand < 0.05 ? fat_hu_ + 70 : fat_hu_ + 7 * t.coarse;
}

PhantomAnatomy::Tissue PhantomAnatomy::cavity(const Vector3& p, const Texture& t) const {
  if (in_lung(p)) return {-860 + 60 * t.fine, kPhantomBackground};
  if (p[2] > 40 && heart_.level(p) < 0)
    return {45 + 70 * contrast_ + 5 * t.coarse, kPhantomBackground};
  const double aorta = aorta_.level(p);
  if (aorta < 0) {
    const bool plaque = calcified_ && aorta > -2.2 && t.fine > 1.3;
    return {plaque ? 550 : aorta_hu_ + 3 * t.coarse, kPhantomAorta};
  }
  if (cava_.level(p) < 0) return {vein_hu_ + 4 * t.coarse, kPhantomBackground};
  for (size_t side = 0; side < 2; ++side) {
    const double level = kidneys_[side].level(p);
    if (level < 0) return kidney(t, level, sinuses_[side].level(p));
    // A sleeve of fat around each kidney.
    if (level < 3.5) return {fat_hu_ + 6 * t.coarse, kPhantomBackground};
  }
  for (const Tube& muscle : psoas_)
    if (muscle.level(p) < 0) return {muscle_hu_ + 4 * t.coarse, kPhantomBackground};
  const double stomach_level = rounded_union(stomach_body_.level(p), stomach_antrum_.level(p), 14);
  if (stomach_level < 0) return stomach(p, t, stomach_level);
  if (gallbladder_.level(p) < 0) return {10 + 4 * t.coarse, kPhantomBackground};
  const double liver_level = rounded_union(right_liver_.level(p), left_liver_.level(p), 12);
  const double groove = std::hypot(p[0], p[1] - spine_y_) - 44;  // in front of the spine
  if (std::max(liver_level, -groove) < 0) return liver(p, t);
  if (spleen_.level(p) < 0 && spleen_notch_.level(p) > 0)
    return {spleen_hu_ + 4 * t.coarse, kPhantomSpleen};
  if (pancreas_.level(p) < 2.5 * t.fine)
    return {44 + 45 * contrast_ + 8 * t.fine, kPhantomBackground};
  for (const Tube* colon : {&ascending_colon_, &descending_colon_}) {
    const double level = colon->level(p);
    if (level < 0)
      return {level > -2.5 ? 45 + 20 * contrast_ : -60 + 130 * t.fine, kPhantomBackground};
  }
  return {filler(p, t), kPhantomBackground};
}

PhantomAnatomy::Tissue PhantomAnatomy::at(const Vector3& p, const Texture& t) const {
  const Depth depth = depth_below_skin(p);
  if (depth.mm < 0) return outside(p);
  if (depth.mm < 1.6) return {-20, kPhantomBackground};
  const double fat = std::max(3.0,
                              fat_mm_ * (1 + 0.25 * depth.frontal + 0.2 * fat_field_(p)) *
                                  (p[2] > 30 ? 1 - (p[2] - 30) / 200 : 1));
  double hu = 0;
  if (bone(p, t, depth, fat, hu)) return {hu, kPhantomBackground};
  if (depth.mm < fat) return {fat_hu_ + 6 * t.coarse, kPhantomBackground};
  const double scale = half_width_ / 140;
  const double beside =
      std::hypot((std::abs(p[0]) / scale - 29) / 27, ((p[1] - spine_y_) / scale - 31) / 21);
  const double wall = wall_thickness(p, depth);
  if (depth.mm < fat + wall || beside < 1) {
    // Fat lies between the layers.
    const double marbling = t.fine > 1.5 ? -45 : 0;
    return {muscle_hu_ + marbling + 4 * t.coarse, kPhantomBackground};
  }
  if (depth.mm < fat + wall + 2.5 && !in_lung(p))
    return {fat_hu_ + 5 * t.coarse, kPhantomBackground};
  return cavity(p, t);
}

}  // namespace vireo
