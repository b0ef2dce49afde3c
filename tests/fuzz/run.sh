#!/usr/bin/env bash
# Runs every fuzz target of a build folder and prints a table. What the fuzzers learned stays in BUILD_FOLDER/corpus.
# Usage: tests/fuzz/run.sh BUILD_FOLDER SECONDS [TARGET...]
# Exit code 1, and the reproducers' paths, when something was found.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "$1" && pwd)
seconds=$2
shift 2
programs=$build/bin
work=$build/fuzzing
mkdir -p "$work"

dictionary() {
  case $1 in
    npy | npz) echo npz ;;
    pickle | weights) echo pickle ;;
    checkpoint | dataset_json | segments | splits) echo json ;;
    prepared_cache | picture_cache) echo safetensors ;;
    *) echo "$1" ;;
  esac
}

longest() {
  case $1 in
    dicom | nifti | picture) echo 20000 ;;
    *) echo 6000 ;;
  esac
}

# replay_real TARGET: every real file of its kind, broken ones too, where they are at hand. Sanitizers take several times
# as long over large ones; that no file takes 2 s without them is tests/vision/io/robustness.cpp's to show.
replay_real() {
  local folder=${VIREO_TEST_DATA:-$here/../../../shared/data}/robustness pattern
  case $1 in
    dicom) pattern='*.dcm' ;;
    nifti) pattern='*.nii*' ;;
    nrrd_mha) pattern='*.nrrd' ;;
    *) return 0 ;;
  esac
  [ -d "$folder" ] || return 0
  find "$folder" -type f -name "$pattern" -print0 |
    xargs -0 "$programs/fuzz_$1" -timeout=10 -rss_limit_mb=1024 >"$work/$1.real.log" 2>&1 && return 0
  cp "$(sed -n 's/^Running: //p' "$work/$1.real.log" | tail -1)" "$work/findings/$1-real"
  return 1
}

# run_one TARGET: one fuzzer, its output in a log, its line of the table in a file.
run_one() {
  local name=$1 log=$work/$1.log status=0
  mkdir -p "$build/corpus/$name" "$work/findings"
  local options=(-max_total_time="$seconds" -max_len="$(longest "$name")" -timeout=2 -rss_limit_mb=1024
                 -print_final_stats=1 -artifact_prefix="$work/findings/$name-")
  local words=$here/dictionaries/$(dictionary "$name").dict
  [ ! -f "$words" ] || options+=(-dict="$words")
  rm -f "$work/findings/$name-"*
  # What third-party libraries keep for the next call, or lose where they refuse a file, are no findings of ours.
  local leaks=1
  case $name in dicom* | nrrd_mha | picture | weights) leaks=0 ;; esac
  export ASAN_OPTIONS=quarantine_size_mb=16:detect_stack_use_after_return=0:detect_leaks=$leaks
  export UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1
  "$programs/fuzz_$name" "${options[@]}" "$build/corpus/$name" "$build/seeds/$name" >"$log" 2>&1 || status=$?
  replay_real "$name" || status=1
  local runs covered files found
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -1)
  covered=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -d' ' -f2 || true)
  files=$(find "$build/corpus/$name" -type f | wc -l)
  found=$(find "$work/findings" -name "$name-*" | wc -l)
  [ "$status" -eq 0 ] || [ "$found" -gt 0 ] || found=failed
  printf '%-16s %12s %8s %10s %9s\n' "$name" "${runs:-0}" "$files" "${covered:-0}" "$found" >"$work/$name.line"
}

names=("$@")
[ ${#names[@]} -gt 0 ] ||
  for program in "$programs"/fuzz_*; do names+=("$(basename "$program" | sed 's/^fuzz_//')"); done
export TMPDIR
TMPDIR=$(mktemp -d -p "$([ -d /dev/shm ] && echo /dev/shm || echo /tmp)" vireo-fuzz-XXXXXX)
trap 'rm -rf "$TMPDIR"' EXIT
if [ ! "$build/seeds" -nt "$programs/make_seeds" ]; then
  rm -rf "$build/seeds" "$work/seeds"
  "$programs/make_seeds" "$work/seeds" "$here/../.."
  mv "$work/seeds" "$build/seeds"
fi
export here build seconds programs work
export -f run_one replay_real dictionary longest
printf '%s\n' "${names[@]}" | xargs -P "${VIREO_JOBS:-$(nproc)}" -I{} bash -c 'run_one {}'

printf '%-16s %12s %8s %10s %9s\n' target executions corpus coverage findings
for name in "${names[@]}"; do cat "$work/$name.line"; done
status=0
for name in "${names[@]}"; do
  for file in "$work/findings/$name-"*; do
    [ ! -e "$file" ] || { status=1; echo "finding: $programs/fuzz_$name $file   (log: $work/$name.log)" >&2; }
  done
  ! grep -q 'failed$' "$work/$name.line" || { status=1; echo "failed: see $work/$name.log" >&2; }
done
exit "$status"
