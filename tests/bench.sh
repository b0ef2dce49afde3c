#!/usr/bin/env bash
# Runs the benchmarks of a build folder, prints their table and leaves the numbers in its bench-results/.
# Usage: tests/bench.sh BUILD_FOLDER [NAME [options of the programs: see bench_bi_wkv --help]]
# NAME is part of a program's name (bi_wkv, rwkv_unet, ...), or scaling.
set -euo pipefail
build=$1
only=${2:-}
results=$build/bench-results
mkdir -p "$results"

printer=
for program in "$build"/bench/bench_*; do
  [[ ${program##*/bench_} == *"$only"* ]] || continue
  "$program" --json "$results/bench.json" "${@:3}"
  printer=$program
done
if [ -n "$printer" ]; then
  "$printer" --table "$results/bench.json" --only "$only"
  printf '\nnumbers as JSON: %s\n' "$results/bench.json"
fi

if [[ scaling == *"$only"* ]]; then
  plot=()
  grep -q '^VIREO_WITH_IO:BOOL=ON' "$build/CMakeCache.txt" && plot=(--plot "$results/scaling.png")
  "$build/bin/vireo" bench rwkv_unet_t vision_rwkv_t vision_rwkv6_t --scaling --max-seconds 40 \
    --output "$results/scaling.json" "${plot[@]}"
fi
