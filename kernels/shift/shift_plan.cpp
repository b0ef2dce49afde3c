#include "kernels/shift/shift_plan.h"

#include <cmath>

#include <c10/util/Exception.h>

namespace vireo {

std::array<int64_t, 4> shift_bounds(int64_t n, double gamma) {
  std::array<int64_t, 4> bounds;
  // Multiply first, then floor: 10 channels give 2, 5, 7, 10.
  for (int64_t j = 1; j <= 4; ++j)
    bounds[j - 1] = static_cast<int64_t>(std::floor(static_cast<double>(j * n) * gamma));
  return bounds;
}

std::vector<ShiftSegment> shift_segments(int64_t channels, const QShift& shift) {
  TORCH_CHECK(shift.pixels >= 1, "q_shift: pixels must be at least 1, found ", shift.pixels);
  TORCH_CHECK(shift.gamma > 0 && shift.gamma <= 0.25,
              "q_shift: gamma must be in (0, 0.25], found ",
              shift.gamma);
  TORCH_CHECK(
      shift.head_dim >= 0, "q_shift: head_dim must not be negative, found ", shift.head_dim);
  const int64_t head = shift.head_dim == 0 ? channels : shift.head_dim;
  TORCH_CHECK(head == 0 || channels % head == 0,
              "q_shift: channels must be a multiple of head_dim ",
              shift.head_dim,
              ", found ",
              channels);
  const int64_t s = shift.pixels;
  const int64_t moves[5][2] = {{-s, 0}, {s, 0}, {0, -s}, {0, s}, {0, 0}};
  const std::array<int64_t, 4> bounds = shift_bounds(head, shift.gamma);
  std::vector<ShiftSegment> segments;
  for (int64_t start = 0; start < channels; start += head) {
    int64_t begin = start;
    for (int j = 0; j < 5; ++j) {
      const int64_t end = start + (j < 4 ? bounds[j] : head);
      if (end > begin) segments.push_back({begin, end, moves[j][0], moves[j][1]});
      begin = end;
    }
  }
  return segments;
}

std::vector<ShiftSegment> reversed(std::vector<ShiftSegment> segments) {
  for (ShiftSegment& segment : segments) {
    segment.dx = -segment.dx;
    segment.dy = -segment.dy;
  }
  return segments;
}

}  // namespace vireo
