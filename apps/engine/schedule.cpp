#include "apps/engine/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace vireo {

double poly_rate(double base, int64_t iteration, int64_t total, double power) {
  const double left = 1.0 - static_cast<double>(iteration) / static_cast<double>(total);
  return base * std::pow(std::max(left, 0.0), power);
}

double cosine_rate(double base, double end, double iteration, double period) {
  return end + (base - end) * (1 + std::cos(std::numbers::pi * iteration / period)) / 2;
}

double published_synapse_rate(double base,
                              int64_t iteration,
                              int64_t iterations_per_epoch,
                              int64_t epochs) {
  if (iteration == 0) return base;
  const int64_t total = iterations_per_epoch * epochs;
  const double left_by_poly = poly_rate(base, iteration - 1, total);
  if (iteration % iterations_per_epoch != 0) return left_by_poly;
  // The scheduler's recursive form multiplies whatever rate it finds.
  const double finished = static_cast<double>(iteration / iterations_per_epoch);
  const double step = std::numbers::pi / static_cast<double>(epochs);
  return left_by_poly * (1 + std::cos(step * finished)) / (1 + std::cos(step * (finished - 1)));
}

double published_acdc_rate(double base, int64_t iteration, int64_t epochs) {
  const int64_t period = std::max<int64_t>(1, 3 * epochs / 4);
  return cosine_rate(base, 1e-6, static_cast<double>(iteration), static_cast<double>(period));
}

Schedule Schedule::from_config(ConfigTable& table) {
  Schedule schedule;
  schedule.base_rate = table.number("learning_rate", schedule.base_rate, 0, 10);
  const std::string kind = table.choice(
      "schedule", "cosine", {"constant", "poly", "cosine", "published_synapse", "published_acdc"});
  schedule.kind = kind == "constant"            ? Kind::kConstant
                  : kind == "poly"              ? Kind::kPoly
                  : kind == "cosine"            ? Kind::kCosine
                  : kind == "published_synapse" ? Kind::kPublishedSynapse
                                                : Kind::kPublishedAcdc;
  schedule.power = table.number("schedule_power", schedule.power, 0.01, 10);
  schedule.final_fraction = table.number("final_rate_fraction", schedule.final_fraction, 0, 1);
  schedule.warmup_iterations = table.integer("warmup_iterations", schedule.warmup_iterations, 0);
  return schedule;
}

double Schedule::rate(const SchedulePosition& position) const {
  if (kind == Kind::kPublishedSynapse)
    return published_synapse_rate(
        base_rate, position.iteration, position.iterations_per_epoch, position.epochs);
  if (kind == Kind::kPublishedAcdc)
    return published_acdc_rate(base_rate, position.iteration, position.epochs);

  if (position.iteration < warmup_iterations)
    return base_rate * static_cast<double>(position.iteration + 1) /
           static_cast<double>(warmup_iterations);
  const double after_warmup = static_cast<double>(
      std::max<int64_t>(1, position.iterations_per_epoch * position.epochs - warmup_iterations));
  const double iteration_share =
      static_cast<double>(position.iteration - warmup_iterations) / after_warmup;
  const double p = std::clamp(std::max(iteration_share, position.time_share), 0.0, 1.0);
  if (kind == Kind::kPoly) return base_rate * std::pow(1 - p, power);
  if (kind == Kind::kCosine) return cosine_rate(base_rate, base_rate * final_fraction, p, 1);
  return base_rate;
}

}  // namespace vireo
