#include "vision/image/orientation.h"

#include <vector>

#include <ATen/Functions.h>

#include "vision/core/error.h"

namespace vireo {
namespace {

// The world axis of a letter: 0 for L and R, 1 for P and A, 2 for S and I.
int world_axis(char letter) {
  const size_t at = std::string("LRPASI").find(letter);
  if (at == std::string::npos)
    throw Error(std::string("\"") + letter + "\" is no direction; L, R, P, A, S or I was expected");
  return static_cast<int>(at / 2);
}

}  // namespace

bool Reorientation::is_identity() const {
  return order_zyx == std::array{0, 1, 2} && flipped_zyx == std::array<bool, 3>{};
}

Reorientation Reorientation::inverse() const {
  Reorientation back;
  for (int i = 0; i < 3; ++i) {
    back.order_zyx[order_zyx[i]] = i;
    back.flipped_zyx[order_zyx[i]] = flipped_zyx[i];
  }
  return back;
}

Reorientation reorientation(const Geometry& grid, const std::string& orientation_xyz) {
  Reorientation turn;
  if (orientation_xyz.empty()) return turn;
  const std::string found = grid.orientation_xyz();
  bool complete = orientation_xyz.size() == 3;
  for (int i = 0; i < 3 && complete; ++i) {
    const char wanted = orientation_xyz[2 - i];
    turn.order_zyx[i] = -1;
    for (int j = 0; j < 3; ++j)
      if (world_axis(found[2 - j]) == world_axis(wanted)) {
        turn.order_zyx[i] = j;
        turn.flipped_zyx[i] = found[2 - j] != wanted;
      }
    for (int k = 0; k < i; ++k) complete = complete && turn.order_zyx[k] != turn.order_zyx[i];
  }
  if (!complete)
    throw Error("\"" + orientation_xyz + "\" is no orientation of three axes, such as RAS");
  return turn;
}

Geometry reoriented(const Geometry& grid, const Reorientation& turn) {
  Geometry result = grid.permuted(turn.order_zyx);
  Vector3 first{};
  for (int i = 0; i < 3; ++i)
    if (turn.flipped_zyx[i]) first[i] = static_cast<double>(result.size_zyx[i] - 1);
  result.origin_lps_mm = result.lps_from_voxel(first);
  for (int i = 0; i < 3; ++i)
    if (turn.flipped_zyx[i])
      for (auto& row : result.direction_lps_from_zyx) row[i] = -row[i];
  return result;
}

at::Tensor reoriented(const at::Tensor& values, const Reorientation& turn) {
  if (turn.is_identity()) return values;
  const int64_t before = values.dim() - 3;
  std::vector<int64_t> order, flipped;
  for (int64_t i = 0; i < before; ++i) order.push_back(i);
  for (int i = 0; i < 3; ++i) {
    order.push_back(before + turn.order_zyx[i]);
    if (turn.flipped_zyx[i]) flipped.push_back(before + i);
  }
  return values.permute(order).flip(flipped).contiguous();
}

Volume reoriented(const Volume& volume, const Reorientation& turn) {
  return {reoriented(volume.values, turn), reoriented(volume.geometry, turn), volume.full_scale};
}

}  // namespace vireo
