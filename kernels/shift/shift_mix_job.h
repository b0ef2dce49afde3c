#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "kernels/shift/shift_plan.h"
#include "kernels/shift/shift_rows.h"

namespace vireo {

/// A Q-Shift with token mixes as the CPU's loops take it. x [B,T,C] and mixes [M,C], contiguous,
/// were checked (check_q_shift_mix); the mixes stay alive as long as this.
struct ShiftMixJob {
  std::vector<shift_rows::Segment> segments;
  shift_rows::Job job{};

  ShiftMixJob(const at::Tensor& x,
              const at::Tensor& mixes,
              int64_t height,
              int64_t width,
              const QShift& shift) {
    for (const ShiftSegment& s : shift_segments(x.size(2), shift))
      segments.push_back({s.begin, s.end, s.dx, s.dy});
    job = {height,
           width,
           x.size(2),
           segments.data(),
           static_cast<int64_t>(segments.size()),
           static_cast<int>(mixes.size(0)),
           mixes.const_data_ptr()};
  }
  // The job points into the segments.
  ShiftMixJob(const ShiftMixJob&) = delete;
  ShiftMixJob& operator=(const ShiftMixJob&) = delete;
};

}  // namespace vireo
