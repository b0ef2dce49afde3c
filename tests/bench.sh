#!/usr/bin/env bash
# Runs every benchmark of a build folder, prints the tables and keeps the numbers as JSON.
# Usage: tests/bench.sh BUILD_FOLDER [NAME_FILTER] [Google Benchmark options]
set -euo pipefail
build=$1
filter=${2:-}
results=$build/bench-results
mkdir -p "$results"

# One line for each benchmark: its best time, and how that compares with the first of the same arguments. Reads the
# benchmarks' names in the order of the source, then the JSON file, where they come in the order of the runs.
compare() {
  awk -F'"' '
    function key(run) { sub(/\/min_time:.*/, "", run); return run }
    FNR == NR { order[++count] = key($0); next }
    /"run_name":/ { run = key($4) }
    /"aggregate_name": "min"/ || /"run_type": "iteration"/ { minimum = 1 }  # the second: run once
    /"real_time":/ && minimum { time = $3; gsub(/[^0-9.e+-]/, "", time); times[run] = time + 0; minimum = 0 }
    END {
      for (i = 1; i <= count; ++i) {
        run = order[i]
        if (!(run in times)) continue
        match(run, /(\/[a-z]*:?[0-9]+)+$/)
        arguments[run] = substr(run, RSTART + 1); name[run] = substr(run, 1, RSTART - 1)
        kind = name[run]; if (!sub(/\/.*/, "", kind)) kind = ""
        group[run] = kind " " arguments[run]
        if (!(group[run] in first)) { first[group[run]] = times[run]; groups[++group_count] = group[run] }
      }
      printf "\n%-22s %-34s %12s %12s\n", "arguments", "benchmark", "best, ms", "first / it"
      for (j = 1; j <= group_count; ++j)
        for (i = 1; i <= count; ++i)
          if (group[order[i]] == groups[j])
            printf "%-22s %-34s %12.3f %12.2f\n", arguments[order[i]], name[order[i]], times[order[i]],
                   first[groups[j]] / times[order[i]]
    }' <("$1" --benchmark_list_tests) "$2"
}

echo "$(date -u +%Y-%m-%dT%H:%MZ)  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
for program in "$build"/bench/bench_*; do
  name=$(basename "$program")
  [[ $name == *"$filter"* ]] || continue
  printf '\n== %s\n' "$name"
  "$program" --benchmark_counters_tabular=true --benchmark_enable_random_interleaving=true \
    --benchmark_out="$results/$name.json" --benchmark_out_format=json "${@:3}"
  compare "$program" "$results/$name.json"
done
printf '\nnumbers as JSON: %s\n' "$results"
