#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <benchmark/benchmark.h>

// What the benchmarks of this room share.
namespace vireo {

/// Real time, three repetitions and their minimum: other programs only ever add time.
inline benchmark::internal::Benchmark* as_minimum(benchmark::internal::Benchmark* bench) {
  return bench->UseRealTime()
      ->Unit(benchmark::kMillisecond)
      ->MinTime(0.1)
      ->Repetitions(3)
      ->ReportAggregatesOnly(true)
      ->ComputeStatistics("min", [](const std::vector<double>& times) {
        return *std::min_element(times.begin(), times.end());
      });
}

/// Prints the time per element of a [B,T,C] tensor, with its unit.
inline void count_elements(benchmark::State& state, int64_t elements) {
  state.counters["per_element"] = benchmark::Counter(
      static_cast<double>(elements),
      benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

}  // namespace vireo
