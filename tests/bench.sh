#!/usr/bin/env bash
# Runs every benchmark of a build folder, prints the tables and keeps the numbers as JSON.
# Usage: tests/bench.sh BUILD_FOLDER [NAME_FILTER] [Google Benchmark options]
set -euo pipefail
build=$1
filter=${2:-}
results=$build/bench-results
mkdir -p "$results"

echo "$(date -u +%Y-%m-%dT%H:%MZ)  $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $(nproc) cores"
for program in "$build"/bench/bench_*; do
  name=$(basename "$program")
  [[ $name == *"$filter"* ]] || continue
  printf '\n== %s\n' "$name"
  "$program" --benchmark_counters_tabular=true \
    --benchmark_out="$results/$name.json" --benchmark_out_format=json "${@:3}"
done
printf '\nnumbers as JSON: %s\n' "$results"
