#!/usr/bin/env bash
# Runs every benchmark of a build folder, prints the tables and keeps the numbers as JSON.
# Usage: tests/bench.sh BUILD_FOLDER [NAME_FILTER] [Google Benchmark options]
set -euo pipefail
build=$1
filter=${2:-}
results=$build/bench-results
mkdir -p "$results"

# One line for each benchmark: its best time, and how that compares with the first of the same arguments.
compare() {
  awk -F'"' '
    /"run_name":/ { run = $4; sub(/\/min_time:.*/, "", run) }
    /"aggregate_name": "min"/ { minimum = 1 }
    /"real_time":/ && minimum {
      time = $3; gsub(/[^0-9.e+-]/, "", time)
      arguments = name = run
      match(run, /(\/[a-z]*:?[0-9]+)+$/)
      arguments = substr(run, RSTART + 1); name = substr(run, 1, RSTART - 1)
      kind = name; if (!sub(/\/.*/, "", kind)) kind = ""
      order[++count] = run; names[run] = name; times[run] = time; shown[run] = arguments
      group[run] = kind " " arguments
      minimum = 0
    }
    END {
      for (i = 1; i <= count; ++i) {
        g = group[order[i]]
        if (!(g in first)) { first[g] = times[order[i]]; groups[++group_count] = g }
      }
      printf "\n%-22s %-34s %12s %10s\n", "arguments", "benchmark", "best, ms", "first / it"
      for (j = 1; j <= group_count; ++j)
        for (i = 1; i <= count; ++i)
          if (group[order[i]] == groups[j])
            printf "%-22s %-34s %12.3f %10.2f\n", shown[order[i]], names[order[i]], times[order[i]],
                   first[groups[j]] / times[order[i]]
    }' "$1"
}

echo "$(date -u +%Y-%m-%dT%H:%MZ)  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
for program in "$build"/bench/bench_*; do
  name=$(basename "$program")
  [[ $name == *"$filter"* ]] || continue
  printf '\n== %s\n' "$name"
  "$program" --benchmark_counters_tabular=true --benchmark_enable_random_interleaving=true \
    --benchmark_out="$results/$name.json" --benchmark_out_format=json "${@:3}"
  compare "$results/$name.json"
done
printf '\nnumbers as JSON: %s\n' "$results"
