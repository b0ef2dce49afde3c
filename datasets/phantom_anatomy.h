#pragma once

#include <array>
#include <cstdint>

#include "datasets/phantom_shapes.h"

namespace vireo {

enum PhantomLabel : uint8_t {
  kPhantomBackground = 0,
  kPhantomLiver = 1,
  kPhantomSpleen = 2,
  kPhantomKidney = 3,
  kPhantomAorta = 4,
  kPhantomStomach = 5,
};
inline constexpr std::array<const char*, 6> kPhantomLabelNames{
    "background", "liver", "spleen", "kidney", "aorta", "stomach"};

/// One made-up upper abdomen: what lies at a point of the patient. The origin is the middle of the
/// trunk at the height of the pancreas.
class PhantomAnatomy {
 public:
  struct Tissue {
    double hu;
    PhantomLabel label;
  };

  explicit PhantomAnatomy(PhantomRandom random);

  /// The fine structure around a point, which changes little within a voxel.
  struct Texture {
    double coarse, fine;  ///< about unit standard deviation
  };
  Texture texture(const Vector3& lps_mm) const;

  Tissue at(const Vector3& lps_mm, const Texture& texture) const;
  /// Shift by which the anatomy is bent at a point; about constant over a few mm.
  Vector3 displacement(const Vector3& lps_mm) const;

  double half_width_mm() const { return half_width_; }

 private:
  struct Depth {
    double mm;       // below the skin; negative outside
    double frontal;  // 1 at the front, -1 at the back
  };
  Depth depth_below_skin(const Vector3& p) const;
  double wall_thickness(const Vector3& p, const Depth& depth) const;
  bool in_lung(const Vector3& p) const;
  bool bone(const Vector3& p, const Texture& t, const Depth& depth, double fat, double& hu) const;
  bool rib(const Vector3& p, const Depth& depth, double fat, double& hu) const;
  Tissue outside(const Vector3& p) const;
  Tissue cavity(const Vector3& p, const Texture& t) const;
  Tissue stomach(const Vector3& p, const Texture& t, double level) const;
  Tissue kidney(const Texture& t, double level, double sinus) const;
  Tissue liver(const Vector3& p, const Texture& t) const;
  double filler(const Vector3& p, const Texture& t) const;

  double half_width_, half_depth_, squareness_;
  double fat_mm_, muscle_mm_, spine_y_;
  double contrast_;  // 0: none, 1: full portal venous enhancement
  std::array<SmoothField, 3> bend_;
  SmoothField texture_, fine_texture_, fat_field_, bowel_, bowel_gas_, vessels_a_, vessels_b_;
  Ellipsoid right_liver_, left_liver_, spleen_, spleen_notch_, gallbladder_, heart_;
  Ellipsoid stomach_body_, stomach_antrum_, lesion_;
  std::array<Ellipsoid, 2> kidneys_, sinuses_, lung_domes_;
  Tube aorta_, cava_, pancreas_, ascending_colon_, descending_colon_;
  std::array<Tube, 2> psoas_;
  double rib_offset_, rib_slope_, disc_offset_;
  double stomach_gas_y_, stomach_fluid_hu_;
  bool calcified_;
  double liver_hu_, spleen_hu_, cortex_hu_, medulla_hu_, aorta_hu_, vein_hu_, muscle_hu_, fat_hu_;
};

}  // namespace vireo
