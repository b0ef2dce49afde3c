#!/usr/bin/env bash
# The whole job on made-up data: train, score, segment a new scan. Run from the repository's root as
#   apps/demo.sh PROGRAM
# Everything goes to demo/ and runs/segmentation/phantom/; what is done already is not done again.
set -euo pipefail

vireo=${1:?usage: apps/demo.sh PROGRAM}
config=configs/segmentation/phantom/rwkv_unet_t.toml
run=runs/segmentation/phantom/rwkv_unet_t
least_dice=0.85
begin=$SECONDS

section() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

section "1/6 Data: CT-like abdomens, made here"
"$vireo" phantom demo/data --cases 24 --test-cases 6 --seed 1 --overwrite

section "2/6 Prepare: check, normalise, cache"
"$vireo" prepare "$config" --set data.folder=demo/data

section "3/6 Train RWKV-UNet-T (4 minutes on two cores)"
"$vireo" train "$config" --set data.folder=demo/data

section "4/6 Segment the 6 scans that training never saw"
model=$run/checkpoint_best.safetensors
"$vireo" predict --model "$model" --continue demo/data/imagesTs demo/predictions

section "5/6 Score them against the truth"
"$vireo" evaluate demo/predictions demo/data/labelsTs \
  --labels demo/data/dataset.json --images demo/data/imagesTs --output demo/scores
dice=$(/usr/bin/env sed -n '/"foreground_mean"/,/}/s/.*"Dice": *\([0-9.eE+-]*\).*/\1/p' demo/scores/summary.json | head -n 1)
[ -n "$dice" ] || fail "demo/scores/summary.json holds no foreground_mean Dice"

section "6/6 Segment one new scan, from the file alone"
"$vireo" phantom demo/new_patient --cases 1 --test-cases 0 --seed 2026 --overwrite
cp demo/new_patient/imagesTr/phantom_001_0000.nii.gz demo/new_scan.nii.gz
"$vireo" info demo/new_scan.nii.gz
"$vireo" predict --model "$model" --continue demo/new_scan.nii.gz demo/new_scan_labels

awk -v dice="$dice" -v least="$least_dice" 'BEGIN { exit !(dice >= least) }' ||
  fail "mean Dice on the held-out scans is $dice; at least $least_dice was expected"

section "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s: mean Dice $dice on 6 held-out scans"
for picture in \
  "demo/data/preview.png               the data and its truth" \
  "$run/progress.png   the training curve" \
  "demo/predictions/preview.png        the held-out scans, segmented" \
  "demo/scores/report.html             scores per organ and scan, with pictures" \
  "demo/new_scan_labels/preview.png    the new scan, segmented" \
  "demo/new_scan_labels/               its labels (NIfTI), volumes in millilitres"; do
  [ -e "${picture%% *}" ] || fail "${picture%% *} is missing"
  printf '  %s\n' "$picture"
done
