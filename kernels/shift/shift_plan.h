#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/shift/shift.h"

namespace vireo {

/// Channels [begin, end) take their value from the token dx columns and dy rows away.
struct ShiftSegment {
  int64_t begin;
  int64_t end;
  int64_t dx;
  int64_t dy;
};

/// floor(j n gamma) for j = 1..4: where the four moving parts of n channels end.
std::array<int64_t, 4> shift_bounds(int64_t n, double gamma);

/// Covers all channels, in order, without overlap. Throws unless the shift fits the channels.
std::vector<ShiftSegment> shift_segments(int64_t channels, const QShift& shift);

/// The same for the gradient: every segment looks the other way.
std::vector<ShiftSegment> reversed(std::vector<ShiftSegment> segments);

}  // namespace vireo
