#!/usr/bin/env bash
# The whole job on made-up data, twice: train, score, segment a new scan; then train, score, classify
# new pictures. Run from the repository's root as
#   apps/demo.sh PROGRAM
# Everything goes to demo/, runs/segmentation/phantom/ and runs/classification/phantom/; what is
# done already is not done again.
set -euo pipefail

vireo=${1:?usage: apps/demo.sh PROGRAM}
config=configs/segmentation/phantom/rwkv_unet_t.toml
run=runs/segmentation/phantom/rwkv_unet_t
least_dice=0.85
classifier_config=configs/classification/phantom/vision_rwkv_small.toml
classifier_run=runs/classification/phantom/vision_rwkv_small
export VIREO_PHANTOM_PICTURES=demo/pictures
least_accuracy=0.85
begin=$SECONDS

section() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# The first NAME below BLOCK in a results file.
value() { # FILE BLOCK NAME
  local found
  found=$(sed -n "/\"$2\"/,/\"$3\"/s/.*\"$3\": *\([0-9.eE+-]*\).*/\1/p" "$1" | head -n 1)
  [ -n "$found" ] || fail "$1 holds no $2 $3"
  printf '%s' "$found"
}
at_least() { awk -v found="$1" -v least="$2" 'BEGIN { exit !(found >= least) }'; }

section "1/10 Data: CT-like abdomens, made here"
"$vireo" phantom demo/data --cases 24 --test-cases 6 --seed 1 --overwrite

section "2/10 Prepare: check, normalise, cache"
"$vireo" prepare "$config" --set data.folder=demo/data

section "3/10 Train RWKV-UNet-T (4 minutes on two cores)"
"$vireo" train "$config" --set data.folder=demo/data

section "4/10 Segment the 6 scans that training never saw"
model=$run/checkpoint_best.safetensors
"$vireo" predict --model "$model" --continue demo/data/imagesTs demo/predictions

section "5/10 Score them against the truth"
"$vireo" evaluate demo/predictions demo/data/labelsTs \
  --labels demo/data/dataset.json --images demo/data/imagesTs --output demo/scores
dice=$(value demo/scores/summary.json foreground_mean Dice)

section "6/10 Segment one new scan, from the file alone"
"$vireo" phantom demo/new_patient --cases 1 --test-cases 0 --seed 2026 --overwrite
cp demo/new_patient/imagesTr/phantom_001_0000.nii.gz demo/new_scan.nii.gz
"$vireo" info demo/new_scan.nii.gz
"$vireo" predict --model "$model" --continue demo/new_scan.nii.gz demo/new_scan_labels

section "7/10 More data: skin lesions of four classes, made here"
"$vireo" phantom demo/pictures --pictures 5000 --seed 1 --overwrite

section "8/10 Train Vision-RWKV (a minute)"
"$vireo" train "$classifier_config"

section "9/10 Score it on 1000 pictures that training never saw, beside what colours alone tell"
classifier=$classifier_run/checkpoint_best.safetensors
"$vireo" baseline "$classifier_config" --output demo/picture_baseline >/dev/null
"$vireo" evaluate "$classifier" "$classifier_config" --output demo/picture_scores
accuracy=$(value demo/picture_scores/results.json top1 value)
by_colour=$(value demo/picture_baseline/results.json top1 value)

section "10/10 Classify 12 new pictures, and show why"
"$vireo" phantom demo/new_pictures --pictures 12 --seed 2026 --overwrite
"$vireo" predict --model "$classifier" --evidence demo/new_pictures/images demo/new_picture_classes

at_least "$dice" "$least_dice" ||
  fail "mean Dice on the held-out scans is $dice; at least $least_dice was expected"
at_least "$accuracy" "$least_accuracy" ||
  fail "accuracy on the held-out pictures is $accuracy; at least $least_accuracy was expected"

section "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s"
printf '  mean Dice %.3f on 6 held-out scans\n' "$dice"
printf '  accuracy %.3f on 1000 held-out pictures (regression on their colours: %.3f)\n\n' "$accuracy" "$by_colour"
while read -r file about; do
  [ -e "$file" ] || fail "$file is missing"
  printf '  %-64s %s\n' "$file" "$about"
done <<EOF
demo/data/preview.png the data and its truth
$run/progress.png the training curve
demo/predictions/preview.png the held-out scans, segmented
demo/scores/report.html scores per organ and scan, with pictures
demo/new_scan_labels/preview.png the new scan, segmented
demo/new_scan_labels/ its labels (NIfTI), volumes in millilitres
demo/pictures/preview.png the pictures and their classes
$classifier_run/progress.png the training curve
demo/picture_scores/report.html scores per class, confusions, curves, the worst errors
demo/new_picture_classes/preview.png new pictures, their classes, and what spoke for them
EOF
