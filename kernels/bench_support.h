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

/// Prints the time for each of the `count` things that one iteration handles, with its unit.
inline void count_each(benchmark::State& state, const char* name, int64_t count) {
  state.counters[name] = benchmark::Counter(
      static_cast<double>(count),
      benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

/// The elements of a [B,T,C] tensor.
inline void count_elements(benchmark::State& state, int64_t elements) {
  count_each(state, "per_element", elements);
}

}  // namespace vireo
