#pragma once

#include <cstdint>

#include "vision/core/config_table.h"

namespace vireo {

/// Where a run stands when the rate of its next step is asked for.
struct SchedulePosition {
  int64_t iteration = 0;             ///< optimiser steps taken so far
  int64_t iterations_per_epoch = 1;  ///< >= 1
  int64_t epochs = 1;                ///< planned, >= 1
  double time_share = 0;             ///< of the time budget that is used up, 0 without a budget
};

/// The learning rate as a function of the position. With p = the larger of the iteration share and
/// the time share (so that a run cut by the clock still ends at the schedule's end):
///   constant   base
///   poly       base * (1 - p)^power
///   cosine     end + (base - end) * (1 + cos(pi p)) / 2, end = base * final_fraction
/// each after a linear warm-up from base / warmup_iterations to base, during which p counts as 0;
/// afterwards p runs from the warm-up's end.
/// Two more reproduce published training loops step by step, without warm-up and time share:
///   published_synapse, published_acdc (see the functions below).
class Schedule {
 public:
  enum class Kind { kConstant, kPoly, kCosine, kPublishedSynapse, kPublishedAcdc };

  Kind kind = Kind::kCosine;
  double base_rate = 1e-3;
  double power = 0.9;
  double final_fraction = 0;
  int64_t warmup_iterations = 0;

  /// Reads learning_rate, schedule, schedule_power, final_rate_fraction and warmup_iterations.
  static Schedule from_config(ConfigTable& table);

  double rate(const SchedulePosition& position) const;
};

/// base * (1 - iteration / total)^power.
double poly_rate(double base, int64_t iteration, int64_t total, double power = 0.9);

/// end + (base - end) * (1 + cos(pi * iteration / period)) / 2; beyond the period it rises again.
double cosine_rate(double base, double end, double iteration, double period);

/// What the published Synapse loop really uses in step `iteration` (0-based): the poly value of the
/// step before, except that the first step of every later epoch runs with what a per-epoch cosine
/// scheduler left behind.
double published_synapse_rate(double base,
                              int64_t iteration,
                              int64_t iterations_per_epoch,
                              int64_t epochs);

/// The published ACDC loop: a cosine to 1e-6 with period floor(3 * epochs / 4), stepped per
/// iteration, so that it oscillates.
double published_acdc_rate(double base, int64_t iteration, int64_t epochs);

}  // namespace vireo
